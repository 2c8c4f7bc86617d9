"""Value-order correlation (VOC): does progress rise with time?

VOC is Spearman's correlation of a progress curve with time. It is 1 for *any* rising curve,
so VOC+ alone rewards a model that always answers "better". VOC- replays the same episode with
BEFORE and AFTER swapped; such a model then gets 0. Report the smaller of the two.

Source: Robo-Dopamine (arXiv:2512.23703), released `eval/evaluation_grm.py`: 0.0 stands for an
undefined correlation, as there; here it is flagged as well.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embodied_reward.math.hops import apply_hop, hop_label
from embodied_reward.math.statistics import spearman
from embodied_reward.types import Float64, Int64

HopFn = Callable[[Int64, Int64], Float64]
"""(before Int64["p"], after Int64["p"]) -> hops Float64["p"] in [-1, 1], frame indices in."""

SOURCE_INTERVAL = 30
"""The source samples one frame in 30 of its long episodes."""


class Voc(NamedTuple):
    """VOC+, VOC- and the smaller of the two, each in [-1, 1].

    `undefined` names those that were constant or too short and therefore count as 0.
    """

    plus: float
    minus: float
    least: float
    undefined: tuple[str, ...]


class ShuffledVoc(NamedTuple):
    """VOC in [-1, 1] that nothing accumulates in; 0 and flagged where it is undefined."""

    value: float
    undefined: bool


class SampledHops(NamedTuple):
    """Hops between adjacent sampled frames.

    Attributes:
        frames: Int64["n"], the sampled frames in order.
        forward: Float64["n-1"], hop from each frame to the next.
        inverse: Float64["n-1"], hop from each next frame back.
    """

    frames: Int64
    forward: Float64
    inverse: Float64


def voc(potential: Float64) -> float:
    """Return Spearman's correlation of potential Float64["t"] with time; 0.0 if undefined."""
    value = spearman(np.arange(len(potential)), potential)
    return value if np.isfinite(value) else 0.0


def voc_pair(hop_fn: HopFn, length: int, interval: int = SOURCE_INTERVAL) -> Voc:
    """Return VOC+ and VOC- of a hop predictor on an episode of `length` frames.

    Args:
        hop_fn: the predictor.
        length: frames in the episode.
        interval: `length // interval` frames are sampled, see `sample_indices`.
    """
    return voc_of_hops(sample_hops(hop_fn, length, interval))


def sample_hops(hop_fn: HopFn, length: int, interval: int) -> SampledHops:
    """Ask for the hops between adjacent sampled frames, in both orders, in one call."""
    frames = sample_indices(length, length // interval)
    early, late = frames[:-1], frames[1:]
    hops = hop_fn(np.concatenate([early, late]), np.concatenate([late, early]))
    return SampledHops(frames, hops[: len(early)], hops[len(early) :])


def voc_of_hops(sampled: SampledHops) -> Voc:
    """Return VOC+ and VOC-.

    Forward: progress starts at 0 and follows the hops. Inverse: BEFORE and AFTER are swapped,
    progress starts at 1 on the last frame and follows the hops back to the first. A non-finite
    hop makes its VOC undefined.
    """
    forward = accumulate(sampled.forward, start=0.0)
    inverse = accumulate(sampled.inverse[::-1], start=1.0)[::-1]
    plus, minus = voc(forward), voc(inverse)
    named = {"voc_plus": forward, "voc_minus": inverse}
    undefined = tuple(name for name, curve in named.items() if is_undefined(curve))
    return Voc(plus, minus, min(plus, minus), undefined)


def shuffled_voc(frames: Int64, hops: Float64) -> ShuffledVoc:
    """Return Spearman's correlation of time with hops from one anchor frame.

    The frames come in random order and each is compared with the same random anchor, so a
    predictor that adds something at every step gains nothing (GVL's shuffled protocol, for
    pairs). The hop from a fixed anchor rises with the potential of the other frame.

    Args:
        frames: Int64["p"], the frames compared, in any order.
        hops: Float64["p"], from the anchor to each.
    """
    value = spearman(frames, hops)
    undefined = not np.isfinite(value)
    return ShuffledVoc(0.0 if undefined else value, undefined)


def sample_indices(length: int, count: int) -> Int64:
    """Return `count` evenly spaced frame indices that include the first and the last one."""
    if count < 2:
        return np.zeros(min(length, 1), dtype=np.int64)
    return np.round(np.linspace(0, length - 1, count)).astype(np.int64)


def auto_interval(length: int) -> int:
    """Return the interval that samples about 30 frames of a short (simulated) episode."""
    return max(1, length // 30)


def accumulate(hops: Float64, start: float) -> Float64:
    """Return the progress Float64["p"] after each hop Float64["p"], beginning at `start`."""
    progress, phi = np.empty(len(hops)), np.asarray(start, np.float64)
    for i, hop in enumerate(np.clip(hops, -1.0, 1.0)):
        phi = progress[i] = apply_hop(phi, hop)
    return progress


def hops_of_potential(potential: Float64) -> HopFn:
    """Turn a potential Float64["t"] in [0, 1] into a hop predictor."""

    def hop_fn(before: Int64, after: Int64) -> Float64:
        return np.asarray(hop_label(potential[before], potential[after]), dtype=np.float64)

    return hop_fn


def is_undefined(curve: Float64) -> bool:
    """Tell whether a curve has no rank correlation with time."""
    return not np.isfinite(spearman(np.arange(len(curve)), curve))
