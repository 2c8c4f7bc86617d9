"""Pictures of an environment that LeRobot knows, where our shaping wrappers look for them."""

from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import UInt8


class PixelFrames(gym.Wrapper):
    """Offer `frames()` over observations with `pixels`, as LeRobot's environments have them.

    `LearnedReward(PixelFrames(env), mode, gamma=..., scorer=...)` then shapes the reward of any
    environment of LeRobot's (`RobotEnv`, gym-hil, an EnvHub environment of one instance).

    Args:
        env: its observations hold `pixels`: camera -> UInt8["h w 3"], or one picture.
    """

    _pixels: Any = None

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset and remember the pictures."""
        obs, info = self.env.reset(**kwargs)
        self._pixels = obs.get("pixels")
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step and remember the pictures."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._pixels = obs.get("pixels")
        return obs, reward, terminated, truncated, info

    def frames(self) -> dict[str, UInt8]:
        """Return the pictures of the last observation; one without a name is called `image`.

        Raises:
            EnvError: there is none, or one is not UInt8["h w 3"].
        """
        if self._pixels is None:
            raise EnvError("the observation holds no `pixels`, or the environment was never reset")
        pixels = self._pixels if isinstance(self._pixels, dict) else {"image": self._pixels}
        frames = {view: np.asarray(picture) for view, picture in pixels.items()}
        for view, picture in frames.items():
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise EnvError(
                    f"pixels['{view}'] must be uint8 [h w 3], got {picture.dtype} "
                    f"{list(picture.shape)}"
                )
        return frames
