"""From scores of frames to the score of a clip (InstructVideo, arXiv:2312.12490).

Segmental reward (SegVR): cut the clip into S parts, score one frame of each, take the mean.
Temporally attenuated reward (TAR): weigh a frame by exp(-lambda |t - t_anchor|), because frames
that are changed together blur when all of them are pulled equally.

Reconstructed: the published constants were not at hand. Times are counted in clip lengths, so that
lambda means the same for every frame rate; the anchor, the centre in the source, may be the end,
where a robot's clip shows the outcome.
"""

import numpy as np

from embodied_reward.types import Float64, Int64

ANCHORS: dict[str, float] = {"start": 0.0, "centre": 0.5, "end": 1.0}
"""Name -> where the weight peaks, as a share of the clip's length."""


def segment_sample(length: int, segments: int, rng: np.random.Generator) -> Int64:
    """Draw one frame of each of `segments` equally long parts of a clip.

    The parts have real-valued bounds k length / segments, so that every frame is drawn with the
    same expectation segments / length even where the division leaves a rest: the plain mean over
    the drawn frames is unbiased for the mean over the clip.

    Args:
        length: number of frames t >= 1.
        segments: number of parts S >= 1.
        rng: source of randomness.

    Returns:
        Rising frame numbers Int64["S"], or all frames 0..t-1 if S >= t.
    """
    if length < 1 or segments < 1:
        raise ValueError(f"cannot draw {segments} segments of {length} frames")
    if segments >= length:
        return np.arange(length)
    at = (np.arange(segments) + rng.random(segments)) * (length / segments)
    return np.minimum(at.astype(np.int64), length - 1)


def attenuation_weights(
    time: Float64, *, rate: float = 0.0, anchor: float = ANCHORS["centre"]
) -> Float64:
    """Return weights proportional to exp(-rate |t - anchor|) that sum to 1.

    Args:
        time: Float64["t"], where each frame lies in its clip, as a share of its length.
        rate: lambda >= 0 [1 / clip length]; 0 is the plain mean.
        anchor: where the weight peaks, as `time`; see `ANCHORS`.
    """
    if rate < 0:
        raise ValueError(f"rate={rate} must be >= 0")
    distance = np.abs(np.asarray(time, np.float64) - anchor)
    # The nearest frame has exponent 0, so that no rate makes every weight vanish.
    weights = np.exp(-rate * (distance - distance.min()))
    return weights / weights.sum()


def clip_time(time: Float64) -> Float64:
    """Return times as shares of the clip from its first to its last frame.

    Frames without different times are taken as evenly spaced, in order; a single frame is at 1/2.
    """
    time = np.asarray(time, np.float64)
    if len(time) < 2:
        return np.full(len(time), 0.5)
    span = time.max() - time.min()
    if span == 0:
        return np.arange(len(time)) / (len(time) - 1)
    return (time - time.min()) / span
