"""Transport between one embedded episode and embedded reference videos, at scoring time."""

from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_reward.math.sinkhorn import (
    band,
    best_reference,
    cosine_cost,
    step_rewards,
    transport,
)

TOLERANCE = 1e-4  # of the marginals of a plan
ITERATIONS = 4000


@dataclass(frozen=True)
class Matched:
    """An episode beside its nearest reference.

    Attributes:
        rewards: Tensor["t"] in [-2, 0], the step rewards r_t of the episode's own frames times the
            number of rows, so that they do not shrink with the length.
        distance: <T*, C>, minus the mean of such rewards over all rows, continued ones included.
        reference: which one was nearest.
    """

    rewards: Tensor
    distance: float
    reference: int


def nearest_reference(
    frames: Tensor, references: Tensor, *, epsilon: float, share: float, rows: int
) -> Matched:
    """Match an episode with every reference and keep the one at the smallest distance.

    A plan that does not meet its marginals is none; where none does, all numbers are NaN.

    Args:
        frames: Tensor["t e"], embedded frames of the episode.
        references: Tensor["k s e"], embedded reference videos.
        epsilon: strength of the entropy.
        share: half of the band, as a share of the video; 0 allows any match.
        rows: frames to which a shorter episode is continued with its last one.
    """
    length, count = len(frames), len(references)
    missing = max(rows - length, 0)
    whole = torch.cat([frames, frames[-1:].expand(missing, -1)])
    cost = cosine_cost(whole.expand(count, -1, -1), references)
    found = transport(
        cost, epsilon, allowed=within(cost, share), tolerance=TOLERANCE, iterations=ITERATIONS
    )
    rewards = step_rewards(cost, found.plan)
    usable = torch.where(found.converged[:, None], rewards, -torch.inf)
    best = int(best_reference(usable[None])[0])
    if not found.converged[best]:
        rewards = torch.full_like(rewards, torch.nan)
    return Matched(rewards[best, :length] * len(whole), float(-rewards[best].sum()), best)


def within(cost: Tensor, share: float) -> Tensor | None:
    """Return the band of a share of the longer video around a cost's diagonal; None without one."""
    if not share:
        return None
    b, t, s = cost.shape
    return band((b, t, s), share * max(t, s), device=cost.device)
