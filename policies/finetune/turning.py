"""Credit of single denoising steps from the scores that the plan would have had without noise.

TurningPoint-GRPO (2026, arXiv:2602.06422). With R_t the score after t noisy steps when the rest is
denoised without noise, and D = R_T - R_0 what the noise brought altogether, step t earns

    d_t = R_t - R_t-1,    sum_t d_t = D

and at a turning point, where the trend joins that of the whole (d_t-1 D < 0 < d_t D) and goes on so
(d_t (R_T - R_t) > 0), all that follows: R_T - R_t-1. The first step counts as one if d_1 D > 0 and
it goes on so.
"""

import torch
from torch import Tensor


def increments(scores: Tensor) -> Tensor:
    """Return d [n t] of scores R [n t+1]."""
    return scores[:, 1:] - scores[:, :-1]


def turning_points(scores: Tensor) -> Tensor:
    """Return Bool[n t]: which steps join the trend of the whole. Scores are R [n t+1]."""
    step, whole = increments(scores).sign(), (scores[:, -1:] - scores[:, :1]).sign()
    rest = (scores[:, -1:] - scores[:, 1:]).sign()
    before = torch.cat([-whole, step[:, :-1]], dim=1)  # the first step has nothing to turn from
    return (before * whole < 0) & (step * whole > 0) & (step * rest > 0)


def balanced(points: Tensor, gains: Tensor) -> Tensor:
    """Return as many turning points up as down: of the more frequent kind, the largest stay.

    Args:
        points: Bool[n t].
        gains: [n t], what each would earn.
    """
    kinds = (points & (gains > 0), points & (gains < 0))
    count = min(int(kind.sum()) for kind in kinds)
    kept = torch.zeros_like(points)
    for kind in kinds:
        size = torch.where(kind, gains.abs(), -1.0).flatten()
        kept.view(-1)[size.argsort(descending=True, stable=True)[:count]] = True
    return kept & points


def step_credit(scores: Tensor) -> Tensor:
    """Return what every step of n plans earns [n t], of scores R [n t+1]."""
    gains = scores[:, -1:] - scores[:, :-1]
    points = balanced(turning_points(scores), gains)
    return torch.where(points, gains, increments(scores))
