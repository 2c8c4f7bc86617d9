"""What `er train-policy` and `er eval-policy` share: the environment around a policy."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import FlattenObservation, RescaleAction
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.cli.env_config import EnvConfig, make_env
from embodied_reward.shaping import RewardMode
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo, Scorer
from embodied_reward.shaping.tiers import TieredProgress, TieredScorer, Tiers
from embodied_reward.shaping.vector import LearnedRewardVecEnv

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv

DEFAULT_SIZE = 64


def plain_env(
    config: EnvConfig,
    seed: int,
    *,
    views: Sequence[str] = (),
    size: int | tuple[int, int] = DEFAULT_SIZE,
) -> "VisualEnv":
    """Build the environment alone; nothing is rendered unless somebody asks for frames."""
    return make_env(config, views=views, size=size, seed=seed)


def learner_env(
    config: EnvConfig,
    mode: RewardMode,
    *,
    gamma: float,
    kappa: float,
    seed: int,
    tiers: Tiers | None = None,
    count: int = 1,
    scorer: Scorer | None = None,
    size: int | tuple[int, int] = DEFAULT_SIZE,
) -> LearnedRewardVecEnv:
    """Build `count` environments with flat observations, actions in [-1, 1] and the learned reward.

    From inside out: environment, RescaleAction, FlattenObservation, Monitor (so that logged
    returns are the task's own), frames or progress for the reward, vector environment, reward.
    """
    views = scorer.views if scorer is not None else ()

    def one(index: int) -> gym.Env:
        env = plain_env(config, seed + index, views=views, size=size)
        flat = Monitor(FlattenObservation(RescaleAction(env, np.float32(-1), np.float32(1))))
        if mode.source == "scorer":
            return FramesInInfo(flat)
        if mode.source == "progress":
            told = ProgressInInfo(flat)
            return TieredProgress(told, tiers) if tiers else told
        return flat

    envs = [one(index) for index in range(count)]
    vector = DummyVecEnv([lambda env=env: env for env in envs])
    vector.seed(seed)
    if scorer is not None and tiers:
        scorer = TieredScorer(scorer, tiers, count)
    return LearnedRewardVecEnv(vector, mode, gamma=gamma, kappa=kappa, scorer=scorer)
