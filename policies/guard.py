"""Refuse what would silently change a shaped reward between the environment and the learner."""

from typing import Any

from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from embodied_reward.errors import ConfigError


def refuse_rescaled_rewards(env: VecEnv) -> None:
    """Raise ConfigError where VecNormalize normalises and clips a learned reward."""
    layer: Any = env
    found = False
    while isinstance(layer, VecEnvWrapper):
        if getattr(type(layer), "learns_reward", False) and found:
            raise ConfigError(
                "VecNormalize around a learned reward normalises and clips the sum of base reward "
                "and shaping, which breaks its invariance; make it with norm_reward=False"
            )
        found |= isinstance(layer, VecNormalize) and layer.norm_reward
        layer = layer.venv
