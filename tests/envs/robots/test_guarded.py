"""Every fault of the simulated arm ends in a hold that says why, and a person's release ends it."""

import numpy as np
import pytest
from lerobot.robots import RobotConfig, make_robot_from_config

from embodied_reward import config as configs
from embodied_reward.envs.robots import lerobot_robots
from embodied_reward.envs.robots.arm import LocalArm
from embodied_reward.envs.robots.arm_env import ArmEnv, Station, go_home
from embodied_reward.envs.robots.guarded import GuardedRobot, features_of
from embodied_reward.envs.robots.limits import limits_from
from embodied_reward.envs.robots.planner import plan
from embodied_reward.envs.robots.sim_arm import ErSimArm, ErSimArmConfig, FaultsConfig
from embodied_reward.envs.robots.sim_arm.operator import ScriptedOperator, joints_for, tip_of
from embodied_reward.envs.robots.sim_arm.scene import MOTORS
from embodied_reward.errors import ConfigError, EnvError

LIMITS = limits_from(configs.load_preset("robot", "er_sim_arm"))


@pytest.fixture
def guard():
    """Build guarded simulated arms that wait for their commands."""
    opened = []

    def build(task="reach", dry_run=False, **faults):
        config = ErSimArmConfig(task=task, realtime=False, size=24, faults=FaultsConfig(**faults))
        opened.append(GuardedRobot(ErSimArm(config), LIMITS, dry_run=dry_run))
        opened[-1].observe()
        return opened[-1]

    yield build
    for robot in opened:
        robot.close()


def towards(robot, wish, decisions):
    """Move for some decisions; returns how many commands were sent."""
    sent = 0
    for _ in range(decisions):
        goal = plan(wish, LIMITS, sent=robot.door.sent, velocity=robot.door.velocity)
        words = dict(zip(LIMITS.motors, goal, strict=True))
        sent += robot.command(words, robot.last.time)
        robot.wait(LIMITS.period)
        robot.observe_quietly() if robot.held else robot.observe()
    return sent


AWAY = LIMITS.home + np.array([40, 30, -30, -20, 30, 50])


def test_it_goes_where_it_is_told(guard):
    robot = guard()
    assert towards(robot, AWAY, 25) == 25
    measured = [robot.last.values[m] for m in LIMITS.motors]
    np.testing.assert_allclose(measured, AWAY, atol=1.5)


FAULTS = [
    ("encoder_nan", "elbow_flex", "encoder of 'elbow_flex.pos' says nan"),
    ("stuck_motor", "shoulder_pan", "'shoulder_pan.pos': ahead of the arm"),
    ("protective_stop", "", "protective stop"),
    ("camera_freeze", "side", "observation is"),
]


@pytest.mark.parametrize(("name", "target", "says"), FAULTS)
def test_a_fault_holds_the_arm_and_a_reset_mends_it(guard, name, target, says):
    robot = guard()
    assert towards(robot, AWAY, 3) == 3
    robot.inject(name, target)
    sent = towards(robot, AWAY, 12)
    assert sent < 12
    assert says in robot.held.reason
    where = np.array([robot.last.values[m] for m in LIMITS.motors])
    assert towards(robot, LIMITS.home, 5) == 0  # latched
    if name != "encoder_nan":
        after = np.array([robot.last.values[m] for m in LIMITS.motors])
        np.testing.assert_allclose(after, where, atol=2.0)  # it stays where it was held
    robot.reset_scene(1)
    robot.observe()
    assert robot.held is None
    assert towards(robot, AWAY, 5) == 5


def test_a_release_is_refused_while_an_encoder_says_nothing(guard):
    robot = guard()
    robot.inject("encoder_nan")
    robot.observe()
    assert robot.held
    assert not robot.release()
    robot._robot.faults.mend()
    assert robot.release()
    assert towards(robot, AWAY, 3) == 3


@pytest.mark.parametrize(
    "faults",
    [{"latency_s": 0.05}, {"drop": 0.15, "seed": 1}, {"duplicate": 0.3}, {"latency_s": 0.1}],
)
def test_slow_and_lossy_wires_do_not_stop_a_careful_arm(guard, faults):
    robot = guard(**faults)
    robot.wait(0.3)
    robot.observe()
    assert towards(robot, AWAY, 30) == 30, robot.held
    measured = [robot.last.values[m] for m in LIMITS.motors]
    np.testing.assert_allclose(measured, AWAY, atol=3.0)


def test_a_wire_slower_than_the_limits_allow_holds(guard):
    robot = guard(latency_s=0.4)
    for _ in range(8):
        robot.wait(LIMITS.period)
    robot.observe()
    assert towards(robot, AWAY, 3) == 0
    assert "s old" in robot.held.reason


def test_a_planned_fault_comes_in_time(guard):
    robot = guard(plan=("stuck_motor:shoulder_pan@0.5", "protective_stop@9"))
    assert towards(robot, AWAY, 4) == 4
    assert 1 <= towards(robot, AWAY, 20) < 20


def test_a_dry_run_moves_nothing_but_counts(guard):
    robot = guard(dry_run=True)
    before = [robot.last.values[m] for m in LIMITS.motors]
    sent = towards(robot, AWAY, 4)
    np.testing.assert_allclose([robot.last.values[m] for m in LIMITS.motors], before, atol=1e-6)
    assert robot.account.passed == sent > 0


def test_the_operator_reaches_the_ball(guard):
    robot, won = guard(), 0
    for seed in range(12):
        robot.reset_scene(seed)
        robot.observe()
        operator = ScriptedOperator("reach", np.random.default_rng(seed))
        for _ in range(40):
            towards(robot, operator.wish(robot.last.values), 1)
            assert robot.held is None
            if robot.last.values["truth.success"]:
                won += 1
                break
    assert won >= 11


def test_the_operators_geometry_is_the_arms(guard):
    for tip in ([0.25, 0.05, 0.05], [0.2, -0.1, 0.1], [0.28, 0.0, 0.03]):
        joints = joints_for(np.array(tip), 60.0)
        values = {f"{m}.pos": v for m, v in zip(MOTORS, joints, strict=True)}
        np.testing.assert_allclose(tip_of(values), tip, atol=1e-9)
        place, _ = LIMITS.workspace.chain.forward(joints[None])
        np.testing.assert_allclose(place[0], tip, atol=1e-9)


def test_the_limits_chain_is_the_simulated_arm(guard):
    """The chain in the limits' file finds the tool where MuJoCo has it."""
    robot = guard()
    towards(robot, AWAY, 10)
    world = robot._robot.world
    from embodied_reward.envs.robots.sim_arm.scene import to_motors

    place, _ = LIMITS.workspace.chain.forward(to_motors(world.data.qpos[:6])[None])
    np.testing.assert_allclose(place[0], world.data.site("tip").xpos, atol=1e-6)


def test_lerobot_builds_it_from_its_configuration():
    config = lerobot_robots.decode({"type": "er_sim_arm", "task": "push", "realtime": False})
    assert isinstance(config, RobotConfig)
    robot = make_robot_from_config(config)
    assert isinstance(robot, ErSimArm)
    assert lerobot_robots.decode(lerobot_robots.encode(config)) == config
    features = features_of(robot, LIMITS)
    assert features.numbers == ("puck.x", "puck.y", "mark.x", "mark.y")
    assert features.views == {"front": (64, 64), "side": (64, 64)}
    with pytest.raises(EnvError, match="not connected"):
        robot.get_observation()


@pytest.mark.parametrize(
    ("tree", "says"),
    [
        ({"type": "er_sim_am"}, "did you mean 'er_sim_arm'"),
        ({"type": "er_sim_arm", "task": "reech"}, "reach"),
        ({"type": "er_sim_arm", "faults": {"drop": 2}}, "drop"),
        ({"type": "er_sim_arm", "faults": {"plan": ["melt@3"]}}, "unknown fault 'melt'"),
        ({"type": "er_sim_arm", "faults": {"plan": ["encoder_nan"]}}, "name@seconds"),
    ],
)
def test_bad_configurations_are_refused(tree, says):
    with pytest.raises(ConfigError, match=says):
        lerobot_robots.decode(tree)


class Crew:
    label, discarded, keys = None, False, ""

    def __init__(self):
        self.wish = None

    def prepare(self, arm, seed):
        arm.reset_scene(seed)

    def begin(self):
        self.label = None

    def take(self, keys):
        self.keys += keys

    def intervene(self, reading):
        return self.wish


@pytest.fixture
def env(guard):
    robot = guard()
    return ArmEnv(Station(LocalArm(robot), Crew()), "er_sim_arm", task="touch", horizon=30, seed=3)


def test_actions_are_shares_of_the_velocity_limits(env):
    first, info = env.reset(seed=1)
    assert info == {"is_success": False, "intervention": False}
    assert env.observation_space.contains(first)
    for _ in range(3):
        obs, reward, terminated, truncated, info = env.step(np.array([1, 0, 0, 0, 0, 0.0]))
    assert env.observation_space.contains(obs)
    np.testing.assert_allclose(info["executed_action"], [1, 0, 0, 0, 0, 0], atol=1e-3)
    stride = LIMITS.velocity[0] * LIMITS.period
    moved = env._known().sent[0] - first["agent_pos"][0]
    assert moved == pytest.approx(3 * stride, abs=0.2)
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_one_seed_gives_one_scene(env):
    first, again, other = (env.reset(seed=s)[0]["environment_state"] for s in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_an_intervention_moves_the_arm_and_is_what_was_executed(env):
    env.reset(seed=1)
    env._station.crew.wish = LIMITS.home - [30, 0, 0, 0, 0, 0]
    _, _, _, _, info = env.step(np.array([1, 0, 0, 0, 0, 0.0]))
    assert info["intervention"]
    assert info["executed_action"][0] < -0.5


def test_a_hold_ends_the_episode_with_its_reason(env):
    env.reset(seed=1)
    env.step(np.zeros(6))
    env._station.arm.inject("encoder_nan")
    obs, _, terminated, truncated, info = env.step(np.zeros(6))
    assert (terminated, truncated) == (False, True)
    assert "encoder" in info["held"]
    assert all(np.isfinite(v).all() for v in obs.values())  # the last good reading


def test_what_a_person_says_counts(env):
    env.reset(seed=1)
    env._station.crew.label = True
    _, reward, terminated, _, info = env.step(np.zeros(6))
    assert (reward, terminated, info["is_success"]) == (1.0, True, True)
    env.reset(seed=1)
    env._station.crew.label = False
    _, reward, terminated, truncated, _ = env.step(np.zeros(6))
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_two_environments_do_not_mix_on_one_arm(env):
    other = ArmEnv(env._station, "er_sim_arm", task="touch", horizon=5)
    env.reset(seed=1)
    other.reset(seed=2)
    with pytest.raises(EnvError, match=r"call reset\(\) first"):
        env.step(np.zeros(6))


@pytest.mark.parametrize("action", [np.full(6, np.nan), np.zeros(5), [np.inf] * 6])
def test_no_action_that_is_none(env, action):
    env.reset(seed=1)
    with pytest.raises(EnvError, match="6,"):
        env.step(action)


def test_the_way_home_ends_at_home(guard):
    robot = guard()
    towards(robot, AWAY, 20)
    arm = LocalArm(robot)
    assert go_home(arm)
    measured = [arm.observe().reading.values[m] for m in LIMITS.motors]
    np.testing.assert_allclose(measured, LIMITS.home, atol=3.0)


def test_a_robot_whose_motors_are_not_all_limited_does_not_start():
    tree = configs.load_preset("robot", "er_sim_arm")
    del tree["motors"]["gripper.pos"]
    with pytest.raises(ConfigError, match=r"missing: \['gripper.pos'\]"):
        GuardedRobot(ErSimArm(ErSimArmConfig(realtime=False)), limits_from(tree))
