"""How `--reward.blend` enters a run of `er train-policy`."""

from typing import TYPE_CHECKING

import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from embodied_reward.policies.blends import Blend, about, make_blend
from embodied_reward.policies.demos import Transitions
from embodied_reward.rewards import RewardModel
from embodied_reward.shaping.trust import trusted
from embodied_reward.types import Episode, Float64

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig


def blend_of(
    config: "TrainPolicyConfig", gamma: float, env: VecEnv, demos: Transitions | None
) -> Blend | None:
    """Return the blend that learns from the learner's episodes, where one was asked for."""
    seen, done = env.observation_space.shape or (), env.action_space.shape or ()
    return make_blend(
        config.reward.blend,
        config.blend,
        count=config.n_envs,
        gamma=gamma,
        seed=config.seed,
        widths=(int(np.prod(seen)), int(np.prod(done))),
        demos=demos,
    )


def temperature(config: "TrainPolicyConfig") -> float | None:
    """Return how sure a reward model must be, None where nobody asks."""
    return config.blend.temperature if config.reward.blend == "uncertainty" else None


def scored(config: "TrainPolicyConfig", reward: RewardModel, episode: Episode) -> Float64:
    """Return the potential Float64["t"] of a recorded episode, as it would be paid online."""
    scores, tau = reward.score_episode(episode), temperature(config)
    return scores.potential if tau is None else trusted(scores.potential, scores.uncertainty, tau)


def blend_line(config: "TrainPolicyConfig") -> list[str]:
    """Return the line that a run prints about its blend, none for the fixed one."""
    name = config.reward.blend
    return [] if name == "fixed" else [f"blend '{name}': {about(name)}"]
