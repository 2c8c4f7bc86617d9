"""Training batches of our methods, laid out from what LeRobot's loader delivers.

Every sample is a window of one episode: its first frame, the current one, a few later ones and its
last (`ErConfig.observation_delta_indices`). Samples of one episode are put together, so pairs
are drawn from all of its frames in the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.lerobot_plugin.labels import EpisodeFacts, Facts
from embodied_reward.math.hops import hop_label
from embodied_reward.math.pairs import Pairs, PairSampler, balance
from embodied_reward.rewards.dopamine_assembly import Assembler, BatchSettings, HopBatch, Part
from embodied_reward.rewards.dopamine_demos import Demo
from embodied_reward.rewards.remaining_time import TimeBatch
from embodied_reward.rewards.success_batches import SuccessBatch
from embodied_reward.types import Float64, Int64


@dataclass(frozen=True)
class Stack:
    """All pictures of a batch at the model's size.

    Attributes:
        frames: uint8 Tensor["n v s s 3"], sample by sample.
        present: bool Tensor["n v"], which camera shows something.
    """

    frames: Tensor
    present: Tensor


@dataclass(frozen=True)
class Clip:
    """The frames of one episode that a batch holds, each once, in the order of time.

    Attributes:
        episode: LeRobot's `episode_index`.
        facts: its labels.
        rows: Int64["n"], places in the `Stack`.
        at: Int64["n"], frame numbers inside the episode, increasing; the first is 0.
    """

    episode: int
    facts: EpisodeFacts
    rows: Int64
    at: Int64


def clips_of(batch: Mapping[str, Any], facts: Facts, deltas: Sequence[int]) -> list[Clip]:
    """Group the frames of a batch by episode.

    Args:
        batch: has LeRobot's `index` and `episode_index`.
        facts: labels of the dataset.
        deltas: offsets of the windows' frames from the current one [rows].

    Raises:
        DatasetError: the numbers are missing or of another dataset.
    """
    if "index" not in batch or "episode_index" not in batch:
        raise DatasetError("training needs `index` and `episode_index` in the batch")
    index, episode = (_numbers(batch[key]) for key in ("index", "episode_index"))
    unknown = sorted(set(episode.tolist()) - set(facts))
    if unknown:
        raise DatasetError(f"the batch holds episode {unknown[0]}, which the dataset has not")
    begins = np.array([facts[e].begins for e in episode])
    last = np.array([len(facts[e].solved) - 1 for e in episode])
    at = np.clip((index - begins)[:, None] + np.asarray(deltas), 0, last[:, None])
    place = np.arange(at.size).reshape(at.shape)
    found = []
    for number in dict.fromkeys(episode.tolist()):
        mine = episode == number
        frames, first = np.unique(at[mine], return_index=True)
        found.append(Clip(number, facts[number], place[mine].ravel()[first], frames))
    return found


def hop_batch(
    stack: Stack, clips: Sequence[Clip], settings: BatchSettings, rng: np.random.Generator
) -> HopBatch | None:
    """Return a batch of `dopamine`; None where no clip shows its task solved."""
    positive = [(c, _hop_part(stack, c, settings.sampler, rng)) for c in clips if _goals(c).size]
    parts = [part for _, part in positive]
    if not parts:
        return None
    tasks = {part.demo.task for part in parts}
    # A failure without a goal of its task in the batch has nothing to be compared with.
    failed = [
        _failed_part(stack, c) for c in clips if not c.facts.success and c.facts.task in tasks
    ]
    weight = np.stack([_bootstrap(settings.heads, clip.episode) for clip, _ in positive], 1)
    return Assembler(parts + failed, len(parts), weight, settings, rng).batch()


def success_batch(
    stack: Stack, clips: Sequence[Clip], task: str, rng: np.random.Generator
) -> SuccessBatch:
    """Return a batch of `success`; episodes of another task are failures, if `task` is given."""
    rows = np.concatenate([c.rows for c in clips])
    sizes = np.array([len(c.rows) for c in clips])
    first = np.cumsum(sizes) - sizes
    solved = [c.facts.solved[c.at] & (not task or c.facts.task == task) for c in clips]
    return SuccessBatch(
        frames=stack.frames[rows],
        present=stack.present[rows],
        start=torch.from_numpy(np.repeat(first, sizes)),
        success=torch.from_numpy(np.concatenate(solved)).float(),
        seed=int(rng.integers(2**62)),
    )


def time_batch(stack: Stack, clips: Sequence[Clip], rng: np.random.Generator) -> TimeBatch | None:
    """Return a batch of `remaining_time`; None where no frame of it can teach anything."""
    # Every window brings its episode's first and last frame, which would crowd out the others.
    inner = [c.at > 0 for c in clips]
    # Between two successes nobody knows when the second one was due.
    known = [
        keep & (np.isfinite(c.facts.remaining[c.at]) | (not c.facts.success))
        for c, keep in zip(clips, inner, strict=True)
    ]
    rows = np.concatenate([c.rows[keep] for c, keep in zip(clips, known, strict=True)])
    if not len(rows):
        return None
    at = [c.at[keep] for c, keep in zip(clips, known, strict=True)]
    remaining = [c.facts.remaining[t] for c, t in zip(clips, at, strict=True)]
    solved = [c.facts.solved[t] for c, t in zip(clips, at, strict=True)]
    return TimeBatch(
        frames=stack.frames[rows],
        present=stack.present[rows],
        success=torch.from_numpy(np.concatenate(solved)).float(),
        variant=torch.zeros(len(rows), dtype=torch.int64),
        seed=int(rng.integers(2**62)),
        remaining=torch.from_numpy(np.concatenate(remaining)).float(),
    )


def hop_pairs(progress: Float64, states: int, sampler: PairSampler, rng: Any) -> Pairs:
    """Draw balanced pairs of frames whose progress is known, then zero hops.

    Args:
        progress: Float64["n"] in [0, 1], NaN where unknown.
        states: of the episode's discretised progress; what a temporal distance is counted in.
        sampler: bins and numbers.
        rng: source of randomness.
    """
    known = np.flatnonzero(np.isfinite(progress))
    i, j = (known[k.ravel()] for k in np.meshgrid(*2 * [np.arange(len(known))], indexing="ij"))
    i, j = i[i != j], j[i != j]
    zeros = known[rng.integers(0, len(known), round(sampler.pairs * sampler.zero_ratio))]
    hop = hop_label(progress[i], progress[j])
    gap = np.maximum(np.round(np.abs(progress[j] - progress[i]) * states), 1).astype(np.int64)
    chosen = balance(hop, gap, sampler.pairs - len(zeros), sampler, rng)
    i, j = i[chosen], j[chosen]
    nothing = np.zeros(len(zeros))
    return Pairs(
        before=np.concatenate([i, zeros]),
        after=np.concatenate([j, zeros]),
        hop=np.concatenate([hop[chosen], nothing]),
        reversed_hop=np.concatenate([hop_label(1 - progress[i], 1 - progress[j]), nothing]),
    )


def _goals(clip: Clip) -> Int64:
    """Return the clip's solved frames; none for an episode that shows no progress."""
    return np.flatnonzero(clip.facts.solved[clip.at]) if clip.facts.states else clip.at[:0]


def _hop_part(stack: Stack, clip: Clip, sampler: PairSampler, rng: np.random.Generator) -> Part:
    goals, everything = _goals(clip), np.arange(len(clip.at))
    pairs = hop_pairs(clip.facts.progress[clip.at], clip.facts.states, sampler, rng)
    return Part(_demo(stack, clip, goals), everything, pairs, 0, int(rng.choice(goals)))


def _failed_part(stack: Stack, clip: Clip) -> Part:
    empty = np.empty(0, np.int64)
    pairs = Pairs(empty, empty, np.empty(0), np.empty(0))
    return Part(_demo(stack, clip, empty), np.arange(len(clip.at)), pairs, 0, 0)


def _demo(stack: Stack, clip: Clip, goals: Int64) -> Demo:
    rows = torch.from_numpy(clip.rows)
    return Demo(stack.frames[rows], stack.present[rows], goals, goals, clip.facts.task)


def _bootstrap(heads: int, episode: int) -> Float64:
    """Return how often each head's bootstrap holds an episode, Float64["m"].

    Poisson(1) draws are the bootstrap of a stream (Oza and Russell 2001): the number of episodes
    that `--dataset.episodes` leaves need not be known.
    """
    if heads == 1:
        return np.ones(1)
    return np.random.default_rng((heads, episode)).poisson(1.0, heads).astype(float)


def _numbers(values: Any) -> Int64:
    return np.asarray(torch.as_tensor(values).cpu()).reshape(-1).astype(np.int64)
