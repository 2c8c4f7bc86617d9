"""Chunks of actions: one decision executes h actions. The learned reward goes around it."""

from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.shaping.order import check_order
from embodied_reward.types import Float32


class ActionChunk(gym.Wrapper):
    """Execute h actions per decision; their rewards are summed, and an end stops the chunk.

    The learner's gamma then counts decisions, and so does the shaping around it:
    F = kappa (gamma m Phi(s_{t+h}) - Phi(s_t)) telescopes, a sum of inner shaping rewards does
    not. A learned reward inside is therefore refused. `metadata["render_fps"]` becomes the rate
    of decisions and `info["chunk_steps"]` counts the actions that were executed.

    Args:
        env: an environment with a box of actions.
        size: actions per decision h >= 1.

    Raises:
        ConfigError: a size below 1. EnvError: the actions are no box, or the reward is learned.
    """

    repeats_actions = True

    def __init__(self, env: gym.Env, size: int) -> None:
        super().__init__(env)
        if size < 1:
            raise ConfigError(f"an action chunk must hold at least 1 action, got {size}")
        box = env.action_space
        if not isinstance(box, gym.spaces.Box):
            raise EnvError(f"action chunks need a Box of actions, got {type(box).__name__}")
        self.size = size
        shape = (size, *(1,) * len(box.shape))
        low, high = np.tile(box.low, shape), np.tile(box.high, shape)
        self.action_space = gym.spaces.Box(low, high, dtype=box.dtype.type)  # type: ignore[arg-type]
        rate = env.metadata.get("render_fps")
        if rate is not None:
            self.metadata = {**env.metadata, "render_fps": rate / size}
        check_order(self)

    def step(self, action: Float32) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Execute Float32["h a"] until an end; `info` is that of the last action."""
        if len(action) != self.size:
            raise EnvError(f"expected {self.size} actions in a chunk, got {len(action)}")
        total, count, info = 0.0, 0, {}
        obs, terminated, truncated = None, False, False
        for one in action:
            obs, reward, terminated, truncated, info = self.env.step(one)
            total, count = total + float(reward), count + 1
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, {**info, "chunk_steps": count}
