"""From a success probability per frame to "the task is done": threshold and persistence.

A detector fires when the probability has stayed at or above a threshold for k frames. The
threshold is fitted on failed episodes (`math/conformal.py`), so that the share of *failed
episodes* in which it ever fires has a bound. The bound holds for failures exchangeable with those
it was fitted on: refit it on failures of the policy at work.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.conformal import (
    conformal_threshold,
    episode_score,
    failures_needed,
    persistent,
    pooled_frames,
    strictest_threshold,
)
from embodied_reward.rewards.base import Card
from embodied_reward.types import Bool, Float64, Int64

PLAIN_THRESHOLD, PLAIN_PERSISTENCE = 0.5, 3

Unit = Literal["episode", "frame"]


@dataclass(frozen=True)
class Detector:
    """Fire where `success` stays at or above `threshold` for `persistence` frames.

    The carry counts, per environment, the frames in a row that reached the threshold.
    """

    threshold: float = PLAIN_THRESHOLD
    persistence: int = PLAIN_PERSISTENCE

    def start(self, count: int) -> Int64:
        """Return the carry Int64["b"] of b episodes of which no frame was seen."""
        return np.zeros(count, np.int64)

    def step(self, success: Float64, carry: Int64) -> tuple[Bool, Int64]:
        """Judge the current frame of b environments; NaN never counts.

        Args:
            success: Float64["b"], probability that the frame satisfies the task.
            carry: Int64["b"].

        Returns:
            Bool["b"], whether the detector fires at this frame, and the next carry.
        """
        after = np.where(np.asarray(success) >= self.threshold, carry + 1, 0)
        return after >= self.persistence, after

    def episode(self, success: Float64) -> Bool:
        """Return Bool["t"], where the detector fires in an episode of scores Float64["t"]."""
        return persistent(success, self.persistence) >= self.threshold


@dataclass(frozen=True)
class Calibration:
    """A fitted threshold and what it promises.

    Attributes:
        threshold: see `Detector`.
        persistence: frames k.
        target_fpr: the rate asked for.
        guaranteed_fpr: the rate promised; larger than asked for where failures were too few.
        unit: whether the rate is per failed episode or, approximately, per frame of one.
        failures: failed episodes that it was fitted on.
        source: "failures", or "truncated successes" where there were none.
    """

    threshold: float
    persistence: int
    target_fpr: float
    guaranteed_fpr: float
    unit: Unit
    failures: int
    source: str

    @property
    def detector(self) -> Detector:
        """Return the detector that this describes."""
        return Detector(self.threshold, self.persistence)

    @property
    def short(self) -> bool:
        """Whether there were too few failures for the rate asked for."""
        return self.guaranteed_fpr > self.target_fpr

    def describe(self) -> str:
        """Return one line for people."""
        line = (
            f"fires at success >= {self.threshold:.4g} for {self.persistence} frames; at most "
            f"{self.guaranteed_fpr:.1%} of failed {self.unit}s fire, if they resemble the "
            f"{self.failures} {self.source} it was fitted on"
        )
        if self.short:
            line += (
                f". {self.target_fpr:.1%} was asked for, which takes "
                f"{failures_needed(self.target_fpr)} failed {self.unit}s; this is the strictest "
                f"threshold that {self.failures} allow"
            )
        return line

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)


def fit_threshold(
    scores: Sequence[Float64],
    *,
    target_fpr: float,
    persistence: int,
    unit: Unit = "episode",
    source: str = "failures",
) -> Calibration:
    """Fit the threshold on negatives.

    Where the negatives are too few for the rate, the threshold lies just above all of them and
    the promised rate is 1 / (n + 1). It is never below 0.5, which can only lower the rate.

    Args:
        scores: success probability Float64["t"] of each failed episode.
        target_fpr: rate in (0, 1).
        persistence: frames k >= 1.
        unit: see `Calibration`.
        source: what the negatives are.

    Raises:
        ConfigError: a rate, persistence or unit that cannot be used.
        DatasetError: no negatives.
    """
    check_rule(target_fpr, persistence, unit)
    if not scores:
        raise DatasetError(
            "a threshold is fitted on failed episodes and there are none; record some with "
            "`er collect --quality=random`, or roll a policy that fails"
        )
    values: Any = [episode_score(s, persistence) for s in scores]
    if unit == "frame":
        values = pooled_frames(scores, persistence)
    threshold, promised = conformal_threshold(values, target_fpr), target_fpr
    if math.isinf(threshold) and threshold > 0:
        threshold, promised = strictest_threshold(values)
    threshold = max(threshold, PLAIN_THRESHOLD)
    return Calibration(threshold, persistence, target_fpr, promised, unit, len(scores), source)


def check_rule(target_fpr: float, persistence: int, unit: str = "episode") -> None:
    """Raise ConfigError for numbers that no detector can have."""
    if not 0.0 < target_fpr < 1.0:
        raise ConfigError(f"target_fpr is a rate between 0 and 1, got {target_fpr}")
    if persistence < 1:
        raise ConfigError(f"persistence is a number of frames, at least 1, got {persistence}")
    if unit not in ("episode", "frame"):
        raise ConfigError(f"unknown unit '{unit}'; accepted: episode, frame")


def detector_of(card: Card) -> Detector | None:
    """Return the detector of a reward model, None where it judges no success.

    A model without a fitted threshold gets 0.5 for three frames: no rate is promised.
    """
    if card.extra.get("success") is False:
        return None
    fitted = card.extra.get("calibration") or {}
    return Detector(
        fitted.get("threshold", PLAIN_THRESHOLD), fitted.get("persistence", PLAIN_PERSISTENCE)
    )
