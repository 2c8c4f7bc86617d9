"""One training batch of `dopamine`, laid out from episodes: frames, pairs, references, labels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_reward.math.pairs import Pairs, PairSampler, sample_pairs
from embodied_reward.rewards.dopamine_demos import Demo
from embodied_reward.types import Bool, Float64, Int64


@dataclass(frozen=True)
class HopPairs:
    """Pairs of frames with the reference frames they see, and what is known of their hop.

    Attributes:
        before: int64 Tensor["p"] into the batch's frames.
        after: int64 Tensor["p"].
        start: int64 Tensor["p"], reference start frame.
        goal: int64 Tensor["p"], reference goal frame.
        hop: float32 Tensor["p"] in [-1, 1], the label or its upper bound.
        weight: float32 Tensor["m p"], of each pair for each head.
    """

    before: Tensor
    after: Tensor
    start: Tensor
    goal: Tensor
    hop: Tensor
    weight: Tensor


@dataclass(frozen=True)
class HopBatch:
    """One training batch; everything indexes the frames.

    Attributes:
        frames: uint8 Tensor["n v h w 3"].
        present: bool Tensor["n v"], which camera shows something.
        part: int64 Tensor["n"], the episode of each frame inside the batch.
        variant: int64 Tensor["n"], which variant of the world shows in the frame.
        pairs: hops whose labels are known.
        bounds: hops of failed episodes, whose labels are upper bounds.
        success_frame: int64 Tensor["k"], frames that the success head judges.
        success_goal: int64 Tensor["k"], the goal frame beside each.
        success: float32 Tensor["k"], 1 where the frame satisfies the task.
        seed: for augmentation and dropout.
    """

    frames: Tensor
    present: Tensor
    part: Tensor
    variant: Tensor
    pairs: HopPairs
    bounds: HopPairs
    success_frame: Tensor
    success_goal: Tensor
    success: Tensor
    seed: int


@dataclass(frozen=True)
class BatchSettings:
    """How batches are drawn; see `DopamineConfig` for the fields."""

    sampler: PairSampler
    reference_swap: float
    mismatch: float
    reverse: float
    failure_margin: float
    heads: int


@dataclass(frozen=True)
class Part:
    """What a batch takes from one episode; frame numbers count inside the episode.

    Attributes:
        demo: the episode.
        frames: Int64["n"], the frames that the batch encodes, increasing.
        pairs: pairs of these frames; none for a failed episode.
        first: the episode's reference start.
        goal: its reference goal; meaningless for a failed episode.
    """

    demo: Demo
    frames: Int64
    pairs: Pairs
    first: int
    goal: int


def part_of(demo: Demo, sampler: PairSampler, rng: np.random.Generator) -> Part:
    """Draw the pairs of a successful episode, whose last state is any of its solved frames."""
    goal = int(rng.choice(demo.goals))
    states = demo.states.copy()
    states[-1] = goal
    pairs = sample_pairs(states, sampler, rng)
    first = int(demo.states[0])
    needed = np.concatenate([pairs.before, pairs.after, demo.states, [first, goal]])
    return Part(demo, np.unique(needed), pairs, first, goal)


def failed_part(demo: Demo, rng: np.random.Generator) -> Part:
    """Draw up to 24 frames of a failed episode."""
    count = min(len(demo.frames), 24)
    empty = np.empty(0, np.int64)
    chosen = np.sort(rng.choice(len(demo.frames), count, replace=False))
    return Part(
        demo, chosen, Pairs(empty, empty, np.empty(0), np.empty(0)), int(chosen[0]), int(chosen[0])
    )


class Assembler:
    """Lays parts out behind one another; the first `positives` of them succeeded."""

    def __init__(
        self, parts: list[Part], positives: int, weight: Float64, settings: BatchSettings,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.parts, self.positives, self.settings, self.rng = parts, positives, settings, rng
        self.weight = weight
        self.offset = np.cumsum([0, *(len(p.frames) for p in parts)])
        self.start = np.array([self._place(i, p.first) for i, p in enumerate(parts)])
        self.goal = np.array([self._place(i, p.goal) for i, p in enumerate(parts)])
        self.task = np.array([p.demo.task for p in parts])
        self.variant = np.array([p.demo.variant for p in parts])

    def batch(self) -> HopBatch:
        """Return the batch."""
        frame, goal, success = self._success()
        return HopBatch(
            frames=torch.cat([p.demo.frames[torch.from_numpy(p.frames)] for p in self.parts]),
            present=torch.cat([p.demo.present[torch.from_numpy(p.frames)] for p in self.parts]),
            part=torch.from_numpy(self._of_frame()),
            variant=torch.from_numpy(self.variant[self._of_frame()]),
            pairs=self._pairs(),
            bounds=self._bounds(),
            success_frame=torch.from_numpy(frame),
            success_goal=torch.from_numpy(goal),
            success=torch.from_numpy(success).float(),
            seed=int(self.rng.integers(2**62)),
        )

    def _place(self, part: int, frame: int | Int64) -> Int64:
        return self.offset[part] + np.searchsorted(self.parts[part].frames, frame)

    def _of_frame(self) -> Int64:
        return np.repeat(np.arange(len(self.parts)), [len(p.frames) for p in self.parts])

    def _references(self, own: Int64) -> Int64:
        """Choose the part whose start and goal each sample sees: its own, or one of its task."""
        chosen = own.copy()
        swap = self.rng.random(len(own)) < self.settings.reference_swap
        for part in np.unique(own):
            same = np.flatnonzero(self.task[: self.positives] == self.task[part])
            others = same[same != part]
            # A failed episode has no goal of its own.
            rows = np.flatnonzero((own == part) & (swap | (part >= self.positives)))
            if len(others) and len(rows):
                chosen[rows] = self.rng.choice(others, len(rows))
        return chosen

    def _strangers(self, own: Int64) -> Int64:
        """Choose a successful part of another task for each sample; -1 where there is none."""
        chosen = np.full(len(own), -1)
        for part in np.unique(own):
            others = np.flatnonzero(self.task[: self.positives] != self.task[part])
            rows = np.flatnonzero(own == part)
            if len(others):
                chosen[rows] = self.rng.choice(others, len(rows))
        return chosen

    def _pairs(self) -> HopPairs:
        counts = [len(p.pairs) for p in self.parts]
        own = np.repeat(np.arange(len(self.parts)), counts)
        before = np.concatenate([self._place(i, p.pairs.before) for i, p in enumerate(self.parts)])
        after = np.concatenate([self._place(i, p.pairs.after) for i, p in enumerate(self.parts)])
        hop = np.concatenate([p.pairs.hop for p in self.parts])
        source = self._references(own)
        stranger = self._strangers(own)
        rows = np.flatnonzero(
            (stranger >= 0) & (self.rng.random(len(own)) < self.settings.mismatch)
        )
        source[rows] = stranger[rows]
        before, hop = self._mismatch(rows, source, before, hop)
        exchange = np.zeros(len(own), bool)
        if self.settings.reverse:
            exchange = self.rng.random(len(own)) < self.settings.reverse
            exchange[rows] = False
        back = np.concatenate([p.pairs.reversed_hop for p in self.parts])
        hop = np.where(exchange, back, hop)
        return self._hop_pairs(own, before, after, source, hop, exchange)

    def _mismatch(
        self, rows: Int64, source: Int64, before: Int64, hop: Float64
    ) -> tuple[Int64, Float64]:
        """Relabel pairs that see another task: a third each against start, goal and itself."""
        before, hop = before.copy(), hop.copy()
        kind = self.rng.integers(3, size=len(rows))
        from_start, from_goal = rows[kind == 0], rows[kind == 1]
        before[from_start] = self.start[source[from_start]]
        before[from_goal] = self.goal[source[from_goal]]
        hop[rows] = 0.0
        hop[from_goal] = -1.0
        return before, hop

    def _bounds(self) -> HopPairs:
        """Every frame of a failed episode, against a start and a goal of its task."""
        own = self._of_frame()
        frame = np.flatnonzero(own >= self.positives)
        source = self._references(own[frame])
        margin = self.settings.failure_margin
        return self._hop_pairs(
            np.concatenate([source, source]),
            np.concatenate([self.start[source], self.goal[source]]),
            np.concatenate([frame, frame]),
            np.concatenate([source, source]),
            np.concatenate([np.full(len(frame), 1 - margin), np.full(len(frame), -margin)]),
        )

    def _hop_pairs(
        self,
        own: Int64,
        before: Int64,
        after: Int64,
        source: Int64,
        hop: Float64,
        exchange: Bool | None = None,
    ) -> HopPairs:
        start, goal = self.start[source], self.goal[source]
        if exchange is not None:
            start, goal = np.where(exchange, goal, start), np.where(exchange, start, goal)
        indices = (before, after, start, goal)
        return HopPairs(
            *(torch.from_numpy(np.asarray(i, np.int64)) for i in indices),
            hop=torch.from_numpy(hop).float(),
            weight=torch.from_numpy(self.weight[:, own]).float(),
        )

    def _success(self) -> tuple[Int64, Int64, Float64]:
        own = self._of_frame()
        frame = np.arange(len(own))
        solved = np.concatenate([np.isin(p.frames, p.demo.goals) for p in self.parts])
        goal = self.goal[self._references(own)]
        stranger = self._strangers(own)
        rows = np.flatnonzero(
            (stranger >= 0) & (self.rng.random(len(own)) < self.settings.mismatch)
        )
        return (
            np.concatenate([frame, frame[rows]]),
            np.concatenate([goal, self.goal[stranger[rows]]]),
            np.concatenate([solved, np.zeros(len(rows))]).astype(float),
        )
