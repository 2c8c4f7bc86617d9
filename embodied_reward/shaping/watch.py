"""A success detector that watches environments, and one that pays in the simulator's place."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from embodied_reward.rewards.detector import Detector
from embodied_reward.shaping.frames import HELD, Scorer, stack_frames
from embodied_reward.types import Bool, Float64, Scores, UInt8


class RowScorer(Scorer, Protocol):
    """A scorer that can also be asked about some environments alone."""

    def step(self, frames: Mapping[str, UInt8], rows: Sequence[int] | None = None) -> Scores:
        """Score the current frames of all environments, or of `rows`, view -> UInt8["b h w 3"]."""
        ...


class SuccessWatch:
    """Judge the episodes of b environments by a detector; pays nothing.

    An environment that ends at its first successful frame leaves a detector that wants k frames
    nothing to see: `FramesInInfo(hold=k - 1)` lets the arm rest there and hands the pictures over.

    Args:
        detector: threshold and persistence.
        scorer: gives the success probability of frames.
        count: environments b.
        shared: the scorer is the one that also gives the potential; its scores are passed in, so
            that no frame is encoded twice.

    Attributes:
        held: environment -> success probabilities of the frames held at the last step.
    """

    def __init__(
        self, detector: Detector, scorer: RowScorer, count: int, *, shared: bool = False
    ) -> None:
        self.detector, self.scorer, self.shared = detector, scorer, shared
        self.held: dict[int, list[float]] = {}
        self._carry = detector.start(count)
        self._detected = np.zeros(count, bool)

    def start(
        self, rows: Sequence[int], infos: Sequence[Mapping[str, Any]], known: Float64 | None = None
    ) -> tuple[Float64, Bool]:
        """Begin episodes in `rows` of r environments; the others are left as they are.

        Args:
            rows: Int["r"].
            infos: of these rows, with `frames`.
            known: Float64["r"], the success probabilities where the scorer is shared.

        Returns:
            Success probability and whether the detector has fired, of the rows.
        """
        if not self.shared:
            known = self.scorer.start(rows, stack_frames(infos, self.scorer.views)).success
        assert known is not None
        at = list(rows)
        fired, self._carry[at] = self.detector.step(known, self.detector.start(len(at)))
        self._detected[at] = fired
        return known, fired

    def step(
        self, infos: Sequence[Mapping[str, Any]], known: Float64 | None = None
    ) -> tuple[Float64, Bool]:
        """Judge the current frames of all environments, and those held after an end.

        Returns:
            Success probability of the current frame and whether the detector has fired at any
            frame of the episode, each ["b"].
        """
        if not self.shared:
            known = self.scorer.step(stack_frames(infos, self.scorer.views)).success
        assert known is not None
        fired, self._carry = self.detector.step(known, self._carry)
        self._detected |= fired
        self.held = {}
        for row, info in enumerate(infos):
            for frames in info.get(HELD, ()):
                self._hold(row, frames)
        return known, self._detected.copy()

    def _hold(self, row: int, frames: Mapping[str, Any]) -> None:
        stacked = stack_frames([{"frames": frames}], self.scorer.views)
        success = self.scorer.step(stacked, [row]).success
        self.held.setdefault(row, []).append(float(success[0]))
        fired, after = self.detector.step(success, self._carry[[row]])
        self._carry[row], self._detected[row] = after[0], self._detected[row] or fired[0]


class DetectedSuccess(gym.Wrapper):
    """Pay 1 where a detector fires for the first time, and end the episode there.

    This replaces the reward of an environment whose truth nobody knows. It is *not* the
    simulator's truth: `info["is_success"]` still is. Make the environment with
    `terminate_on_success=False` and wrap it in `FramesInInfo`.

    Args:
        env: puts `info["frames"]`.
        watch: of one environment, with a scorer of its own.
    """

    def __init__(self, env: gym.Env, watch: SuccessWatch) -> None:
        super().__init__(env)
        self._watch, self._paid = watch, False

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset; `info` gains `success_score` and `detected_success`."""
        obs, info = self.env.reset(**kwargs)
        self._paid = False
        score, fired = self._watch.start([0], [info])
        return obs, {**info, "success_score": float(score[0]), "detected_success": bool(fired[0])}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step; the reward is 1 once, when the detector has fired."""
        obs, _, terminated, truncated, info = self.env.step(action)
        score, fired = self._watch.step([info])
        detected = bool(fired[0])
        reward, self._paid = float(detected and not self._paid), detected
        info = {**info, "success_score": float(score[0]), "detected_success": detected}
        return obs, reward, terminated or detected, truncated, info
