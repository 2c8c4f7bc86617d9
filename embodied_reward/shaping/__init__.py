"""Potential-based shaping: the formula, the reward modes and the environment wrappers."""

from embodied_reward.shaping.potential import MODES, RewardMode, mode_named, shaping_reward

__all__ = ["MODES", "RewardMode", "mode_named", "shaping_reward"]
