"""The suite's contract, on every task: checkers, seeds, ends, rewards, pictures, errors."""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from stable_baselines3.common.env_checker import check_env as sb3_check

from embodied_reward.envs import list_envs, make
from embodied_reward.envs.tasks.catalogue import names
from embodied_reward.errors import EnvError

PREFIX = "embodied_reward"
SWEEP, AVOID, GROUP = (f"{PREFIX}/{t}-MediumStick-v0" for t in ("SweepToGoal", "Avoid", "Group"))
ALL = [f"{PREFIX}/{name}" for name in names()]


@pytest.mark.parametrize("env_id", ALL)
def test_both_checkers_find_nothing(env_id):
    env = gym.make(env_id, horizon=20)
    # With a registered id the full check builds the environment anew and renders.
    gymnasium_check(env.unwrapped)
    sb3_check(env.unwrapped)
    env.close()


@pytest.mark.parametrize("env_id", [SWEEP])
def test_gymnasium_checker_finds_nothing_with_pictures_in_the_observation(env_id):
    env = gym.make(env_id, horizon=20, pixels=True, action_repeat=2)
    gymnasium_check(env.unwrapped)
    env.close()


def test_every_task_is_listed_and_says_what_is_asked():
    assert set(ALL) <= set(list_envs())
    for env_id in ALL:
        env = make(env_id)
        assert 2 <= len(env.task_description.split()) <= 15
        assert env.task == env_id.split("/")[1]


def test_gymnasium_finds_the_tasks_in_a_fresh_interpreter():
    code = (
        "import gymnasium; id = 'embodied_reward.envs.tasks:"
        f"{SWEEP}'; env = gymnasium.make(id, size=32, render_mode='rgb_array'); "
        "env.reset(seed=0); print(env.render().shape)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "(32, 32, 3)", run.stderr


def test_a_seed_decides_scene_and_course_whatever_went_before(build):
    env = build(SWEEP)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)

    def course(seed):
        states = [env.reset(seed=seed)[0]["environment_state"]]
        return np.array(states + [env.step(a)[0]["environment_state"] for a in actions])

    first = course(3)
    course(4)
    np.testing.assert_array_equal(course(3), first)
    assert not np.array_equal(course(5), first)


def test_a_reset_without_a_seed_draws_another_scene(build):
    env = build(SWEEP, seed=7)
    first, second = (env.reset()[0]["environment_state"] for _ in range(2))
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(env.reset(seed=7)[0]["environment_state"], first)


@pytest.mark.parametrize("env_id", ALL)
def test_observations_stay_inside_their_space_and_pucks_inside_the_walls(build, env_id):
    env = build(env_id, horizon=60)
    for seed in range(3):
        env.reset(seed=seed)
        env.action_space.seed(seed)
        over = False
        while not over:
            # Long pushes in one direction reach the walls, which plain noise does not.
            if env._steps % 10 == 0:
                action = np.sign(env.action_space.sample())
            observation, *_, terminated, over, _ = env.step(action)
            over = over or terminated
            assert observation in env.observation_space
            assert np.isfinite(observation["environment_state"]).all()
            assert 0.0 <= env.progress() <= 1.0


def test_the_horizon_truncates_and_success_ends_only_where_asked(build, roll):
    env = build(SWEEP, horizon=4)
    env.reset()
    still = np.zeros(3, np.float32)
    assert [env.step(still)[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]
    _, info, terminated = roll(build(SWEEP), "expert", 0)
    assert terminated
    assert info["is_success"]
    progress, info, terminated = roll(
        build(SWEEP, horizon=80, terminate_on_success=False), "expert", 0
    )
    assert not terminated
    assert len(progress) == 81
    assert info["is_success"]


def test_dense_reward_is_the_true_one_and_zero_only_when_done(build):
    from embodied_reward.envs import make_behaviour

    env, sparse = build(SWEEP, reward="dense"), build(SWEEP)
    observation, info = env.reset(seed=1)
    sparse.reset(seed=1)
    assert info["true_reward"] == -1.0
    act = make_behaviour(env, "expert", np.random.default_rng(0))
    terminated = False
    while not terminated:
        action = act(observation)
        observation, reward, terminated, _, info = env.step(action)
        assert reward == info["true_reward"] == env.progress() - 1.0
        assert sparse.step(action)[1] == float(terminated)
    assert reward == 0.0


def test_action_repeat_slows_the_rate_and_stops_at_success(build):
    env = build(SWEEP, action_repeat=4)
    assert env.metadata["render_fps"] == 2.5
    env.reset(seed=2)
    still = np.zeros(3, np.float32)
    env.step(still)
    assert env.data.time == pytest.approx(0.4)
    env.data.qpos[env.rules._joints :] = [-0.4, 0.8, 0.0, 0.8, 0.4, 0.8]
    assert env.step(still)[2]
    assert env.data.time == pytest.approx(0.5)


def test_pictures_are_rendered_once_per_step_and_are_the_callers_own(build):
    env = build(SWEEP, views=("top", "oblique"), size=(48, 64))
    env.reset(seed=0)
    first = env.frames()
    assert {k: v.shape for k, v in first.items()} == dict.fromkeys(("top", "oblique"), (48, 64, 3))
    first["top"][:] = 0
    assert env.frames()["top"].any()
    before = env.frames()["top"]
    env.step(np.ones(3, np.float32))
    assert not np.array_equal(env.frames()["top"], before)


def test_the_top_view_is_upright_and_in_scale(build):
    """The zone is at the top of the picture, x grows to the right, the agent is red."""
    env = build(SWEEP, size=200)
    observation, _ = env.reset(seed=0)
    picture = env.render().astype(int)
    red = (picture[..., 0] > 130) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
    row, column = (c.mean() for c in np.nonzero(red))
    x, y = observation["agent_pos"][:2] - [0.0, 0.075]  # the hub sits behind the blade
    # The camera, 6 m up, sees 2 * 6 * tan(20.9 deg / 2) = 2.213 m of the floor.
    assert column == pytest.approx(100 + 200 * x / 2.213, abs=4)
    assert row == pytest.approx(100 - 200 * y / 2.213, abs=4)
    assert (picture[20, 100] @ [-1, 2, -1]) > 30  # green


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"views": ("side",)}, "has no view 'side'; its cameras: \\['top', 'oblique'\\]"),
        ({"reward": "sparse"}, "unknown reward 'sparse'"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"gripper": True}, "does not take that argument"),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(EnvError, match=message):
        make(SWEEP, **kwargs)


def test_unknown_tasks_name_the_nearest_and_steps_need_a_reset_and_a_whole_action(build):
    with pytest.raises(EnvError, match="'embodied_reward/SweepToGoal-LongStick-v0'"):
        make("embodied_reward/SweepToGoal-Longstick-v0")
    env = build(SWEEP)
    for call in (env.progress, env.frames, lambda: env.step(np.zeros(3, np.float32))):
        with pytest.raises(EnvError, match="call reset\\(\\) first"):
            call()
    env.reset()
    with pytest.raises(EnvError, match="an action of 3 finite numbers"):
        env.step(np.zeros(4, np.float32))
    with pytest.raises(EnvError, match="an action of 3 finite numbers"):
        env.step(np.array([0, np.nan, 0], np.float32))


def test_the_fingerprint_is_json_and_says_what_was_asked(build):
    import json

    mark = json.loads(json.dumps(build(AVOID, horizon=33, reward="dense").fingerprint()))
    assert mark["id"] == AVOID
    assert mark["horizon"] == 33
    assert mark["reward"] == "dense"
    assert mark["versions"]["mujoco"]
