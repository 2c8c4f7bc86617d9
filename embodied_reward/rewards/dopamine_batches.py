"""Training batches of `dopamine`: several episodes, one encoding per frame, balanced pairs.

Every batch is a pure function of (seed, step), so a resumed run continues exactly.

What teaches the model to say *no*:

- every pair is drawn in both orders, so half of the hops go backward (rewinds);
- frames before the goal, and failed episodes, are negatives of the success head (truncations);
- a failed episode's progress is bounded: it stays below 1, how far below nobody knows;
- where the data holds several tasks, some pairs see another task's start and goal. They then have
  no progress: H(start', s) = 0, H(goal', s) = -1, and no motion between frames counts;
- some pairs see start and goal exchanged, and then progress runs backward: so the references, and
  not the looks of a scene, say what the task is.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.rewards.dopamine_assembly import (
    Assembler,
    BatchSettings,
    HopBatch,
    failed_part,
    part_of,
)
from embodied_reward.rewards.dopamine_demos import Demo
from embodied_reward.types import Float64, Int64


class HopDataset:
    """Demonstrations that serve batches.

    Successful episodes give hops and success labels; failed ones success negatives and bounds.

    Raises:
        DatasetError: no episode is successful.
    """

    def __init__(self, demos: Sequence[Demo], settings: BatchSettings) -> None:
        self.positive = [d for d in demos if len(d.states)]
        self.settings = settings
        if not self.positive:
            raise DatasetError(
                f"none of the {len(demos)} training episodes is successful; progress is learned "
                "from successful demonstrations (collect some with --quality=expert)"
            )
        self.tasks = sorted({d.task for d in self.positive})
        # Failures of a task that nobody has shown cannot be compared with a goal.
        self.negative = [d for d in demos if not len(d.states) and d.task in self.tasks]
        rng = np.random.default_rng(len(self.positive))
        self._bootstrap = _bootstrap(settings.heads, len(self.positive), rng)

    def batch(self, episodes: int, seed: int, step: int) -> HopBatch:
        """Return batch number `step` with `episodes` episodes; the same numbers every time."""
        rng = np.random.default_rng((seed, step))
        chosen = self._choose(episodes, rng)
        tasks = {self.positive[i].task for i in chosen}
        parts = [part_of(self.positive[i], self.settings.sampler, rng) for i in chosen]
        failed = [d for d in self.negative if d.task in tasks]
        if failed:
            extra = _draw(len(failed), max(1, episodes // 4), rng)
            parts += [failed_part(failed[i], rng) for i in extra]
        weight = self._bootstrap[:, chosen]
        return Assembler(parts, len(chosen), weight, self.settings, rng).batch()

    def references(self, count: int) -> tuple[Tensor, Tensor, list[str]]:
        """Return start and goal frames of `count` demos per task, uint8 Tensor["k v h w 3"].

        The third value names the task of each.
        """
        demos: list[Demo] = []
        for task in self.tasks:
            mine = [d for d in self.positive if d.task == task]
            picks = np.unique(np.linspace(0, len(mine) - 1, count).round().astype(int))
            demos += [mine[i] for i in picks]
        start = torch.stack([d.frames[d.states[0]] for d in demos])
        goal = torch.stack([d.frames[d.goals[len(d.goals) // 2]] for d in demos])
        return start, goal, [d.task for d in demos]

    def _choose(self, episodes: int, rng: np.random.Generator) -> Int64:
        """Draw episodes; of several tasks, two or more of each drawn task, so they can swap."""
        if len(self.tasks) == 1:
            return _draw(len(self.positive), episodes, rng)
        count = min(len(self.tasks), max(2, episodes // 2))
        chosen = []
        for number, task in enumerate(rng.choice(self.tasks, count, replace=False)):
            mine = np.array([i for i, d in enumerate(self.positive) if d.task == task])
            share = episodes // count + (number < episodes % count)
            chosen.append(mine[_draw(len(mine), max(share, 1), rng)])
        return np.concatenate(chosen)


def _bootstrap(heads: int, demos: int, rng: np.random.Generator) -> Float64:
    """Return Float64["m n"]: how often each head's bootstrap holds each demonstration."""
    if heads == 1 or demos == 1:
        return np.ones((heads, demos))
    return np.stack([np.bincount(rng.integers(demos, size=demos), minlength=demos) for _ in range(heads)]).astype(float)  # fmt: skip  # noqa: E501


def _draw(available: int, wanted: int, rng: np.random.Generator) -> Int64:
    return rng.choice(available, wanted, replace=available < wanted)
