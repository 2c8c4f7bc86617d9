import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embodied_reward.envs import list_envs
from embodied_reward.errors import EnvError

STILL = np.zeros(4, np.float32)
# Tasks that differ in how Meta-World places things: bodies, free joints, sites, or several.
PLACED = ["drawer-open-v3", "basketball-v3", "push-v3", "door-open-v3"]


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("task", PLACED)
def test_a_seed_decides_scene_and_pictures_whatever_went_before(build, task):
    fresh, used = build(f"metaworld/{task}", seed=None), build(f"metaworld/{task}", seed=3)
    for seed in (11, 12):
        used.reset(seed=seed)
        for _ in range(25):
            used.step(used.action_space.sample())
    (first, _), (second, _) = fresh.reset(seed=7), used.reset(seed=7)
    assert same(first, second)
    assert same(fresh.frames(), used.frames())
    for _ in range(10):
        action = np.array([0.3, 0.8, -0.5, 1.0], np.float32)
        assert same(fresh.step(action)[0], used.step(action)[0])
    assert same(fresh.frames(), used.frames())


@pytest.mark.slow
@pytest.mark.parametrize("env_id", [i for i in list_envs() if i.startswith("metaworld/")])
def test_seeds_and_states_of_every_task(build, env_id):
    task = env_id.partition("/")[2]
    test_a_seed_decides_scene_and_pictures_whatever_went_before(build, task)
    test_states_equal_meta_worlds_own_after_the_same_placement(build, task)


def test_resets_without_a_seed_place_things_anew(build):
    env = build("metaworld/drawer-open-v3")
    drawers = [tuple(env.reset()[0]["environment_state"][:3]) for _ in range(5)]
    assert len(set(drawers)) == 5


def test_the_seed_of_make_seeds_the_first_reset_only(build):
    one, two = build("metaworld/push-v3", seed=5), build("metaworld/push-v3", seed=5)
    for _ in range(2):
        assert same(one.reset()[0], two.reset()[0])
    other = build("metaworld/push-v3", seed=6)
    assert not same(one.reset(seed=5)[0], other.reset()[0])


def test_global_random_state_is_neither_read_nor_written(build):
    env = build("metaworld/push-v3")
    kept = np.random.get_state()  # noqa: NPY002
    first, _ = env.reset(seed=1)
    after = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    again, _ = env.reset(seed=1)
    np.random.set_state(kept)  # noqa: NPY002
    assert str(kept) == str(after)
    assert same(first, again)


@pytest.mark.parametrize("task", ["window-close-v3", "drawer-open-v3", "faucet-open-v3"])
def test_the_first_observation_shows_the_objects_of_this_episode(build, task):
    env = build(f"metaworld/{task}")
    for seed in range(4):
        first, _ = env.reset(seed=seed)
        after, *_ = env.step(STILL)
        np.testing.assert_allclose(
            first["environment_state"][:3], after["environment_state"][:3], atol=5e-3
        )


@pytest.mark.parametrize("task", ["handle-press-v3", "box-close-v3", *PLACED])
def test_states_equal_meta_worlds_own_after_the_same_placement(build, task):
    env = build(f"metaworld/{task}", seed=None)
    env.reset(seed=7)
    reference = type(env.sim)()
    reference._set_task_called, reference._partially_observable = True, False
    del reference.sawyer_observation_space
    reference._last_rand_vec = env.sim._last_rand_vec.copy()
    reference.reset()
    np.testing.assert_allclose(env.sim._target_pos, reference._target_pos, atol=1e-9)
    for action in np.random.default_rng(0).uniform(-1, 1, (10, 4)).astype(np.float32):
        observation, _, _, _, info = env.step(action)
        state, reward, *_ = reference.step(action)
    np.testing.assert_allclose(observation["agent_pos"], state[:4], atol=1e-5)
    np.testing.assert_allclose(observation["environment_state"], state[4:], atol=1e-5)
    assert info["dense_reward"] == pytest.approx(reward, abs=1e-5)
    reference.close()


def test_the_goal_is_observed_and_observations_are_meta_worlds(build):
    env = build("metaworld/reach-v3")
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["environment_state"][-3:], env.sim._target_pos, 1e-6)
    np.testing.assert_allclose(observation["agent_pos"][:3], env.sim.get_endeff_pos(), 1e-6)


def test_horizon_truncates_and_counts_decisions(build):
    env = build("metaworld/drawer-open-v3", horizon=7, action_repeat=3)
    env.reset()
    flags = [env.step(STILL)[2:4] for _ in range(7)]
    assert flags == [(False, False)] * 6 + [(False, True)]


def test_horizons_beyond_meta_worlds_own_limit_of_500_steps(build):
    env = build("metaworld/drawer-open-v3", horizon=130, action_repeat=4)
    env.reset()
    ends = [env.step(STILL)[3] for _ in range(130)]
    assert ends.index(True) == 129


def test_success_terminates_and_pays_once(build, roll):
    env = build("metaworld/reach-v3")
    rewards = []
    env_step = env.step
    env.step = lambda action: (out := env_step(action), rewards.append(out[1]))[0]
    progress, info, terminated = roll(env, "expert", seed=0)
    assert terminated
    assert info["is_success"] is True
    assert progress[-1] == 1.0
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0]


def test_success_can_be_left_to_run_on(build, roll):
    env = build("metaworld/reach-v3", terminate_on_success=False, horizon=100)
    progress, info, terminated = roll(env, "expert", seed=0)
    assert len(progress) == 101
    assert not terminated
    assert info["is_success"]


def test_dense_reward_is_meta_worlds_in_0_to_10(build):
    env = build("metaworld/drawer-open-v3", reward="dense", action_repeat=3)
    _, info = env.reset()
    assert 0.0 <= info["dense_reward"] <= 10.0
    for _ in range(20):
        _, reward, _, _, info = env.step(env.action_space.sample())
        assert reward == info["dense_reward"]
        assert 0.0 <= reward <= 10.0
        assert info["is_success"] is False


@pytest.mark.parametrize("repeat", [2, 3, 5])
def test_action_repeat_is_that_many_simulator_steps(build, repeat):
    slow = build("metaworld/push-v3", action_repeat=repeat)
    fast = build("metaworld/push-v3", terminate_on_success=False)
    slow.reset(seed=1), fast.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(8):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        coarse, *_ = slow.step(action)
        for _ in range(repeat):
            fine, *_ = fast.step(action)
        assert same(coarse, fine)


def test_repetition_stops_at_success(build, roll):
    env = build("metaworld/reach-v3", action_repeat=10)
    roll(env, "expert", seed=0)
    assert env.sim.curr_path_length % 10 != 0
    assert env.sim.evaluate_state(env.sim._get_obs(), STILL)[1]["success"]


@pytest.mark.parametrize("task", ["sweep-v3", "soccer-v3"])
def test_observations_stay_inside_their_space(build, task):
    env = build(f"metaworld/{task}", action_repeat=8, terminate_on_success=False)
    for seed in range(3):
        observation, _ = env.reset(seed=seed)
        corner = np.sign(np.random.default_rng(seed).normal(size=4)).astype(np.float32)
        for _ in range(30):
            assert env.observation_space.contains(observation)
            observation, *_ = env.step(corner)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    st.sampled_from([np.nan, np.inf, -np.inf]),
    st.integers(0, 3),
)
def test_actions_beyond_the_box_are_clipped_and_non_finite_ones_refused(build, action, bad, where):
    env, reference = build("metaworld/reach-v3"), build("metaworld/reach-v3")
    env.reset(seed=0), reference.reset(seed=0)
    clipped = np.clip(np.array(action, np.float32), -1, 1)
    assert same(env.step(np.array(action))[0], reference.step(clipped)[0])
    action[where] = bad
    before = env.sim.data.time
    with pytest.raises(EnvError, match="metaworld/reach-v3' step 1 needs an action of 4 finite"):
        env.step(np.array(action))
    assert env.sim.data.time == before


def test_three_numbers_are_not_an_action(build):
    env = build("metaworld/reach-v3")
    env.reset()
    with pytest.raises(EnvError, match="4 finite numbers"):
        env.step(np.zeros(3))


@pytest.mark.parametrize("use", ["step", "frames", "progress", "render"])
def test_use_before_reset_says_so(build, use):
    env = build("metaworld/reach-v3")
    with pytest.raises(EnvError, match=r"call reset\(\) first"):
        env.step(STILL) if use == "step" else getattr(env, use)()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"views": ("corner9",)}, "has no view 'corner9'; its cameras: .*topview.*gripperPOV"),
        ({"views": ()}, "one or more different cameras"),
        ({"views": ("corner", "corner")}, "one or more different cameras"),
        ({"size": 4}, "8 to 2048 pixels"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"action_repeat": -1}, "action_repeat must be at least 1"),
        ({"quality": "fats"}, "unknown quality 'fats'; did you mean 'fast'"),
        ({"reward": "sparse"}, "unknown reward 'sparse'; .*'success'|accepted: dense, success"),
        ({"framerate": 30}, "unexpected keyword argument 'framerate'"),
    ],
)
def test_bad_arguments_are_named(build, kwargs, message):
    with pytest.raises(EnvError, match=message):
        build("metaworld/reach-v3", **kwargs)


def test_without_metaworld_the_error_names_the_extra():
    code = """
import sys; sys.modules["metaworld"] = None
from embodied_reward.envs import list_envs, make
from embodied_reward.errors import MissingDependencyError
assert not [i for i in list_envs() if i.startswith("metaworld/")]
try:
    make("metaworld/reach-v3")
except MissingDependencyError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'embodied-reward[metaworld]'" in run.stdout, run.stderr
