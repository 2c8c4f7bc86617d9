"""Updates between episodes are those that would have been made after every decision."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.episodic import between_episodes
from embodied_reward.policies.sac import build_sac


class Short(gym.Env):
    """Episodes of seven steps; notes the decisions at which it was asked to move."""

    observation_space = gym.spaces.Box(-1, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, instead=None):
        self.instead, self.t, self.during = instead, 0, []

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        self.during.append(self.watch())
        info = {}
        if self.instead is not None:
            info = {"executed_action": self.instead, "intervention": self.t % 2 == 0}
        return np.full(3, self.t / 7, np.float32), 0.0, False, self.t == 7, info


def learn(steps, *, episodic, instead=None):
    env = Short(instead)
    config = SACConfig(learning_starts=1, batch_size=8, gradient_steps=3, net_arch=(8, 8))
    model = build_sac(config, DummyVecEnv([lambda: env]), seed=0)
    env.watch = lambda: model._n_updates
    if episodic:
        between_episodes(model)
    return env, model.learn(steps)


def test_no_update_is_made_while_an_episode_runs():
    env, model = learn(21, episodic=True)
    assert env.during == [0] * 7 + [21] * 7 + [42] * 7
    assert model._n_updates == 63
    _, plain = learn(21, episodic=False)
    assert plain._n_updates == pytest.approx(63, abs=6)  # the first decisions are not learned from


def test_what_a_person_did_is_replayed_and_what_limits_did_is_not():
    _, model = learn(7, episodic=True, instead=np.array([2.0, -2.0], np.float32))
    stored = model.replay_buffer.actions[: model.replay_buffer.pos, 0]
    np.testing.assert_array_equal(stored[1::2], np.tile(np.float32([2.0, -2.0]), (3, 1)))
    assert np.abs(stored[::2]).max() <= 1.0
