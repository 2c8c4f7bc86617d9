"""T9: only a constant scale of the sum is safe; and whoever rescales is refused where seen."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.policies.config import PPOConfig, SACConfig
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named, shaping_reward
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.order import check_order
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.wrapper import LearnedReward

GAMMA = 0.9


def rescaled(scale):
    def reward(r, ends, rng):
        phi = 3 * rng.normal(size=8)
        return scale(r + shaping_reward(phi[:, None, None], phi[None, None, :], ends, GAMMA))

    return reward


WRONG = {
    "clip at 1.5 standard deviations": lambda r: np.clip(r, -1.5 * r.std(), 1.5 * r.std()),
    "subtract a mean": lambda r: r - 0.5 * r.std() - r.mean(),
    "tanh": np.tanh,
    "sign": np.sign,
}


def test_a_constant_scale_keeps_every_policy(mdps):
    assert mdps.changed(200, GAMMA, rescaled(lambda r: r / r.std())) == 0


@pytest.mark.parametrize("name", WRONG)
def test_other_maps_of_the_sum_change_policies(name, mdps):
    changed = mdps.changed(200, GAMMA, rescaled(WRONG[name]))
    print(name, changed)
    assert changed > 60


def oracle(corridor, env=None):
    env = ProgressInInfo(corridor() if env is None else env)
    return LearnedReward(env, mode_named("oracle"), gamma=GAMMA)


class MarkedSkip(gym.Wrapper):
    repeats_actions = True


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (lambda env: gym.wrappers.NormalizeReward(env), "NormalizeReward maps the sum"),
        (lambda env: gym.wrappers.ClipReward(env, -1, 1), "ClipReward maps the sum"),
        (lambda env: gym.wrappers.TransformReward(env, np.tanh), "TransformReward maps"),
        (lambda env: gym.wrappers.MaxAndSkipObservation(env, 4), "repeats actions"),
        (MarkedSkip, "MarkedSkip repeats actions"),
    ],
)
def test_wrappers_around_a_learned_reward_are_refused(wrap, says, corridor):
    check_order(oracle(corridor))
    with pytest.raises(EnvError, match=says):
        check_order(gym.wrappers.OrderEnforcing(wrap(oracle(corridor))))
    check_order(oracle(corridor, wrap(corridor())))  # inside it only changes the task
    bare = LearnedReward(corridor(), mode_named("success"), gamma=GAMMA)
    check_order(wrap(bare))  # no potential, nothing to protect


def sb3(corridor, mode="oracle", inner=lambda venv: venv):
    class Narrow(corridor):
        def __init__(self):
            super().__init__()
            self.observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    envs = [ProgressInInfo(Narrow()) for _ in range(2)]
    vector = inner(DummyVecEnv([lambda env=env: env for env in envs]))
    return LearnedRewardVecEnv(vector, mode_named(mode), gamma=GAMMA)


@pytest.mark.parametrize(
    ("build", "config"), [(build_sac, SACConfig(buffer_size=100)), (build_ppo, PPOConfig())]
)
def test_vecnormalize_is_refused_by_learners_and_the_check(build, config, corridor):
    wrong = VecNormalize(sb3(corridor), norm_reward=True)
    with pytest.raises(EnvError, match="norm_reward=False"):
        check_order(wrong)
    with pytest.raises(ConfigError, match="norm_reward=False"):
        build(config, wrong)
    fine = VecNormalize(sb3(corridor), norm_reward=False)
    check_order(fine)
    build(config, fine)
    build(config, VecNormalize(sb3(corridor).venv))  # a task's own reward may be normalised


def test_a_moving_scale_of_the_base_reward_is_warned_about(corridor):
    with pytest.warns(UserWarning, match="training=False"):
        sb3(corridor, inner=VecNormalize)
    sb3(corridor, inner=lambda venv: VecNormalize(venv, training=False))


def test_a_potential_cannot_count_twice(corridor):
    with pytest.raises(EnvError, match="count twice"):
        oracle(corridor, oracle(corridor))
    with pytest.raises(EnvError, match="count twice"):
        LearnedRewardVecEnv(
            DummyVecEnv([lambda: ProgressInInfo(oracle(corridor))]),
            mode_named("oracle"),
            gamma=GAMMA,
        )
