"""Own successes among the demonstrations, and the running average of the actor that acts."""

import copy

import gymnasium as gym
import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.policies.bc import mean_action
from embodied_reward.policies.replay import DemoReplayBuffer
from embodied_reward.policies.sac import build_sac

BOX = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
ACT = gym.spaces.Box(-1, 1, (2,), np.float32)


def store(size=100, n_envs=1, **changes):
    changes = {"replay_successes": True, **changes}
    return DemoReplayBuffer(size, BOX, ACT, device="cpu", n_envs=n_envs, **changes)


def episode(buffer, first, ends, length=4):
    """Add an episode of states first, first + 1, ...; `ends` is won, lost or cut."""
    for t in range(length):
        last = t == length - 1
        paid = float(last and ends in ("won", "cut"))
        info = {"base_reward": paid, "TimeLimit.truncated": last and ends == "cut"}
        obs = np.full((1, 4), first + t)
        buffer.add(obs, obs, np.zeros((1, 2)), np.array([paid]), np.array([last]), [info])


def states(batch):
    return set(batch.observations[:, 0].tolist())


@pytest.mark.parametrize("given", [True, False])
def test_an_episode_that_succeeded_is_drawn_among_the_demonstrations(demos, given):
    buffer = store(demos=demos if given else None)
    for first, ends in ((100, "lost"), (200, "won"), (300, "cut"), (400, "won")):
        episode(buffer, first, ends)
    episode(buffer, 500, "lost", length=2)
    batch = buffer.sample(4000)
    n = buffer.demo_rows(4000)
    shown = set(batch.observations[:n, 0].tolist())
    assert {x for x in shown if x >= 100} == {*range(200, 204), *range(400, 404)}
    assert (min(shown) < 100) == given
    own = set(batch.observations[n:, 0].tolist())
    assert own == {f + t for f in (100, 200, 300, 400) for t in range(4)} | {500, 501}


def test_without_the_option_nothing_joins_them(demos):
    buffer = store(demos=demos, replay_successes=False)
    episode(buffer, 200, "won")
    batch = buffer.sample(400)
    assert (batch.observations[: buffer.demo_rows(400), 0] < 100).all()


def test_what_is_overwritten_is_forgotten_and_what_is_saved_comes_back(demos):
    buffer = store(size=10, demos=demos)
    episode(buffer, 200, "won")
    episode(buffer, 300, "lost")
    other = store(size=10, demos=demos)
    other.restore(buffer.arrays(), buffer.counters())
    assert torch.equal(other.sample(64).observations, buffer.sample(64).observations)
    assert states(buffer.sample(400)) >= {200, 201, 202, 203}
    episode(buffer, 400, "won")  # the buffer is full after two of its rows
    assert states(buffer.sample(800)) >= {202, 203, 400, 401, 402, 403}
    assert not states(buffer.sample(800)) & {200, 201}


def test_a_run_from_before_own_successes_keeps_what_a_person_did(demos):
    buffer = store(demos=demos)
    episode(buffer, 200, "won")
    arrays = buffer.arrays()
    for older, expected in (({"interventions": arrays["shown"]}, True), ({}, False)):
        other = store(demos=demos)
        left = {k: v for k, v in arrays.items() if k != "shown"}
        other.restore({**left, **older}, buffer.counters())
        shown = other.sample(400).observations[: other.demo_rows(400), 0]
        assert bool((shown >= 200).any()) == expected


def test_environments_beside_each_other_are_told_apart():
    buffer = store(n_envs=2)
    for t in range(4):
        won = np.array([False, t == 3])
        infos = [{"base_reward": float(w), "TimeLimit.truncated": False} for w in won]
        obs = np.stack([np.full(4, 100 + t), np.full(4, 200 + t)])
        buffer.add(obs, obs, np.zeros((2, 2)), won * 1.0, np.array([t == 3] * 2), infos)
    batch = buffer.sample(400)
    n = buffer.demo_rows(400)
    assert set(batch.observations[:n, 0].tolist()) == {200, 201, 202, 203}


def test_it_needs_a_share_of_the_batch_and_a_reward_that_says_success(
    make_learner, demos, small_sac
):
    with pytest.raises(ConfigError, match="demo_fraction=0 draws none"):
        small_sac(replay_successes=True, demo_fraction=0.0).check()
    with pytest.raises(ConfigError, match="dense one"):
        build_sac(small_sac(replay_successes=True), make_learner(), demos=demos, replay_demos=False)


@pytest.fixture
def build(make_learner, demos, small_sac):
    def make(**changes):
        return build_sac(small_sac(**changes), make_learner(), demos=demos, seed=0)

    return make


def test_own_successes_are_replayed_while_it_learns(build):
    model = build(replay_successes=True)
    model.learn(80)
    buffer = model.replay_buffer
    won = buffer.episode_ids[:80][(buffer.rewards[:80] > 0)]
    assert len(won)
    np.testing.assert_array_equal(buffer.shown[:80], np.isin(buffer.episode_ids[:80], won))


@pytest.mark.parametrize("bound", [0.0, 0.5])
def test_the_average_acts_and_the_weights_explore(build, demos, bound):
    obs = torch.from_numpy(demos.obs)
    model = build(ema_decay=0.9, residual_bound=bound)
    actor, seen = model.actor, []

    def acting():
        return actor(obs, deterministic=True).detach()

    def live():
        return mean_action(model.policy, obs).detach().clamp(-1, 1)

    assert torch.equal(acting(), live())  # as cloned
    layers = copy.deepcopy(actor.average)
    follow = actor.follow

    def watched(decay):
        seen.append([p.detach().clone() for p in actor._mean_layers().parameters()])
        follow(decay)

    actor.follow = watched
    model.learn(40)
    assert len(seen) > 10
    assert not torch.equal(acting(), live())
    for start, p, *steps in zip(
        layers.parameters(), actor.average.parameters(), *seen, strict=True
    ):
        expected = start
        for step in steps:
            expected = 0.9 * expected + 0.1 * step
        torch.testing.assert_close(p, expected)


def test_the_average_changes_nothing_of_what_is_learned(build):
    found = []
    for decay in (0.0, 0.99):
        model = build(ema_decay=decay)
        model.learn(40)
        found.append([p.detach() for p in model.actor._mean_layers().parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_impossible_decay_is_refused(small_sac):
    with pytest.raises(ConfigError, match="ema_decay"):
        small_sac(ema_decay=1.0).check()
