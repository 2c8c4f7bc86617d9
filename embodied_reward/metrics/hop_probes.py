"""Questions to a hop predictor beyond VOC: size, direction, standing still, consistency.

All pairs of an episode are drawn once, from its index alone, so every predictor answers the
same questions, and asked in one call, because a model encodes the episode at each call.

    bands          the true hop H of a pair is small, medium or large, up or down, or 0
    shuffled       one random frame against all others in random order: nothing accumulates
    consistency    |S(i, k) - S(i, j) - S(j, k)| after conversion to progress  (macro-consistency)
    path spread    where the chain from 0 ends when it takes 1, 2, 4 or 8 sampled steps at once

Sources: RoboPulse and the consistency axiom of Robo-Dopamine (arXiv:2512.23703); the band
edges are ours. Traps: a predictor that always answers 0 never moves falsely and is perfectly
consistent; one that derives its hops from a potential is consistent by construction.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from embodied_reward.math.hops import apply_hop, hop_label
from embodied_reward.metrics.voc import HopFn, accumulate
from embodied_reward.types import Episode, Float64, Int64

Pairs = tuple[Int64, Int64]
"""Frame indices (before Int64["p"], after Int64["p"])."""

TRUE_MOTION = 0.01
"""Pairs whose true progress differs by less than this do not count as moving."""

TRUE_STILL = 0.005
"""Pairs whose true hop is smaller than this count as standing still."""

FALSE_MOTION = 0.05
"""A hop beyond this between frames of equal progress is a false motion."""

BANDS = {"small": (0.0, 0.25), "medium": (0.25, 0.6), "large": (0.6, 1.01)}
"""|H| of the pairs in each band."""

STRIDES = (1, 2, 4, 8)
GRID, PER_KIND, TRIPLES = 40, 20, 40


@dataclass(frozen=True)
class Probes:
    """One episode's questions.

    Attributes:
        frames: Int64["n"], the frames that VOC samples.
        true: Float64["p"], true hops of the banded pairs; empty without true progress.
        pairs: name -> pairs to ask for.
        starts: Int64["k"], first frame of each triple.
    """

    frames: Int64
    true: Float64
    pairs: Mapping[str, Pairs]
    starts: Int64


@dataclass(frozen=True)
class Answers:
    """One episode's answers; what was not finite is left out.

    Attributes:
        true: Float64["p"] in [-1, 1], true hops, 0 where the pair stands still.
        said: Float64["p"], predicted hops of the same pairs.
        shuffled: Float64["n-1"], hops from the anchor to every other sampled frame.
        order: Int64["n-1"], those frames.
        inconsistency: mean |S(i, k) - S(i, j) - S(j, k)| in [0, 1].
        path_spread: largest minus smallest end of the chain over strides, in [0, 1].
    """

    true: Float64
    said: Float64
    shuffled: Float64
    order: Int64
    inconsistency: float
    path_spread: float


def plan(episode: Episode, frames: Int64) -> Probes:
    """Draw an episode's questions; `frames` Int64["n"] are those that VOC samples."""
    rng = np.random.default_rng([episode.index, len(episode)])
    true, banded = _banded(episode, rng)
    i, j, k = _triples(len(episode), rng)
    anchor, *others = rng.permutation(frames) if len(frames) else (0,)
    order = np.asarray(others, np.int64)
    pairs = {
        "forward": (frames[:-1], frames[1:]),
        "inverse": (frames[1:], frames[:-1]),
        "banded": banded,
        "shuffled": (np.full(len(order), anchor), order),
        "direct": (i, k),
        "first": (i, j),
        "second": (j, k),
        **{f"stride {s}": _strided(frames, s) for s in STRIDES},
    }
    return Probes(frames, true, pairs, i)


def ask(hop_fn: HopFn, pairs: Mapping[str, Pairs]) -> dict[str, Float64]:
    """Ask for the hops of several sets of pairs in one call."""
    before, after = (np.concatenate([p[k] for p in pairs.values()]) for k in (0, 1))
    hops = np.asarray(hop_fn(before, after), np.float64)
    ends = np.cumsum([len(p[0]) for p in pairs.values()])[:-1]
    return dict(zip(pairs, np.split(hops, ends), strict=True))


def answers(probes: Probes, hops: Mapping[str, Float64], potential: Float64) -> Answers:
    """Turn hops into numbers; `potential` Float64["t"] says where the triples start."""
    said, order = hops["banded"], probes.pairs["shuffled"][1]
    known, seen = np.isfinite(said), np.isfinite(hops["shuffled"])
    return Answers(
        probes.true[known],
        said[known],
        hops["shuffled"][seen],
        order[seen],
        _inconsistency(hops, potential[probes.starts]),
        _path_spread([hops[f"stride {s}"] for s in STRIDES]),
    )


def band_of(true: Float64, name: str, sign: int) -> np.ndarray:
    """Tell which true hops Float64["p"] lie in a band and have this sign; Bool["p"]."""
    low, high = BANDS[name]
    return (np.abs(true) >= low) & (np.abs(true) < high) & (np.sign(true) == sign)


def _banded(episode: Episode, rng: np.random.Generator) -> tuple[Float64, Pairs]:
    """Draw up to `PER_KIND` pairs of every band and sign, and as many that stand still."""
    nothing = np.empty(0, np.int64)
    if episode.progress is None:
        return np.empty(0), (nothing, nothing)
    grid = np.unique(np.linspace(0, len(episode) - 1, GRID).round().astype(np.int64))
    before, after = (grid[x] for x in np.nonzero(~np.eye(len(grid), dtype=bool)))
    progress = np.clip(np.asarray(episode.progress, np.float64), 0, 1)
    true, change = hop_label(progress[before], progress[after]), progress[after] - progress[before]
    moving, still = np.abs(change) >= TRUE_MOTION, np.abs(true) < TRUE_STILL
    kinds = [moving & band_of(true, name, sign) for name in BANDS for sign in (1, -1)]
    chosen = np.concatenate([_draw(np.flatnonzero(kind), rng) for kind in (*kinds, still)])
    return np.where(still, 0.0, true)[chosen], (before[chosen], after[chosen])


def _draw(members: Int64, rng: np.random.Generator) -> Int64:
    return rng.permutation(members)[:PER_KIND]


def _triples(length: int, rng: np.random.Generator) -> tuple[Int64, Int64, Int64]:
    """Draw triples of distinct frames in any order; none in an episode of two frames."""
    if length < 3:
        nothing = np.empty(0, np.int64)
        return nothing, nothing, nothing
    first, second, third = (rng.integers(0, length - n, TRIPLES) for n in range(3))
    # Shift past the frames already taken, so that the three are distinct and uniform.
    second += second >= first
    for taken in np.sort([first, second], axis=0):
        third += third >= taken
    return first, second, third


def _strided(frames: Int64, stride: int) -> Pairs:
    """Return the adjacent pairs of every `stride`-th frame, the last frame always among them."""
    if len(frames) < 2:
        return frames[:0], frames[:0]
    kept = np.append(frames[:-1:stride], frames[-1])
    return kept[:-1], kept[1:]


def _inconsistency(hops: Mapping[str, Float64], start: Float64) -> float:
    """Follow both ways from the predictor's own potential at i and compare where they end."""
    direct = apply_hop(start, hops["direct"])
    detour = apply_hop(apply_hop(start, hops["first"]), hops["second"])
    gap = np.abs(direct - detour)
    gap = gap[np.isfinite(gap)]
    return float(gap.mean()) if len(gap) else float("nan")


def _path_spread(chains: list[Float64]) -> float:
    if not all(len(c) for c in chains):
        return float("nan")
    # One failed hop makes its chain, and so the comparison, unknown.
    return float(np.ptp([accumulate(chain, start=0.0)[-1] for chain in chains]))
