"""Two-hot encoding of a scalar in a closed range over evenly spaced bins.

A value between two bin centres puts its mass on both, in proportion to nearness, so that the
expectation over bins gives the value back exactly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def centres(bins: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return the bin centres, Tensor["k"]."""
    return torch.linspace(low, high, bins, dtype=torch.float64)


def encode(value: Tensor, bins: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return Tensor["... k"] of non-negative weights that sum to 1; values are clamped."""
    position = (value.clamp(low, high) - low) / (high - low) * (bins - 1)
    below = position.floor().long().clamp(max=bins - 2)
    upper = (position - below).unsqueeze(-1)
    lower = F.one_hot(below, bins) * (1 - upper)
    return lower + F.one_hot(below + 1, bins) * upper


def expectation(logits: Tensor, low: float = -1.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return mean and variance of the distribution given by logits Tensor["... k"]."""
    grid = centres(logits.shape[-1], low, high).to(logits)
    probability = logits.softmax(-1)
    mean = (probability * grid).sum(-1)
    return mean, (probability * grid.square()).sum(-1).sub(mean.square()).clamp(min=0)


def mixture(logits: Tensor) -> Tensor:
    """Average the distributions of logits Tensor["m ... k"] over m; returns logits Tensor["... k"].

    The variance of the mixture holds the spread of every member and that between them.
    """
    count = torch.as_tensor(float(len(logits)))
    return logits.log_softmax(-1).logsumexp(0) - count.log().to(logits)


def cross_entropy(logits: Tensor, value: Tensor, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Return the cross-entropy to the two-hot target, one per value, minus the target's entropy.

    Subtracting the constant makes a perfect prediction score 0.
    """
    target = encode(value, logits.shape[-1], low, high)
    entropy = torch.special.entr(target).sum(-1)
    return -(target * logits.log_softmax(-1)).sum(-1) - entropy
