"""Thresholds with a guaranteed false-positive rate: split conformal prediction.

Let M_1..M_n be the scores of n negatives and M that of a new one, all n + 1 exchangeable. Where
c = floor(alpha (n + 1)) and q is the c-th largest of M_1..M_n,

    P(M > q) <= c / (n + 1) <= alpha

whatever the distribution (Vovk et al. 2005; Papadopoulos et al. 2002). q is the quantile
ceil((n + 1)(1 - alpha)) / n. With n < 1/alpha - 1, c is 0 and no finite threshold has the
guarantee. The score of a whole *episode* is the highest score that it reaches, which makes the
guarantee one for episodes: "at most alpha of all failed episodes ever fire".
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from embodied_reward.types import Float64

_ROUNDING = 1e-9  # .01 * 100 must not become .999...


def persistent(scores: npt.ArrayLike, frames: int) -> Float64:
    """Return the lowest score of the last `frames` frames, at every frame.

    Args:
        scores: ["t"] in time order; NaN where a frame was not scored.
        frames: k >= 1.

    Returns:
        Float64["t"]; -inf where fewer than k scored frames precede. It reaches a threshold
        exactly where k frames in a row have reached it.
    """
    if frames < 1:
        raise ValueError(f"persistence is at least one frame, got {frames}")
    values = np.nan_to_num(np.asarray(scores, np.float64), nan=-np.inf, posinf=np.inf)
    if len(values) == 0:
        return values
    padded = np.concatenate([np.full(frames - 1, -np.inf), values])
    return np.lib.stride_tricks.sliding_window_view(padded, frames).min(axis=1)


def episode_score(scores: npt.ArrayLike, frames: int) -> float:
    """Return the highest persistent score of one episode; -inf if it is too short to fire."""
    return float(persistent(scores, frames).max(initial=-np.inf))


def failures_needed(rate: float) -> int:
    """Return the smallest n that allows a finite threshold at a rate: ceil(1/rate - 1)."""
    _check_rate(rate)
    return max(1, math.ceil(1.0 / rate - 1.0 - _ROUNDING))


def conformal_threshold(scores: npt.ArrayLike, rate: float) -> float:
    """Return the lowest t with P(score of a new negative >= t) <= rate.

    Args:
        scores: ["n"] scores of negatives, exchangeable with the new one.
        rate: alpha in (0, 1).

    Returns:
        The number next to the quantile, so that reaching it means exceeding the quantile;
        inf where n < `failures_needed(rate)`.
    """
    _check_rate(rate)
    ordered = np.sort(np.asarray(scores, np.float64))[::-1]
    allowed = math.floor(rate * (len(ordered) + 1) + _ROUNDING)
    return _above(ordered[allowed - 1]) if allowed >= 1 and len(ordered) else math.inf


def strictest_threshold(scores: npt.ArrayLike) -> tuple[float, float]:
    """Return the threshold just above every score, and the rate 1 / (n + 1) it guarantees.

    Raises:
        ValueError: no scores.
    """
    values = np.asarray(scores, np.float64)
    if len(values) == 0:
        raise ValueError("a threshold needs the score of at least one negative")
    return _above(values.max()), 1.0 / (len(values) + 1)


def pooled_frames(episodes: Sequence[npt.ArrayLike], frames: int) -> Float64:
    """Return the persistent scores of all frames of all episodes, for a per-frame threshold.

    Frames of one episode resemble each other, so they are not exchangeable and the rate per
    frame holds approximately only.
    """
    parts = [persistent(scores, frames) for scores in episodes]
    return np.concatenate(parts) if parts else np.empty(0)


def _above(value: float) -> float:
    return float(np.nextafter(value, np.inf))


def _check_rate(rate: float) -> None:
    if not 0.0 < rate < 1.0:
        raise ValueError(f"a false-positive rate lies between 0 and 1, got {rate}")
