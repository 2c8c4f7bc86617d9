"""Looks change pictures only, dynamics change what actions do, and level 0 changes nothing."""

import numpy as np
import pytest

from embodied_reward.envs import make
from embodied_reward.envs.variation import LOOKS, vary

SWEEP = "embodied_reward/SweepToGoal-MediumStick-v0"
PUSH = "embodied_reward/TablePush-v0"
DRAWER = "embodied_reward/TableDrawer-v0"
METAWORLD = "metaworld/push-v3"


@pytest.fixture
def varied():
    """Build varied environments and close them afterwards."""
    opened = []

    def _varied(env_id, material=None, size=48, horizon=30, pixels=False, views=(), **levels):
        kwargs = {"views": views} if views else {}
        env = make(env_id, size=size, horizon=horizon, pixels=pixels, **kwargs)
        opened.append(vary(env, material=material, **levels))
        return opened[-1]

    yield _varied
    for env in opened:
        env.close()


def trajectory(env, seed, steps=12):
    """Return states, progress and rewards of fixed actions, and the frames of the last state."""
    observation, info = env.reset(seed=seed)
    actions = np.random.default_rng(5).uniform(-1, 1, (steps, *env.action_space.shape))
    actions[:, :2] = 0.7, 0.8  # into what stands there
    rows = [(observation, env.progress(), 0.0, info["is_success"])]
    for action in actions.astype(np.float32):
        observation, reward, _, _, info = env.step(action)
        rows.append((observation, env.progress(), reward, info["is_success"]))
    states = np.array([[*o["agent_pos"], *o["environment_state"]] for o, *_ in rows])
    return states, np.array([[p, r, s] for _, p, r, s in rows]), env.frames()


def same(one, other):
    return all(np.array_equal(one[view], other[view]) for view in one)


@pytest.mark.parametrize("env_id", [SWEEP, PUSH, METAWORLD, "trap/insert"])
def test_level_zero_is_the_original_to_the_bit(build, varied, env_id):
    plain, wrapped = build(env_id, size=48, horizon=30), varied(env_id)
    for seed in (1, None):
        states, numbers, frames = trajectory(plain, seed)
        again = trajectory(wrapped, seed)
        assert np.array_equal(states, again[0])
        assert np.array_equal(numbers, again[1])
        assert same(frames, again[2])
    assert wrapped.fingerprint() == plain.fingerprint()
    assert "variant" not in wrapped.reset()[1]


@pytest.mark.parametrize("factor", LOOKS)
@pytest.mark.parametrize("env_id", [PUSH, METAWORLD])
def test_looks_change_pixels_and_nothing_else(build, varied, env_id, factor):
    states, numbers, frames = trajectory(build(env_id, size=48, horizon=30), 3)
    env = varied(env_id, **{factor: 1.0})
    other = trajectory(env, 3)
    assert np.array_equal(states, other[0])
    assert np.array_equal(numbers, other[1])
    assert not same(frames, other[2])
