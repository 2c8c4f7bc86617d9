"""Two-hot encoding of a duration over bins that are even in symlog space.

    symlog(x) = sign(x) log(1 + |x|),    symexp its inverse

Short times get fine bins, long ones coarse bins. A value between two bin centres puts its mass
on both, in proportion to nearness *in the value's own unit*, so that the expectation over bins
gives the value back exactly and the decoded mean is a mean of durations, not of logarithms.
Source: DreamerV3 (arXiv:2301.04104, equations 9-10).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def symlog(value: Tensor) -> Tensor:
    """Return sign(x) log(1 + |x|), elementwise."""
    return value.sign() * value.abs().log1p()


def symexp(value: Tensor) -> Tensor:
    """Return sign(x) (exp(|x|) - 1), the inverse of `symlog`."""
    return value.sign() * value.abs().expm1()


def grid(bins: int, high: float) -> Tensor:
    """Return increasing bin centres from 0 to `high`, float64 Tensor["k"]."""
    top = symlog(torch.tensor(high, dtype=torch.float64))
    return symexp(torch.linspace(0.0, 1.0, bins, dtype=torch.float64) * top)


def encode(value: Tensor, centres: Tensor) -> Tensor:
    """Return Tensor["... k"] of non-negative weights that sum to 1; values are clamped.

    Args:
        value: Tensor["..."] in the unit of the centres.
        centres: increasing Tensor["k"].
    """
    value = value.to(centres).clamp(centres[0], centres[-1])
    above = torch.searchsorted(centres, value.contiguous(), right=True).clamp(max=len(centres) - 1)
    low, high = centres[above - 1], centres[above]
    upper = ((value - low) / (high - low)).unsqueeze(-1)
    return F.one_hot(above - 1, len(centres)) * (1 - upper) + F.one_hot(above, len(centres)) * upper


def expectation(logits: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the distribution given by logits Tensor["... k"]."""
    centres = centres.to(logits)
    probability = logits.softmax(-1)
    mean = (probability * centres).sum(-1)
    deviation = centres - mean.unsqueeze(-1)
    return mean, (probability * deviation.square()).sum(-1)


def cross_entropy(logits: Tensor, value: Tensor, centres: Tensor) -> Tensor:
    """Return the cross-entropy to the two-hot target minus its entropy, so perfect is 0."""
    target = encode(value, centres).to(logits)
    entropy = torch.special.entr(target).sum(-1)
    return -(target * logits.log_softmax(-1)).sum(-1) - entropy


def at_least(logits: Tensor, bound: Tensor, centres: Tensor) -> Tensor:
    """Return -log P(value >= bound): the one-sided loss of a value known from below only.

    The bin just under the bound counts by its share of the bound's two-hot encoding, which
    makes the loss continuous in the bound and 0 for a bound at the first centre.
    """
    counted = encode(bound, centres).cumsum(-1).clamp(max=1.0).to(logits)
    return -torch.logsumexp(logits.log_softmax(-1) + counted.log(), -1)
