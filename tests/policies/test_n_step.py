"""n-step returns: Stable-Baselines3's semantics, and shaping that telescopes inside them."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.buffers import NStepReplayBuffer

from embodied_reward.errors import ConfigError
from embodied_reward.policies.demos import transitions
from embodied_reward.policies.replay import DemoReplayBuffer
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import shaping_reward

OBS = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
ACT = gym.spaces.Box(-1, 1, (1,), np.float32)
GAMMA, KAPPA = 0.9, 1.3


def relabel(base, phi, after, ended):
    return base + shaping_reward(phi, after, ended, GAMMA, KAPPA)


def experience(count, envs, seed=0):
    """Numbered transitions (s, s') with Phi per state and every kind of end."""
    rng, number = np.random.default_rng(seed), np.arange(envs) * 10_000.0
    phi = rng.random(envs)
    for _ in range(count):
        done = rng.random(envs) < 0.2
        truncated = done & (rng.random(envs) < 0.5)
        after, phi_next = number + 1, rng.random(envs)
        base = rng.normal(size=envs)
        infos = [
            {
                "TimeLimit.truncated": bool(truncated[i]),
                "base_reward": float(base[i]),
                "previous_potential": float(phi[i]),
                "potential": float(phi_next[i]),
            }
            for i in range(envs)
        ]
        yield number[:, None].copy(), after[:, None], np.zeros((envs, 1)), base, done, infos
        phi = np.where(done, rng.random(envs), phi_next)
        number = after + done  # the reset state is a number of its own


def by_state(batch):
    """State -> (next state, terminated, return, discount), from a batch with many repetitions."""
    columns = (batch.next_observations, batch.dones, batch.rewards, batch.discounts)
    rows = zip(batch.observations[:, 0], *(c[:, 0] for c in columns), strict=True)
    return {float(s): tuple(float(x) for x in rest) for s, *rest in rows}


@pytest.mark.parametrize("count", [17, 90], ids=["filling", "wrapped around"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_samples_equal_those_of_sb3s_own_buffer(n, count):
    ours = DemoReplayBuffer(60, OBS, ACT, device="cpu", n_envs=2, n_steps=n, gamma=GAMMA)
    theirs = NStepReplayBuffer(60, OBS, ACT, device="cpu", n_envs=2, n_steps=n, gamma=GAMMA)
    for row in experience(count, 2):
        ours.add(*row)
        theirs.add(*row)
    a, b = by_state(ours.sample(3000)), by_state(theirs.sample(3000))
    assert a.keys() == b.keys()
    assert len(a) == 2 * ours.size()
    for state, row in a.items():
        assert row == pytest.approx(b[state], abs=1e-5), state


@pytest.mark.parametrize("n", [1, 3, 6])
def test_the_shaping_in_an_n_step_return_telescopes(n):
    fields = {"device": "cpu", "n_envs": 2, "n_steps": n, "gamma": GAMMA, "seed": 1}
    shaped = DemoReplayBuffer(30, OBS, ACT, relabel=relabel, **fields)
    plain = DemoReplayBuffer(30, OBS, ACT, **fields)
    phi = {}
    for row in experience(80, 2):
        shaped.add(*row)
        plain.add(*row)
        for i, info in enumerate(row[-1]):
            phi[float(row[0][i, 0])] = info["previous_potential"]
            phi[float(row[1][i, 0])] = info["potential"]
    got, base = shaped.sample(500), plain.sample(500)
    assert (got.observations == base.observations).all()
    discount = np.full(500, GAMMA) if n == 1 else got.discounts[:, 0].numpy()
    first = np.array([phi[float(s)] for s in got.observations[:, 0]])
    last = np.array([phi[float(s)] for s in got.next_observations[:, 0]])
    alive = 1 - got.dones[:, 0].numpy()
    expected = KAPPA * (discount * alive * last - first)
    extra = (got.rewards - base.rewards)[:, 0].numpy()
    np.testing.assert_allclose(extra, expected, atol=1e-5)
    assert 0 < alive.sum() < 500
    # Shaping the n-step pair with one step's discount is wrong as soon as n > 1.
    slip = shaping_reward(first, last, 1 - alive, GAMMA, KAPPA)
    assert (np.abs(slip - extra).max() > 0.1) == (n > 1)


def test_windows_of_demonstrations_stop_at_their_episodes_end(demo, reach):
    env = reach()
    episodes = [demo(seed) for seed in range(3)]
    spaces = (env.observation_space, env.action_space)
    demos = transitions(episodes, *spaces, lambda e: e.progress)
    box = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    act = gym.spaces.Box(-1, 1, (2,), np.float32)
    store = DemoReplayBuffer(
        50, box, act, device="cpu", demos=demos, relabel=relabel, n_steps=4, gamma=GAMMA
    )
    batch = store.sample(400)
    index = {row.tobytes(): i for i, row in enumerate(demos.obs)}
    ends = np.flatnonzero(demos.done)
    for obs, after, done, reward, discount in zip(
        batch.observations.numpy(),
        batch.next_observations.numpy(),
        batch.dones[:, 0].tolist(),
        batch.rewards[:, 0].tolist(),
        batch.discounts[:, 0].tolist(),
        strict=True,
    ):
        i = index[obs.tobytes()]
        last = min(i + 3, int(ends[ends >= i][0]))
        steps = last - i + 1
        assert (after == demos.next_obs[last]).all()
        assert done == float(last in ends)  # demonstrations end in success
        assert discount == pytest.approx(GAMMA**steps)
        base = done * GAMMA ** (steps - 1)
        end = KAPPA * GAMMA**steps * (1 - done) * demos.next_potential[last]
        assert reward == pytest.approx(base + end - KAPPA * demos.potential[i], abs=1e-5)


def test_windows_do_not_cross_a_resumed_run():
    fields = {"device": "cpu", "n_steps": 3, "gamma": GAMMA}
    first = DemoReplayBuffer(50, OBS, ACT, **fields)
    rows = [(*row[:4], np.array([False]), row[5]) for row in experience(6, 1)]
    for row in rows:
        first.add(*row)
    second = DemoReplayBuffer(50, OBS, ACT, **fields)
    second.restore(first.arrays(), first.counters())
    second.add(*rows[0])
    got = by_state(second.sample(300))
    assert got[float(rows[5][0][0, 0])][0] == rows[5][1][0, 0]
    assert got[float(rows[5][0][0, 0])][3] == pytest.approx(GAMMA)


def test_sac_uses_the_discount_column(make_learner, small_sac, demos):
    """With discounts of 0 the critic's target is the reward alone."""
    model = build_sac(
        small_sac(n_steps=3, bc_steps=0), make_learner(), demos=demos, relabel=relabel, seed=0
    )
    batch = model.replay_buffer.sample(32)
    predicted = model.critic.values(batch.observations, batch.actions).detach()
    expected = 0.5 * (predicted - batch.rewards[:, 0]).square().mean(dim=1).sum().item()
    batch = batch._replace(discounts=0 * batch.discounts)
    (action,), (bonus,) = model._next([batch])
    loss, _ = model._update_critic(batch, action, bonus, None)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_sac_learns_with_n_steps_and_bad_numbers_are_refused(make_learner, small_sac, demos):
    from stable_baselines3.common.logger import Logger

    model = build_sac(small_sac(n_steps=3), make_learner(), demos=demos, relabel=relabel, seed=0)
    model.set_logger(Logger(None, []))
    model.learn(60)
    assert model._n_updates > 100
    with pytest.raises(ConfigError, match="n_steps"):
        small_sac(n_steps=0).check()
    with pytest.raises(ConfigError, match="n_steps"):
        DemoReplayBuffer(10, OBS, ACT, device="cpu", n_steps=0)
