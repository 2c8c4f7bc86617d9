"""Where the picture changes: change points of a sequence of features, offline and online.

Offline, the cuts of least within-segment variance (`math.segmentation`, after Sermanet et al.,
arXiv:1612.06699). Online, in the style of ChronoForge-RL (a score of feature variation, its peaks,
the strongest first): the change between the means of two neighbouring windows, then non-maximum
suppression. The latter is reconstructed from the paper's abstract: window, threshold and
suppression are ours.
"""

from collections import deque
from collections.abc import Iterable

import numpy as np

from embodied_reward.math.segmentation import choose_steps, segment
from embodied_reward.types import Float64, Int64

NOISE_MEMORY = 64
"""Differences between neighbouring frames that the estimate of the noise looks back on."""


def change_points(features: Float64, count: int | None = None) -> Int64:
    """Return the `count` frames that begin a new segment, from the whole sequence.

    Args:
        features: Float64["t d"].
        count: number of change points; None lets `choose_steps` decide, at most 5.

    Returns:
        Rising frame numbers in 1..t-1, Int64["count"].
    """
    steps = choose_steps([features]) if count is None else count + 1
    return segment(np.asarray(features, np.float64), steps)[0][1:-1]


class OnlineChanges:
    """Report change points while frames come in, `2 * window - 1` frames late at most.

    The change at t is the distance between the means of the `window` frames from t on and of the
    `window` frames before t, in units of what noise alone would give. The noise is the median of
    the distances between neighbouring frames, which a few changes do not move.

    Args:
        window: frames on each side; also the least distance between two change points.
        threshold: how many times the noise a change must be.
    """

    def __init__(self, window: int = 5, threshold: float = 2.2) -> None:
        if window < 1 or threshold <= 0:
            raise ValueError(f"window={window} must be >= 1 and threshold={threshold} > 0")
        self.window, self.threshold = window, threshold
        self._recent: deque[Float64] = deque(maxlen=2 * window)
        self._steps: deque[float] = deque(maxlen=NOISE_MEMORY)
        self._seen = 0
        self._best: tuple[float, int] | None = None  # strongest change not yet reported

    def push(self, feature: Float64) -> int | None:
        """Take the next frame's feature Float64["d"]; return a change point that is now certain."""
        feature = np.asarray(feature, np.float64)
        if self._recent:
            self._steps.append(float(np.linalg.norm(feature - self._recent[-1])))
        self._recent.append(feature)
        self._seen += 1
        if len(self._recent) < 2 * self.window:
            return None
        at = self._seen - self.window
        strength = self._strength()
        if strength > self.threshold and (self._best is None or strength > self._best[0]):
            self._best = (strength, at)
        elif self._best is not None and at - self._best[1] >= self.window:
            return self.flush()
        return None

    def flush(self) -> int | None:
        """Return the change point that was still waiting for a stronger one, if any."""
        best, self._best = self._best, None
        return None if best is None else best[1]

    def _strength(self) -> float:
        frames = np.stack(self._recent)
        change = np.linalg.norm(frames[self.window :].mean(0) - frames[: self.window].mean(0))
        # Two frames differ by sqrt(2) sigma per channel, two means of w by sqrt(2 / w) sigma.
        noise = np.median(self._steps) / np.sqrt(self.window)
        return float(change / max(noise, 1e-12)) if change > 0 else 0.0


def online_change_points(
    features: Iterable[Float64], *, window: int = 5, threshold: float = 2.2
) -> Int64:
    """Return the change points that `OnlineChanges` reports of Float64["t d"]."""
    online = OnlineChanges(window, threshold)
    found = [online.push(f) for f in features]
    return np.array([p for p in [*found, online.flush()] if p is not None], np.int64)


def representatives(features: Float64, changes: Int64) -> Int64:
    """Return one frame per segment: the one closest to the segment's mean.

    Args:
        features: Float64["t d"].
        changes: rising frames in 1..t-1 that begin a new segment, Int64["k"].

    Returns:
        Rising frame numbers Int64["k+1"].
    """
    features = np.asarray(features, np.float64)
    bounds = [0, *changes.tolist(), len(features)]
    chosen = []
    for first, last in zip(bounds[:-1], bounds[1:], strict=True):
        part = features[first:last]
        chosen.append(first + int(np.square(part - part.mean(0)).sum(1).argmin()))
    return np.array(chosen, np.int64)
