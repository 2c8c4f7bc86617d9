"""Training batches of `success`: frames that satisfy the task, and frames that do not.

| label | frames                                                                            |
|-------|-----------------------------------------------------------------------------------|
| 1     | those the dataset marks; the last one of a success that marks none                |
| 0     | a demonstration before it succeeds: uniformly (every truncation), and once more    |
|       | its last quarter, where frames look most like success                             |
| 0     | a demonstration after its success was undone (rewound past the goal)               |
| 0     | failed episodes, and every episode of another task                                |

The classifier judges single frames, so truncated and rewound demonstrations need no copies: their
frames are among these. A batch is a function of (seed, step).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.types import Episode, Int64
from embodied_reward.vision.frames import decode_all


@dataclass(frozen=True)
class SuccessBatch:
    """One training batch.

    Attributes:
        frames: uint8 Tensor["n v h w 3"].
        present: bool Tensor["n v"], which camera shows something.
        start: int64 Tensor["n"] into frames, the first frame of each frame's episode.
        success: float32 Tensor["n"], 1 where the frame satisfies the task.
        seed: of augmentation and dropout.
    """

    frames: Tensor
    present: Tensor
    start: Tensor
    success: Tensor
    seed: int


@dataclass(frozen=True)
class Film:
    """One decoded episode: uint8 Tensor["t v h w 3"], which cameras show something, and goals.

    The latter are bool Tensor["t v"] and the successful frames Int64["g"].
    """

    frames: Tensor
    present: Tensor
    goals: Int64


class SuccessDataset:
    """Decoded episodes that serve batches.

    Args:
        episodes: successes and, better, failures as well.
        task: episodes of another task are failures; empty accepts every task.
        views: cameras.
        size: side of the pictures [px].
        count: frames per episode and batch.

    Raises:
        DatasetError: no episode is successful, or one has none of the views.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        *,
        task: str,
        views: Sequence[str],
        size: int,
        count: int,
    ) -> None:
        self.count = count
        pairs = zip(episodes, decode_all(episodes, views, size), strict=True)
        films = [Film(*decoded, goal_frames(e, task)) for e, decoded in pairs]
        self.positive = [f for f in films if len(f.goals)]
        self.negative = [f for f in films if not len(f.goals)]
        if not self.positive:
            what = f"'{task}'" if task else "the task"
            raise DatasetError(
                f"none of the {len(episodes)} training episodes succeeds at {what}; success is "
                "learned from frames that show it (collect some with --quality=expert)"
            )

    def batch(self, episodes: int, seed: int, step: int) -> SuccessBatch:
        """Return batch number `step` with `episodes` successes and as many failures."""
        rng = np.random.default_rng((seed, step))
        films = _choose(self.positive, episodes, rng) + _choose(self.negative, episodes, rng)
        chosen = [np.append(0, _frames(film, self.count, rng)) for film in films]
        sizes = np.array([len(c) for c in chosen])
        first = np.cumsum(sizes) - sizes
        pairs = list(zip(films, chosen, strict=True))
        return SuccessBatch(
            frames=torch.cat([film.frames[torch.from_numpy(at)] for film, at in pairs]),
            present=torch.cat([film.present[torch.from_numpy(at)] for film, at in pairs]),
            start=torch.from_numpy(np.repeat(first, sizes)),
            success=torch.from_numpy(
                np.concatenate([np.isin(at, film.goals) for film, at in pairs])
            ).float(),
            seed=int(rng.integers(2**62)),
        )


def goal_frames(episode: Episode, task: str = "") -> Int64:
    """Return the frames that satisfy the task, Int64["g"]; none where it failed."""
    none = np.empty(0, np.int64)
    if episode.success is False or (task and episode.task != task):
        return none
    marked = none if episode.success_frames is None else np.flatnonzero(episode.success_frames)
    # A dataset that marks no frame ends where its demonstrator was content: at the last one.
    return marked if len(marked) else np.array([len(episode) - 1])


def _frames(film: Film, count: int, rng: np.random.Generator) -> Int64:
    everything = np.arange(len(film.frames))
    if not len(film.goals):
        return _some(everything, count, rng)
    other, end = np.setdiff1d(everything, film.goals), int(film.goals[0])
    near = other[(other < end) & (other >= end * 3 // 4)]
    parts = [(film.goals, count // 3), (near, count // 3), (other, count - 2 * (count // 3))]
    return np.unique(np.concatenate([_some(pool, size, rng) for pool, size in parts]))


def _some(pool: Int64, count: int, rng: np.random.Generator) -> Int64:
    return rng.choice(pool, min(count, len(pool)), replace=False)


def _choose(films: list[Film], count: int, rng: np.random.Generator) -> list[Film]:
    if not films:
        return []
    return [films[i] for i in rng.choice(len(films), count, replace=len(films) < count)]
