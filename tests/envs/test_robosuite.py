import os
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as gymnasium_check
from gymnasium.utils.passive_env_checker import env_render_passive_checker
from stable_baselines3.common.env_checker import check_env as sb3_check

from embodied_reward.envs import make_behaviour
from embodied_reward.envs.parts import PARTS
from embodied_reward.envs.robosuite import backend
from embodied_reward.envs.robosuite.tasks import TASKS
from embodied_reward.errors import EnvError

# One arm with and without fingers, two arms; things that are placed and a fixture that is.
KINDS = ["Lift", "Door", "Wipe", "TwoArmPegInHole"]


def same(first, second):
    return all(np.array_equal(first[key], second[key]) for key in first)


def actions(env, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, (count, *env.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("task", KINDS)
def test_the_checkers_find_nothing(build, task):
    env = build(f"robosuite/{task}", pixels=True, size=32, horizon=6)
    gymnasium_check(env, skip_render_check=True)
    env.reset()
    env_render_passive_checker(env)
    sb3_check(build(f"robosuite/{task}", horizon=6))


@pytest.mark.parametrize(
    ("task", "agent", "state", "action"),
    [("Lift", 9, 10, 7), ("Door", 9, 14, 7), ("Wipe", 7, 9, 6), ("TwoArmPegInHole", 14, 17, 12)],
)
def test_what_is_observed_and_acted(build, task, agent, state, action):
    env = build(f"robosuite/{task}", horizon=123, action_repeat=4)
    observation, info = env.reset()
    assert observation["agent_pos"].shape == (agent,)
    assert observation["environment_state"].shape == (state,)
    assert env.action_space.shape == (action,)
    assert all(part.dtype == np.float32 for part in observation.values())
    assert info["is_success"] is False
    assert env.task_description == TASKS[task].description
    assert env._max_episode_steps == 123
    assert env.metadata == {"render_modes": ["rgb_array"], "render_fps": 5.0}
    assert env.fingerprint()["versions"].keys() == {"mujoco", "robosuite"}


def test_position_control_keeps_the_orientation(build):
    env = build("robosuite/Lift", control="position")
    assert env.action_space.shape == (4,)
    before = env.seen(env.reset()[0])
    for _ in range(10):
        observation, *_ = env.step(np.array([0.5, -0.5, 0.5, 1.0], np.float32))
    after = env.seen(observation)
    np.testing.assert_allclose(after["robot0_eef_quat"], before["robot0_eef_quat"], atol=0.05)
    moved = after["robot0_eef_pos"] - before["robot0_eef_pos"]
    assert (np.sign(moved) == [1, -1, 1]).all()
    assert np.ptp(after["robot0_gripper_qpos"]) < np.ptp(before["robot0_gripper_qpos"])


@pytest.mark.parametrize("task", ["Lift", "Door", "PickPlaceCan", "Wipe"])
@pytest.mark.slow
def test_a_seed_decides_scene_and_pictures_whatever_went_before(build, task):
    fresh, used = build(f"robosuite/{task}", seed=None), build(f"robosuite/{task}", seed=3)
    for seed in (11, 12):
        used.reset(seed=seed)
        for action in actions(used, 12, seed):
            used.step(action)
    (first, _), (second, _) = fresh.reset(seed=7), used.reset(seed=7)
    assert same(first, second)
    assert same(fresh.frames(), used.frames())
    for action in actions(fresh, 8):
        assert same(fresh.step(action)[0], used.step(action)[0])
    assert same(fresh.frames(), used.frames())
    assert not same(first, fresh.reset(seed=8)[0])


def test_resets_without_a_seed_place_things_anew_from_the_seed_of_make(build):
    one, two = build("robosuite/Lift", seed=5), build("robosuite/Lift", seed=5)
    cubes = []
    for _ in range(3):
        first, second = one.reset()[0], two.reset()[0]
        assert same(first, second)
        cubes.append(tuple(first["environment_state"][:3]))
    assert len(set(cubes)) == 3


def test_global_random_state_is_neither_read_nor_written(build):
    env = build("robosuite/Lift")
    kept = np.random.get_state()  # noqa: NPY002
    first, _ = env.reset(seed=1)
    after = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    again, _ = env.reset(seed=1)
    np.random.set_state(kept)  # noqa: NPY002
    assert str(kept) == str(after)
    assert same(first, again)


@pytest.fixture
def stock():
    """Build robosuite's own environments, with its own renderer, and close them afterwards."""
    opened = []

    def _stock(task, **kwargs):
        arms = TASKS[task].robots
        settings = {"has_offscreen_renderer": False, "use_camera_obs": False}
        settings |= {"ignore_done": True, "hard_reset": False, "reward_shaping": True, "seed": 0}
        suite = backend.load_robosuite()
        opened.append(suite.make(task, robots=["Panda"] * arms, **settings | kwargs))
        return opened[-1]

    yield _stock
    for env in opened:
        env.close()


@pytest.mark.parametrize("task", ["Lift", "Door"])
def test_motion_and_dense_reward_are_robosuites_own(build, stock, task):
    env, own = build(f"robosuite/{task}", seed=None), stock(task)
    env.reset(seed=7)
    own.rng.bit_generator.state = np.random.default_rng(
        int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(7))).integers(2**63))
    ).bit_generator.state
    own.reset()
    for action in actions(env, 10):
        _, _, _, _, info = env.step(action)
        _, reward, _, _ = own.step(action.astype(np.float64))
        np.testing.assert_array_equal(env.data.qpos, own.sim.data.qpos)
        assert info["dense_reward"] == pytest.approx(reward, abs=1e-12)


def test_observations_are_of_the_end_of_the_step_where_robosuites_are_older(build, stock):
    env, own = build("robosuite/Lift"), stock("Lift")
    env.reset(), own.reset()
    up = np.array([0, 0, 1, 0, 0, 0, 0], np.float32)
    for _ in range(5):
        ours = env.seen(env.step(up)[0])["robot0_eef_pos"]
        theirs = own.step(up)[0]["robot0_eef_pos"]
    for simulated, seen, lags in ((env.sim, ours, False), (own, theirs, True)):
        simulated.sim.forward()
        now = simulated.sim.data.get_site_xpos("gripper0_right_grip_site")
        assert (np.abs(now - seen).max() > 1e-4) == lags


@pytest.mark.parametrize("task", ["Lift", "TwoArmPegInHole"])
def test_pictures_are_robosuites_own_turned_upright(build, stock, task):
    cameras = ["agentview", "robot0_eye_in_hand"]
    env = build(f"robosuite/{task}", views=cameras, size=64, quality="full")
    env.reset(seed=3)
    own = stock(
        task,
        has_offscreen_renderer=True,
        use_camera_obs=True,
        camera_names=cameras,
        camera_heights=64,
        camera_widths=64,
    )
    own.reset()  # hides its aids
    own.sim.data.qpos[:] = env.data.qpos
    own.sim.forward()
    for view, frame in env.frames().items():
        theirs = own.sim.render(width=64, height=64, camera_name=view)[::-1]
        np.testing.assert_array_equal(frame, theirs)
        assert np.abs(frame.astype(int) - theirs[::-1]).mean() > 10


def test_all_views_and_parts(build):
    views = ("frontview", "sideview", "agentview", "robot0_eye_in_hand")
    env = build("robosuite/Lift", views=views, size=64)
    env.reset(seed=0)
    frames, parts = env.frames(), env.parts()
    assert tuple(frames) == views
    assert all(frame.shape == (64, 64, 3) and frame.std() > 10 for frame in frames.values())
    shown = {view: {PARTS[i] for i in np.unique(part)} for view, part in parts.items()}
    assert shown["frontview"] == {"background", "arm", "gripper", "objects"}
    assert shown["robot0_eye_in_hand"] == {"background", "gripper", "objects"}
    # The cube is red, and what is labelled an object is the cube.
    red, green, _ = frames["agentview"][parts["agentview"] == PARTS.index("objects")].T.astype(int)
    assert (red > 2 * green).all()


def test_horizon_truncates_and_counts_decisions(build):
    env = build("robosuite/Lift", horizon=4, action_repeat=2)
    env.reset()
    still = np.zeros(7, np.float32)
    assert [env.step(still)[2:4] for _ in range(4)] == [(False, False)] * 3 + [(False, True)]
    assert env.data.time == pytest.approx(4 * 2 / 20)


def test_success_terminates_pays_once_and_can_be_left_to_run_on(build, roll):
    env, on = build("robosuite/Lift"), build("robosuite/Lift", terminate_on_success=False)
    for environment in (env, on):
        environment._max_episode_steps = 50
    progress, info, terminated = roll(env, "expert", seed=0)
    assert terminated
    assert info["is_success"] is True
    assert progress[-1] == 1.0
    assert progress[:-1].max() < 1.0
    further, info, terminated = roll(on, "expert", seed=0)
    assert (len(further), terminated, info["is_success"]) == (51, False, True)


@pytest.mark.parametrize("repeat", [2, 3])
def test_action_repeat_is_that_many_robosuite_steps(build, repeat):
    slow, fast = build("robosuite/Lift", action_repeat=repeat), build("robosuite/Lift")
    slow.reset(seed=1), fast.reset(seed=1)
    for action in actions(slow, 5):
        coarse, *_ = slow.step(action)
        for _ in range(repeat):
            fine, *_ = fast.step(action)
        assert same(coarse, fine)


def test_hands_have_one_quaternion_per_orientation(build):
    env = build("robosuite/Lift")
    observation, _ = env.reset(seed=0)
    quaternions = [env.seen(observation)["robot0_eef_quat"]]
    for k in range(60):  # tilt to and fro across straight down, where w changes its sign
        tilt = -0.8 if k < 15 else 0.8
        action = np.array([0, 0, 0, tilt, 0.3 * tilt, 0, 0], np.float32)
        quaternions.append(env.seen(env.step(action)[0])["robot0_eef_quat"])
    quaternions = np.array(quaternions)
    assert quaternions[:, 3].min() < -0.01 < 0.01 < quaternions[:, 3].max()
    assert np.abs(np.diff(quaternions, axis=0)).max() < 0.2


def test_non_finite_actions_are_refused_and_others_clipped(build):
    env, reference = build("robosuite/Lift"), build("robosuite/Lift")
    env.reset(seed=0), reference.reset(seed=0)
    action = np.linspace(-3, 3, 7)
    assert same(env.step(action)[0], reference.step(np.clip(action, -1, 1))[0])
    before = env.data.time
    for bad in (np.nan, np.inf, -np.inf):
        for where in range(7):
            broken = action.copy()
            broken[where] = bad
            with pytest.raises(EnvError, match="robosuite/Lift' step 1 needs an action of 7 fin"):
                env.step(broken)
    with pytest.raises(EnvError, match="7 finite numbers"):
        env.step(np.zeros(4))
    assert env.data.time == before


@pytest.mark.parametrize("use", ["step", "frames", "progress", "render"])
def test_use_before_reset_says_so(build, use):
    env = build("robosuite/Lift")
    with pytest.raises(EnvError, match=r"call reset\(\) first"):
        env.step(np.zeros(7)) if use == "step" else getattr(env, use)()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"views": ("agentviw",)}, "has no view 'agentviw'; its cameras: .*agentview"),
        ({"size": 4}, "8 to 2048 pixels"),
        ({"reward": "sparse"}, "unknown reward 'sparse'"),
        ({"control": "poze"}, "unknown control 'poze'; did you mean 'pose'"),
        ({"render_mode": "human"}, "unknown render_mode 'human'"),
        ({"robot": "UR5e"}, "unexpected keyword argument 'robot'"),
    ],
)
def test_bad_arguments_are_named(build, kwargs, message):
    with pytest.raises(EnvError, match=message):
        build("robosuite/Lift", **kwargs)


def test_unknown_tasks_name_the_nearest(build):
    with pytest.raises(EnvError, match="unknown environment 'robosuite/Lfit'.*'robosuite/Lift'"):
        build("robosuite/Lfit")


def test_gymnasium_makes_the_tasks():
    env = gym.make("embodied_reward.envs.robosuite:robosuite/Lift", size=32, horizon=3)
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert env.render().shape == (32, 32, 3)
    env.close()


def run(code, **environment):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
def test_importing_robosuite_is_quiet_and_leaves_the_environment_alone():
    code = """
import os, sys
from embodied_reward.envs import list_envs, make
assert "robosuite/Lift" in list_envs()
assert "robosuite" not in sys.modules
make("robosuite/Lift").close()
print(os.environ["MUJOCO_GL"], os.environ["CUDA_VISIBLE_DEVICES"])
"""
    # robosuite asserts that the first number is among the second, and sets MUJOCO_GL to "egl".
    devices = {"MUJOCO_EGL_DEVICE_ID": "0", "CUDA_VISIBLE_DEVICES": "3", "MUJOCO_GL": "disable"}
    done = run(code, **devices)
    assert done.stdout.split()[:2] == ["disable", "3"], done.stderr
    assert done.stderr == ""


@pytest.mark.slow
def test_pictures_come_where_robosuite_was_imported_before_us():
    code = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import robosuite
from embodied_reward.envs import make
env = make("robosuite/Lift", size=32)
env.reset()
print(env.render().shape)
env.close()
"""
    unset = {k: v for k, v in os.environ.items() if k != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=unset
    )
    assert done.stdout.strip() == "(32, 32, 3)", done.stderr


def test_without_robosuite_the_error_names_the_extra():
    code = """
import sys; sys.modules["robosuite"] = None
import importlib.util
from embodied_reward.envs import list_envs, make
from embodied_reward.errors import MissingDependencyError
assert not [i for i in list_envs() if i.startswith("robosuite/")]
try:
    make("robosuite/Lift")
except MissingDependencyError as error:
    print(error)
"""
    done = run(code)
    assert "uv sync --extra robosuite" in done.stdout, done.stderr
    assert "pip install --no-deps robosuite" in done.stdout


@pytest.mark.parametrize("task", ["Lift", "Door"])
def test_every_behaviour_acts_within_the_box(build, task):
    env = build(f"robosuite/{task}", horizon=6)
    for quality in ("expert", "noisy", "wander", "stop", "retreat", "miss"):
        observation, _ = env.reset(seed=1)
        act = make_behaviour(env, quality, np.random.default_rng(0))
        assert act.name == quality
        for _ in range(3):
            action = act(observation)
            assert env.action_space.contains(action)
            observation, *_ = env.step(action)


def test_tasks_without_an_expert_say_so_and_wander(build):
    env = build("robosuite/Wipe")
    observation, _ = env.reset()
    act = make_behaviour(env, "wander", np.random.default_rng(0))
    assert env.action_space.contains(act(observation))
    with pytest.raises(EnvError, match="'robosuite/Wipe' has no scripted expert.*Lift"):
        make_behaviour(env, "expert", np.random.default_rng(0))
    door = build("robosuite/Door", control="position")
    door.reset()
    with pytest.raises(EnvError, match="needs control='pose'"):
        make_behaviour(door, "expert", np.random.default_rng(0))
