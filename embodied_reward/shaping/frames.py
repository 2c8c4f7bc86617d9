"""What the shaping wrappers read from an environment: its frames, or its true progress.

Both wrappers put what they read into `info` on reset and on every step, before a vector
environment resets by itself: so the real final frames of an episode reach the scorer.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Scores, UInt8

HELD = "held_frames"
"""Key of the pictures taken while an arm rests after its episode was terminated."""


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


@runtime_checkable
class Prefetches(Protocol):
    """A scorer that can begin to encode frames before it is asked to score them."""

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """Begin to encode frames view -> UInt8["r h w 3"]; does not wait, changes no score."""
        ...


class FramesInInfo(gym.Wrapper):
    """Put `info["frames"]`, view -> UInt8["h w 3"], on reset and on every step.

    A success that terminates the episode shows one successful frame only. With `hold`, the
    environment then takes that many steps with `rest`, and `info["held_frames"]` lists what is
    seen: as a person waits whether a thing stays where it was put. Nothing else of these steps is
    reported. It belongs inside `Monitor` and whatever else refuses steps after an end.

    Args:
        env: has `frames()`.
        hold: steps after a termination.
        rest: the action that does nothing; default: zero, clipped to the action space.
    """

    def __init__(self, env: gym.Env, hold: int = 0, rest: Any = None) -> None:
        super().__init__(env)
        self._hold, self._rest = hold, _zero(env.action_space) if rest is None else rest

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and add the first frames."""
        obs, info = self.env.reset(**kwargs)
        return obs, {**info, "frames": self._frames()}

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and add the frames after the action."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        info = {**info, "frames": self._frames()}
        if terminated and self._hold:
            info[HELD] = [self._rested() for _ in range(self._hold)]
        return obs, reward, terminated, truncated, info

    def _rested(self) -> dict[str, UInt8]:
        self.env.step(self._rest)
        return self._frames()

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

    A view that an environment does not render is left out, with a warning, and the model masks
    it; how far its scores can be trusted then is for `er eval-reward` to say.

    Raises:
        EnvError: none of the views is rendered everywhere.
    """
    rendered = [info.get("frames", {}) for info in infos]
    given = [view for view in views if all(view in frames for frames in rendered)]
    missing = [view for view in views if view not in given]
    if not given:
        row = next((i for i, f in enumerate(rendered) if not set(views) & set(f)), 0)
        raise EnvError(
            f"environment {row} rendered {sorted(rendered[row]) or 'no frames'}, but the reward "
            f"model needs one of {list(views)}: make it with views={list(views)} inside "
            "FramesInInfo"
        )
    if missing:
        # Python shows one warning per text and place.
        warnings.warn(
            f"the environment does not render {missing}: the reward model masks what it does not "
            f"see and judges by {given} alone",
            stacklevel=2,
        )
    return {view: np.stack([frames[view] for frames in rendered]) for view in given}


def _zero(space: gym.Space) -> Any:
    """Return the zero action of a box, clipped to its range; None where that is unknown."""
    if not isinstance(space, gym.spaces.Box):
        return None
    return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
