"""T3: advantages are identical sample by sample, through SB3's own rollout buffer and loop."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.shaping import mode_named, shaping_reward
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv

GAMMA = 0.9


class DoubleRolloutBuffer(RolloutBuffer):
    """SB3 stores float32, whose rounding would hide an error of 1e-8."""

    def reset(self):
        super().reset()
        for name in ("rewards", "returns", "values", "advantages"):
            setattr(self, name, getattr(self, name).astype(np.float64))


def advantages(reward, value, last, starts, done, lam):
    box = gym.spaces.Box(-1, 1, (1,), np.float32)
    n, envs = reward.shape
    buffer = DoubleRolloutBuffer(n, box, box, "cpu", lam, GAMMA, envs)
    zero = np.zeros((envs, 1))
    for t in range(n):
        buffer.add(zero, zero, reward[t], starts[t], torch.from_numpy(value[t]), torch.zeros(envs))
    buffer.compute_returns_and_advantage(torch.from_numpy(last), done)
    return buffer.advantages


def rollout(seed, lam, mask=None, after_end=None):
    """Advantages of one random rollout of 2 environments, unshaped and shaped."""
    rng, n = np.random.default_rng(seed), 40
    reward, value, phi = rng.normal(size=(n, 2)), rng.normal(size=(n, 2)), rng.random((n, 2))
    value_next, phi_next = np.empty((n, 2)), np.empty((n, 2))
    terminated, truncated = rng.random((n, 2)) < 0.1, rng.random((n, 2)) < 0.1
    truncated &= ~terminated
    terminated[-1], truncated[-1] = [False, False], [True, False]  # one rollout is cut mid-way
    ended = terminated | truncated
    # The next row's state, except at an end, where it is the real final one.
    value_next[:-1], phi_next[:-1] = value[1:], phi[1:]
    value_next[-1], phi_next[-1] = rng.normal(size=2), rng.random(2)
    first = phi_next.copy()
    value_next[ended], phi_next[ended] = rng.normal(size=ended.sum()), rng.random(ended.sum())
    starts = np.vstack([np.ones((1, 2)), ended[:-1]])
    cut = terminated if mask is None else mask(terminated, truncated)
    seen = phi_next if after_end is None else np.where(ended, first, phi_next)
    f = shaping_reward(phi, seen, cut, GAMMA)

    def through_sb3(r, v, v_next):
        # What SB3's loop does at a time-out: it adds the discounted value of the final state.
        paid = r + GAMMA * truncated * v_next
        return advantages(paid, v, v_next[-1], starts, ended[-1], lam)

    plain = through_sb3(reward, value, value_next)
    return plain, through_sb3(reward + f, value - phi, value_next - phi_next)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_advantages_are_identical_however_episodes_and_rollouts_end(lam):
    for seed in range(5):
        plain, shaped = rollout(seed, lam)
        assert np.abs(shaped - plain).max() < 1e-8


@pytest.mark.parametrize(
    "wrong",
    [
        {"mask": lambda terminated, truncated: np.zeros_like(terminated)},
        {"mask": lambda terminated, truncated: terminated | truncated},
        {"after_end": "the next episode's first state"},
    ],
    ids=["phi kept at the terminal", "phi masked at a truncation", "phi of the reset frame"],
)
def test_wrong_ends_change_the_advantages(wrong):
    plain, shaped = rollout(0, 0.95, **wrong)
    assert np.abs(shaped - plain).max() > 1e-2


def collected(corridor, mode, shift):
    """Advantages of SB3's PPO on real environments, its critic replaced by V - shift Phi."""
    envs = [ProgressInInfo(corridor(start=s, horizon=h)) for s, h in ((3, 6), (1, 5))]
    vector = DummyVecEnv([lambda env=env: env for env in envs])
    env = LearnedRewardVecEnv(vector, mode_named(mode), gamma=GAMMA)
    model = PPO("MlpPolicy", env, n_steps=61, batch_size=61, gamma=GAMMA, seed=0, device="cpu")
    act = model.policy.forward

    def critic(obs):
        return torch.sin(obs) - shift * obs / 5

    def forward(obs, deterministic=False):
        action, _, log_prob = act(obs, deterministic)
        return action, critic(obs), log_prob

    model.policy.forward, model.policy.predict_values = forward, critic
    _, callback = model._setup_learn(61)
    model.collect_rollouts(env, callback, model.rollout_buffer, 61)
    return model.rollout_buffer.advantages, model.rollout_buffer.episode_starts


def test_sb3s_own_loop_gives_the_same_advantages(corridor):
    plain, starts = collected(corridor, "success", 0.0)
    shaped, _ = collected(corridor, "oracle", 1.0)
    assert starts.sum() > 10
    assert np.abs(shaped - plain).max() < 1e-5
    # A critic that is not shifted by Phi is another critic: the test can tell.
    assert np.abs(collected(corridor, "oracle", 0.0)[0] - plain).max() > 1e-2
