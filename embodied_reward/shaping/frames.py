"""What the shaping wrappers read from an environment: its frames, or its true progress.

Both wrappers put what they read into `info` on reset and on every step, before a vector
environment resets by itself: so the real final frames of an episode reach the scorer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Scores, UInt8


@runtime_checkable
class Scorer(Protocol):
    """Scores the current frame of b environments; `scoring.stream.StreamScorer` is one."""

    views: tuple[str, ...]

    def start(self, rows: Sequence[int], frames: Mapping[str, UInt8]) -> Scores:
        """Begin new episodes in `rows` with first frames view -> UInt8["r h w 3"]."""
        ...

    def step(self, frames: Mapping[str, UInt8]) -> Scores:
        """Score the current frames of all environments, view -> UInt8["b h w 3"]."""
        ...


class FramesInInfo(gym.Wrapper):
    """Put `info["frames"]`, view -> UInt8["h w 3"], on reset and on every step."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and add the first frames."""
        obs, info = self.env.reset(**kwargs)
        return obs, {**info, "frames": self._frames()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and add the frames after the action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "frames": self._frames()}

    def _frames(self) -> dict[str, UInt8]:
        return self.env.get_wrapper_attr("frames")()


class ProgressInInfo(gym.Wrapper):
    """Put `info["progress"]`, the simulator's own progress in [0, 1]; nothing is rendered."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and add the progress of the first state."""
        obs, info = self.env.reset(**kwargs)
        return obs, {**info, "progress": self._progress()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and add the progress after the action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        return obs, reward, terminated, truncated, {**info, "progress": self._progress()}

    def _progress(self) -> float:
        return float(self.env.get_wrapper_attr("progress")())


def stack_frames(infos: Sequence[Mapping[str, Any]], views: Sequence[str]) -> dict[str, UInt8]:
    """Stack `info["frames"]` of r environments to view -> UInt8["r h w 3"].

    Raises:
        EnvError: an environment gave no frames, or not the view that the reward model needs.
    """
    for row, info in enumerate(infos):
        missing = [v for v in views if v not in info.get("frames", {})]
        if missing:
            raise EnvError(
                f"environment {row} rendered no view {missing}, which the reward model needs; it "
                f"rendered {sorted(info.get('frames', {}))}: make it with views={list(views)} "
                "inside FramesInInfo"
            )
    return {view: np.stack([info["frames"][view] for info in infos]) for view in views}
