"""The calibrated blend: its curve, what is paid, and what becomes of a potential that lies."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from embodied_reward.policies.blends.calibrated import monotone
from embodied_reward.policies.blends.env import BlendCallback, BlendedVecEnv
from embodied_reward.policies.demos import Transitions
from embodied_reward.shaping import mode_named
from tests.policies.test_blends import GAMMA, KAPPA, Watch, blend_named, environment, learner

POTENTIAL = dataclasses.replace(mode_named("potential"), source="progress")
STEPS = 10


def demonstration(count=1, potential=lambda x: x):
    """Return `count` demonstrations of ten decisions; progress rises by a tenth per decision."""
    n = count * STEPS
    step = np.tile(np.arange(STEPS), count)
    done = step == STEPS - 1
    return Transitions(
        obs=np.zeros((n, 2), np.float32),
        next_obs=np.zeros((n, 2), np.float32),
        action=np.zeros((n, 1), np.float32),
        base_reward=done.astype(np.float32),
        potential=potential(step / STEPS),
        next_potential=potential((step + 1) / STEPS),
        done=done,
        timeout=np.zeros(n, bool),
        episode=np.repeat(np.arange(count), STEPS),
        step=step,
        variant=np.zeros(n, np.int64),
    )


def episode(blend, potential, won):
    """Show the blend a finished episode."""
    for t, phi in enumerate(potential):
        last = t == len(potential) - 1
        decision = (np.zeros(2), np.zeros(1), float(won and last), 0.0, phi)
        blend.window.add(0, decision, ended=last)
        if last:
            blend.ended()


@given(
    arrays.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1)),
    st.integers(0, 2**32 - 1),
)
def test_the_curve_rises_and_stays_among_the_values(phi, seed):
    rng = np.random.default_rng(seed)
    values, weights = rng.uniform(-1, 1, len(phi)), rng.uniform(0.1, 3, len(phi))
    knots, curve = monotone(phi, values, weights)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(curve) >= 0).all()
    assert values.min() - 1e-9 <= curve[0] <= curve[-1] <= values.max() + 1e-9
    # Isotonic regression keeps the weighted mean.
    at = np.minimum((phi * 20).astype(int), 19)
    total = np.bincount(at, weights, 20)
    assert np.average(curve, weights=total[total > 0]) == pytest.approx(
        np.average(values, weights=weights)
    )


def test_values_that_rise_are_the_curve_and_values_that_fall_are_their_mean():
    phi = (np.arange(20) + 0.5) / 20
    knots, curve = monotone(phi, phi**2, np.ones(20))
    np.testing.assert_allclose(knots, phi)
    np.testing.assert_allclose(curve, phi**2)
    np.testing.assert_allclose(monotone(phi, -phi, np.ones(20))[1], -0.5)


def test_without_episodes_and_demonstrations_progress_is_the_potential():
    phi = np.linspace(0, 1, 7).reshape(7, 1)
    np.testing.assert_allclose(blend_named("calibrated").potential(phi), phi)


@pytest.mark.parametrize("count", [1, 5])
def test_after_demonstrations_alone_it_is_the_value_of_the_expert(count):
    blend = blend_named("calibrated", demos=demonstration(count))
    left = np.arange(STEPS)[::-1]
    np.testing.assert_allclose(blend.potential(np.arange(STEPS) / STEPS), GAMMA**left, atol=1e-9)


def test_progress_that_failures_reach_loses_its_worth_and_what_only_successes_reach_keeps_it():
    blend = blend_named("calibrated", demos=demonstration(), every=10)
    before = blend.potential(np.array([0.5, 0.75, 0.95]))
    for _ in range(10):
        episode(blend, np.linspace(0, 0.84, 20), won=False)
    assert blend.improve(None)["blend/value_high"] < 0.2 * before[1]
    after = blend.potential(np.array([0.5, 0.75, 0.95]))
    # Two episodes' worth of demonstrations against ten failures.
    assert (after[:2] < 0.2 * before[:2]).all()
    assert after[2] == pytest.approx(before[2])


def test_progress_that_says_nothing_of_success_shapes_nothing():
    blend = blend_named("calibrated", every=40)
    rng = np.random.default_rng(0)
    for k in range(40):
        episode(blend, rng.uniform(size=50), won=k % 2 == 0)
    blend.improve(None)
    curve = blend.potential(np.linspace(0, 1, 11))
    assert curve[-1] - curve[0] < 0.1


def test_demonstrations_count_as_so_many_episodes_however_many_there_are():
    ends = []
    for count in (1, 8):
        blend = blend_named("calibrated", demos=demonstration(count), every=2, prior=3.0)
        for _ in range(2):
            episode(blend, np.zeros(STEPS), won=False)
        blend.improve(None)
        ends.append(blend.potential(0.0))
    # The demonstrations' first state, three times, and twenty decisions that led nowhere.
    assert ends == pytest.approx([3 * GAMMA**9 / 23] * 2)


def test_what_is_paid_telescopes_in_the_curve():
    blend = blend_named("calibrated", demos=demonstration(potential=np.square), count=1)
    env = BlendedVecEnv(environment(mode=POTENTIAL, count=1), blend)
    env.reset()
    rng, ends, added, states = np.random.default_rng(0), set(), [], []
    for _ in range(200):
        _, rewards, dones, (info,) = env.step(rng.uniform(-0.5, 1, (1, 1)).astype(np.float32))
        added.append(rewards[0] - info["base_reward"])
        states += [info["previous_potential"], info["potential"]]
        if dones[0]:
            cut, discount = info["TimeLimit.truncated"], GAMMA ** np.arange(len(added) + 1)
            begun, left = blend.potential(states[0]), blend.potential(states[-1]) * cut
            assert discount[:-1] @ added == pytest.approx(
                KAPPA * (discount[-1] * left - begun), abs=1e-5
            )
            ends.add(cut)
            added, states = [], []
    assert ends == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sac", "ppo"])
@pytest.mark.parametrize("side", [1, -1])
def test_a_potential_that_lies_is_taken_at_its_worth(kind, side):
    """Progress towards the goal becomes a curve, progress away from it a line; both learn."""
    blend = blend_named("calibrated", every=5)
    env = BlendedVecEnv(environment(side, mode=POTENTIAL), blend)
    model, watch = learner(kind, env, blend), Watch()
    model.learn(4000 if kind == "ppo" else 2400, [BlendCallback(blend), watch])
    assert np.mean(watch.won[-50:]) > 0.9
    low, high = blend.potential(np.array([0.5, 0.7]))  # the start, and just before the goal
    assert high - low > 0.1 if side == 1 else high - low < 0.1
