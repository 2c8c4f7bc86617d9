import dataclasses

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import CheckpointError
from embodied_reward.policies.replay import DemoReplayBuffer
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.frames import ProgressInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv

BOX = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACT = gym.spaces.Box(-1, 1, (2,), np.float32)
GAMMA, KAPPA = 0.95, 1.3


def buffer(demos=None, **kwargs):
    kwargs = {"device": "cpu", "demos": demos, **kwargs}
    return DemoReplayBuffer(kwargs.pop("size", 100), BOX, ACT, **kwargs)


class Numbered(gym.Wrapper):
    """Put a running number into the observation, so that every transition is recognisable."""

    def __init__(self, env, offset):
        super().__init__(env)
        self.observation_space, self.number = gym.spaces.Box(-10, 1e6, (1,), np.float32), offset

    def reset(self, **kwargs):
        _, info = self.env.reset(**kwargs)
        return self._next(), info

    def step(self, action):
        _, *rest = self.env.step(action)
        return self._next(), *rest

    def _next(self):
        self.number += 1
        return np.array([self.number], np.float32)


@pytest.mark.parametrize("mode", ["oracle", "absolute", "difference", "success"])
def test_relabelled_rewards_equal_online_shaping_over_whole_episodes(reach, mode):
    mode = dataclasses.replace(mode_named(mode), source="progress")
    envs = [ProgressInInfo(Numbered(reach(horizon=6 + 9 * i), 10_000 * i)) for i in range(2)]
    vector = DummyVecEnv([lambda env=env: env for env in envs])
    env = LearnedRewardVecEnv(vector, mode, gamma=GAMMA, kappa=KAPPA)
    store = DemoReplayBuffer(
        400,
        env.observation_space,
        env.action_space,
        n_envs=2,
        relabel=lambda base, phi, after, ended: mode.total(base, phi, after, ended, GAMMA, KAPPA),
    )
    rng, online = np.random.default_rng(0), {}
    obs = env.reset()
    for _ in range(100):
        action = rng.uniform(0, 2, (2, 2)).astype(np.float32)
        after, reward, done, infos = env.step(action)
        online |= {
            float(o[0]): (float(r), bool(d and not i["TimeLimit.truncated"]))
            for o, r, d, i in zip(obs, reward, done, infos, strict=True)
        }
        store.add(obs, after, action, reward, done, infos)
        obs = after
    batch = store.sample(4000)
    seen = set()
    for number, reward, ended in zip(
        batch.observations[:, 0], batch.rewards[:, 0], batch.dones[:, 0], strict=True
    ):
        expected, terminated = online[float(number)]
        assert float(reward) == pytest.approx(expected, abs=1e-6)
        assert bool(ended) == terminated
        seen.add(float(number))
    assert len(seen) == 200
    assert any(t for _, t in online.values())
    assert set(store.rewards[:100].ravel()) <= {0.0, 1.0}  # base rewards only


def fill(store, count, value=100.0, **more):
    for i in range(count):
        obs = np.full((1, 4), value + i)
        info = {"base_reward": 0.0, "potential": 0.5, "previous_potential": 0.25, **more}
        store.add(obs, obs, np.zeros((1, 2)), np.array([9.0]), np.array([False]), [info])


@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.5, 1.0])
def test_the_share_of_demonstrations_is_exact_and_they_come_first(demos, fraction):
    store = buffer(demos, demo_fraction=fraction)
    fill(store, 30)
    batch = store.sample(64)
    own = batch.observations[:, 0] >= 100
    n = store.demo_rows(64)
    assert n == round(64 * fraction)
    assert not own[:n].any()
    assert own[n:].all()


def test_an_empty_buffer_gives_demonstrations_only_and_none_gives_none(demos):
    assert buffer(demos).sample(16).observations.shape == (16, 4)
    store = buffer(None)
    fill(store, 3)
    assert (store.sample(16).observations >= 100).all()


@pytest.mark.parametrize("given", [True, False])
def test_what_a_person_did_is_drawn_among_the_demonstrations_and_as_experience(demos, given):
    store = buffer(demos if given else None, size=12)
    fill(store, 4)
    fill(store, 4, 200.0, intervention=True)
    batch = store.sample(4000).observations[:, 0]
    shown, own = batch[: store.demo_rows(4000)], batch[store.demo_rows(4000) :]
    assert len(shown) == 2000
    assert set(shown[shown >= 100].tolist()) == {200, 201, 202, 203}
    share = 4 / (4 + (len(demos) if given else 0))
    assert float((shown >= 200).float().mean()) == pytest.approx(share, abs=0.05)
    assert set(own.tolist()) == {*range(100, 104), *range(200, 204)}
    # A restored buffer knows them too; what is overwritten is forgotten.
    other = buffer(demos if given else None, size=12)
    other.restore(store.arrays(), store.counters())
    assert (other.sample(64).observations[:, 0] == store.sample(64).observations[:, 0]).all()
    fill(store, 12, 300.0)
    assert not (store.sample(400).observations[:, 0] == 200).any()


def test_exchanging_the_potential_leaves_base_rewards_untouched(demos):
    store = buffer(demos, relabel=lambda base, phi, after, ended: base + 7 * after)
    fill(store, 20)
    before = store.rewards.copy()
    assert store.sample(8).rewards[-1] == pytest.approx(3.5)
    store.next_potentials[:] = 1.0
    assert store.sample(8).rewards[-1] == pytest.approx(7.0)
    np.testing.assert_array_equal(store.rewards, before)


@pytest.mark.parametrize("bootstraps", [True, False])
def test_one_mask_decides_on_the_bootstrap_and_on_phi(bootstraps):
    """Where a time-out counts as an end (SB3's switch), its potential is cut off with its value."""
    mode = mode_named("potential")
    store = buffer(
        relabel=lambda base, phi, after, ended: mode.total(base, phi, after, ended, GAMMA, KAPPA),
        handle_timeout_termination=bootstraps,
    )
    info = {"TimeLimit.truncated": True, "base_reward": 0.0}
    info |= {"previous_potential": 0.4, "potential": 0.7}
    obs = np.zeros((1, 4))
    store.add(obs, obs, np.zeros((1, 2)), np.zeros(1), np.ones(1, bool), [info])
    batch = store.sample(1)
    assert bool(batch.dones) != bootstraps
    expected = KAPPA * (GAMMA * bootstraps * 0.7 - 0.4)
    assert float(batch.rewards) == pytest.approx(expected, abs=1e-6)


def test_samples_depend_on_the_buffers_own_seed_alone(demos):
    draws = []
    for seed, global_seed in ((3, 0), (3, 1), (4, 0)):
        np.random.seed(global_seed)  # noqa: NPY002
        store = buffer(demos, seed=seed)
        fill(store, 40)
        draws.append(store.sample(32).observations)
    assert (draws[0] == draws[1]).all()
    assert not (draws[0] == draws[2]).all()


def test_a_restored_buffer_continues_with_the_same_batches(demos):
    store = buffer(demos, size=30)
    fill(store, 45)  # it has wrapped around
    store.sample(8)
    other = buffer(demos, size=30, seed=9)
    other.restore(store.arrays(), store.counters())
    fill(store, 1, 500.0)
    fill(other, 1, 500.0)
    for _ in range(3):
        a, b = store.sample(16), other.sample(16)
        for left, right in zip(a[:5], b[:5], strict=True):
            assert (left == right).all()


def test_a_buffer_of_another_shape_is_refused(demos):
    store = buffer(demos, size=30)
    fill(store, 20)
    with pytest.raises(CheckpointError, match="buffer_size"):
        buffer(demos, size=10).restore(store.arrays(), store.counters())
