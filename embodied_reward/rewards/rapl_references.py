"""Which training episodes become the references of `rapl`, and their pictures."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.math.bradley_terry import strengths
from embodied_reward.rewards.preference_batches import (
    NOBODY,
    Judgements,
    PreferenceDataset,
    evenly,
)
from embodied_reward.types import Float64, Int64

CHOICES = ("best", "success", "medoid")
"""Most preferred; successes evenly over the dataset; successes nearest to the other ones."""

MEDOID_CANDIDATES = 24
"""Successes among which medoids are sought; their distances are quadratic in this number."""

type Distance = Callable[[Int64, Int64], Float64]
"""Distances of videos at two lists of positions, Float64["p"]."""


def choose_references(data: PreferenceDataset, choice: str, count: int, far: Distance) -> Int64:
    """Return positions of up to `count` training videos.

    Args:
        data: the training data.
        choice: one of `CHOICES`. `best` without any decided pair takes successes.
        count: references k.
        far: distances of videos in the encoder as it is now.

    Raises:
        DatasetError: a success is asked for and there is none.
    """
    if choice == "best" and len(_decided_pairs(data.judged)):
        return np.sort(np.argsort(-preference_strengths(data), kind="stable")[:count])
    solved = successes(data)
    if choice == "medoid":
        return _medoids(_evenly_chosen(solved, MEDOID_CANDIDATES), count, far)
    return _evenly_chosen(solved, count)


def preference_strengths(data: PreferenceDataset) -> Float64:
    """Return Bradley-Terry strengths of the videos from the decided pairs, Float64["n"]."""
    pairs = _decided_pairs(data.judged)
    return strengths(data.judged.better[pairs], data.judged.worse[pairs], len(data.videos))


def successes(data: PreferenceDataset) -> Int64:
    """Return positions of the videos that succeeded, or may have. Raises DatasetError."""
    solved = np.flatnonzero([len(v.goals) > 0 for v in data.videos])
    if not len(solved):
        raise DatasetError(
            f"none of the {len(data.videos)} training episodes is successful, and a reference has "
            "to be; compare pairs, of which --reward_model.reference=best takes the most preferred"
        )
    return solved


def reference_pictures(data: PreferenceDataset, frames: int) -> tuple[Tensor, Tensor]:
    """Return the references' pictures at even times, and how far along each is.

    Returns:
        uint8 Tensor["k s v h w 3"], and float Tensor["k s"]: the frame as a share of the episode
        up to the first frame that satisfies the task; 1 from there on.
    """
    videos = [data.videos[i] for i in data.references]
    chosen = [evenly(len(v), frames, data.horizon) for v in videos]
    pictures = [v.frames[torch.from_numpy(at)] for v, at in zip(videos, chosen, strict=True)]
    share = [np.minimum(at / max(v.end, 1), 1.0) for v, at in zip(videos, chosen, strict=True)]
    return torch.stack(pictures), torch.from_numpy(np.stack(share)).float()


def _decided_pairs(judged: Judgements) -> Int64:
    return np.flatnonzero(judged.decided & (judged.anchor == NOBODY))


def _evenly_chosen(among: Int64, count: int) -> Int64:
    return among[np.unique(np.linspace(0, len(among) - 1, count).round().astype(int))]


def _medoids(among: Int64, count: int, far: Distance) -> Int64:
    """Return those with the smallest mean distance to the others."""
    first, second = (index.ravel() for index in np.meshgrid(among, among, indexing="ij"))
    mean = far(first, second).reshape(len(among), -1).mean(1)
    return np.sort(among[np.argsort(mean, kind="stable")[:count]])
