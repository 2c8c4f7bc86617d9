"""Training batches of `dopamine`: several episodes, one encoding per frame, balanced pairs.

Every batch is a pure function of (seed, step), so a resumed run continues exactly.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.math.hops import reference_sources, state_frames
from embodied_reward.math.pairs import Pairs, PairSampler, sample_pairs
from embodied_reward.types import Episode, Int64
from embodied_reward.vision.frames import decode_all


@dataclass(frozen=True)
class HopBatch:
    """One training batch; pairs index the frames.

    Attributes:
        frames: uint8 Tensor["n v h w 3"].
        before: int64 Tensor["p"] into frames.
        after: int64 Tensor["p"].
        hop: float32 Tensor["p"] labels in [-1, 1].
        start: int64 Tensor["p"], reference start frame of each pair.
        goal: int64 Tensor["p"], reference goal frame of each pair.
        success: float32 Tensor["n"], 1 where the frame satisfies the task.
        frame_goal: int64 Tensor["n"], reference goal of each frame for the success head.
        seed: for augmentation and dropout.
    """

    frames: Tensor
    before: Tensor
    after: Tensor
    hop: Tensor
    start: Tensor
    goal: Tensor
    success: Tensor
    frame_goal: Tensor
    seed: int


@dataclass(frozen=True)
class Demo:
    """One decoded training episode.

    Attributes:
        frames: uint8 Tensor["t v h w 3"].
        states: Int64["M+1"], frames of the states s_0..s_M; empty for a failed episode.
        goals: Int64["g"], frames that satisfy the task; the last state is drawn from them.
    """

    frames: Tensor
    states: Int64
    goals: Int64


class HopDataset:
    """Decoded demonstrations that serve batches.

    Successful episodes give hops and success labels; failed ones only negatives for the
    success head, because their progress is not known.
    """

    def __init__(
        self,
        episodes: Sequence[Episode],
        *,
        views: Sequence[str],
        size: int,
        chunk: int,
        sampler: PairSampler,
        reference_swap: float,
    ) -> None:
        frames = decode_all(episodes, views, size)
        demos = [_demo(e, f, chunk) for e, f in zip(episodes, frames, strict=True)]
        self.positive = [d for d in demos if len(d.states)]
        self.negative = [d for d in demos if not len(d.states)]
        self.sampler, self.reference_swap = sampler, reference_swap
        if not self.positive:
            raise DatasetError(
                f"none of the {len(episodes)} training episodes is successful; progress is learned "
                "from successful demonstrations (collect some with --quality=expert)"
            )

    def batch(self, episodes: int, seed: int, step: int) -> HopBatch:
        """Return batch number `step` with `episodes` episodes; the same numbers every time."""
        rng = np.random.default_rng((seed, step))
        chosen = _choose(len(self.positive), episodes, rng)
        parts = [_part(self.positive[i], self.sampler, rng) for i in chosen]
        if self.negative:
            extra = _choose(len(self.negative), max(1, episodes // 4), rng)
            parts += [_negative_part(self.negative[i], self.sampler, rng) for i in extra]
        return _assemble(parts, len(chosen), self.reference_swap, rng)

    def references(self, count: int) -> tuple[Tensor, Tensor]:
        """Return start and goal frames of `count` demos, each uint8 Tensor["k v h w 3"]."""
        picks = np.unique(np.linspace(0, len(self.positive) - 1, count).round().astype(int))
        demos = [self.positive[i] for i in picks]
        start = torch.stack([d.frames[d.states[0]] for d in demos])
        return start, torch.stack([d.frames[d.goals[len(d.goals) // 2]] for d in demos])


def auto_chunk(episodes: Sequence[Episode], states: int = 24) -> int:
    """Return the frames per state C that cut the median episode into about `states` states."""
    lengths = [len(e) for e in episodes if e.success is not False]
    return max(1, round(float(np.median(lengths or [1])) / states))


@dataclass(frozen=True)
class _Part:
    demo: Demo
    frames: Int64  # frame numbers inside the demo that this batch encodes
    pairs: Pairs
    first: int
    goal: int


def _demo(episode: Episode, frames: Tensor, chunk: int) -> Demo:
    none = np.empty(0, np.int64)
    if episode.success is False:
        return Demo(frames, none, none)
    last = len(frames) - 1
    solved = np.flatnonzero(episode.success_frames) if episode.success_frames is not None else none
    # A dataset that marks no frame ends where its demonstrator was content: at the last one.
    end = int(solved[0]) if len(solved) else last
    if end < 1:
        return Demo(frames, none, none)
    goals = solved if len(solved) else np.array([last])
    return Demo(frames, state_frames(np.array([0, end]), chunk), goals)


def _choose(available: int, wanted: int, rng: np.random.Generator) -> Int64:
    return rng.choice(available, wanted, replace=available < wanted)


def _part(demo: Demo, sampler: PairSampler, rng: np.random.Generator) -> _Part:
    goal = int(rng.choice(demo.goals))
    states = demo.states.copy()
    states[-1] = goal
    pairs = sample_pairs(states, sampler, rng)
    needed = np.concatenate([pairs.before, pairs.after, demo.states, [0, goal]])
    return _Part(demo, np.unique(needed), pairs, 0, goal)


def _negative_part(demo: Demo, sampler: PairSampler, rng: np.random.Generator) -> _Part:
    count = min(len(demo.frames), 24)
    empty = np.empty(0, np.int64)
    chosen = np.sort(rng.choice(len(demo.frames), count, replace=False))
    return _Part(demo, chosen, Pairs(empty, empty, np.empty(0)), int(chosen[0]), int(chosen[0]))


def _assemble(
    parts: list[_Part], positives: int, swap: float, rng: np.random.Generator
) -> HopBatch:
    offset = np.cumsum([0, *(len(p.frames) for p in parts)])[:-1]
    placed = list(zip(parts, offset, strict=True))
    references = np.array([o + np.searchsorted(p.frames, [p.first, p.goal]) for p, o in placed])
    before = np.concatenate([o + np.searchsorted(p.frames, p.pairs.before) for p, o in placed])
    after = np.concatenate([o + np.searchsorted(p.frames, p.pairs.after) for p, o in placed])
    own = np.repeat(np.arange(len(parts)), [len(p.pairs) for p in parts])
    source = reference_sources(own, positives, rng, probability=swap)
    of_frame = np.repeat(np.arange(len(parts)), [len(p.frames) for p in parts]) % positives
    frame_source = reference_sources(of_frame, positives, rng, probability=swap)
    return HopBatch(
        frames=torch.cat([p.demo.frames[torch.from_numpy(p.frames)] for p in parts]),
        before=torch.from_numpy(before),
        after=torch.from_numpy(after),
        hop=torch.from_numpy(np.concatenate([p.pairs.hop for p in parts])).float(),
        start=torch.from_numpy(references[source, 0]),
        goal=torch.from_numpy(references[source, 1]),
        success=torch.from_numpy(np.concatenate([_solved(p) for p in parts])).float(),
        frame_goal=torch.from_numpy(references[frame_source, 1]),
        seed=int(rng.integers(2**62)),
    )


def _solved(part: _Part) -> np.ndarray:
    return np.isin(part.frames, part.demo.goals)
