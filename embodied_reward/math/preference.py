"""Losses on differences of preference scores: pure functions of torch tensors.

d is the score of the preferred item minus that of the other; sigma the logistic function. Every
function returns one value per pair (or per set), so that callers may weight them.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from embodied_reward.types import Float64


def bradley_terry(d: Tensor) -> Tensor:
    """Return -log sigma(d), Tensor["p"]; Bradley & Terry (1952)."""
    return F.softplus(-d)


def soft_bradley_terry(d: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropy of P(preferred) = sigma(d) against `target` in [0, 1], ["p"].

    target 1 is `bradley_terry`, 0.5 a label that says nothing, 0 the flipped label.
    """
    return target * F.softplus(-d) + (1 - target) * F.softplus(d)


def win_tie(d: Tensor, tie: Tensor, margin: float = 3.0) -> Tensor:
    """Return the win-tie margin loss of SoliReward, Tensor["p"].

    A win costs -log sigma(d - m), a tie -log sigma(d - m) - log sigma(-d - m): flat for
    |d| << m, with gradient exactly 0 at d = 0.

    Args:
        d: Tensor["p"].
        tie: Bool Tensor["p"].
        margin: m >= 0.
    """
    win = F.softplus(margin - d)
    return torch.where(tie, win + F.softplus(margin + d), win)


def rao_kupper(d: Tensor, tie: Tensor, k: float = 5.0) -> Tensor:
    """Return -log likelihood of Rao & Kupper (1967) as VideoAlign uses it, Tensor["p"].

    P(win) = sigma(d - log k); P(tie) = (k^2 - 1) sigma(d - log k) sigma(-d - log k). The three
    outcomes' probabilities add up to 1.

    Args:
        d: Tensor["p"].
        tie: Bool Tensor["p"].
        k: > 1; larger makes ties likelier.
    """
    return win_tie(d, tie, math.log(k)) - tie.to(d.dtype) * math.log(k * k - 1)


def log_partition(scores: Tensor, group: Tensor, count: int) -> Tensor:
    """Return log sum exp of every set, Tensor["g"]; `group` Int64["n"] is the set of each score."""
    top = scores.new_full((count,), -torch.inf).scatter_reduce(0, group, scores.detach(), "amax")
    total = scores.new_zeros(count).index_add(0, group, (scores - top[group]).exp())
    return total.log() + top


def n_way(scores: Tensor, group: Tensor, best: Tensor) -> Tensor:
    """Return -log softmax(scores of a set)[best], Tensor["g"]; two candidates give Bradley-Terry.

    Args:
        scores: Tensor["n"].
        group: Int64 Tensor["n"], set 0..g-1 of every candidate.
        best: Int64 Tensor["g"], index into the n candidates.
    """
    return log_partition(scores, group, len(best)) - scores[best]


def gauss_hermite(
    function: Callable[[Tensor], Tensor], mean: Tensor, std: Tensor, points: int = 8
) -> Tensor:
    """Return E[function(z)] for z ~ N(mean, std^2) by Gauss-Hermite quadrature, shape of `mean`.

    Deterministic and exact for polynomials up to degree 2 points - 1.
    """
    z, weight = _nodes(mean, std, points)
    return function(z) @ weight


def expected_bradley_terry(mean: Tensor, std: Tensor, points: int = 8) -> Tensor:
    """Return E[-log sigma(z)], z ~ N(mean, std^2), Tensor["p"]: HPSv3's loss without sampling.

    -log sigma is convex, so this grows with std whatever the data say: it cannot teach std more
    than to vanish. `marginal_bradley_terry` can.

    Args:
        mean: Tensor["p"], mu of the preferred minus mu of the other.
        std: Tensor["p"], sqrt(sigma_preferred^2 + sigma_other^2).
        points: nodes; 8 err by 1e-13, 1e-6, 4e-4 at std 0.3, 1, 2.
    """
    return gauss_hermite(bradley_terry, mean, std, points)


def marginal_bradley_terry(mean: Tensor, std: Tensor, points: int = 8) -> Tensor:
    """Return -log E[sigma(z)], z ~ N(mean, std^2), Tensor["p"]: the likelihood of the choice.

    Where judgements are coin flips a large std costs less than a wrong certainty, so std is
    learned. Arguments as of `expected_bradley_terry`.
    """
    z, weight = _nodes(mean, std, points)
    return -torch.logsumexp(F.logsigmoid(z) + weight.log(), -1)


def _nodes(mean: Tensor, std: Tensor, points: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.hermite.hermgauss(points)
    x = torch.as_tensor(nodes, dtype=mean.dtype, device=mean.device)
    w = torch.as_tensor(weights / math.sqrt(math.pi), dtype=mean.dtype, device=mean.device)
    return mean[..., None] + math.sqrt(2) * std[..., None] * x, w


def attenuated(loss: Tensor, u: Tensor) -> Tensor:
    """Return exp(-U) L + U, Tensor["p"]: the reward loss of Ctrl-U; U = 0 leaves L as it is."""
    return (-u).exp() * loss + u


def strength(margins: Float64) -> tuple[Float64, Float64]:
    """Return mean and standard deviation of d over K models, two Float64["p"].

    "Secrets of RLHF in Large Language Models II", section 2.1. The deviation divides by K.

    Args:
        margins: Float64["k p"], d of every model on every pair.
    """
    return margins.mean(0), margins.std(0)


def voted_targets(
    mean: Float64, *, flip: float = 0.2, soften: float = 0.2, smoothing: float = 0.2
) -> Float64:
    """Return target probabilities Float64["p"] for `soft_bradley_terry`, from preference strength.

    The weakest `flip` share is likely wrong and is flipped where the models agree on the opposite
    (mean < 0); the next `soften` share is ambiguous and becomes 1 - smoothing; the rest stays 1.
    A weak pair that the models do not contradict is softened instead of flipped.

    Args:
        mean: Float64["p"], mean strength.
        flip: share of the pairs that may be flipped.
        soften: share of the pairs above those that is softened.
        smoothing: how far a soft label is from certainty.
    """
    rank = np.argsort(np.argsort(mean, kind="stable"), kind="stable") / max(len(mean), 1)
    target = np.where(rank < flip + soften, 1.0 - smoothing, 1.0)
    return np.where((rank < flip) & (mean < 0), 0.0, target)


def bernoulli_kl(a: Tensor, b: Tensor) -> Tensor:
    """Return KL(Bernoulli(sigma(a)) || Bernoulli(sigma(b))) >= 0, of logits of one shape."""
    p = torch.sigmoid(a)
    return (
        p * (F.softplus(-b) - F.softplus(-a)) + (1 - p) * (F.softplus(b) - F.softplus(a))
    ).clamp_min(0)


def uncertainty_weight(u: Tensor, tau: float = 1.0) -> Tensor:
    """Return exp(-U / tau) in (0, 1]: how much a consumer should trust a score; 1 at U = 0."""
    return (-u / tau).exp()
