"""Nothing that is not finite or lies outside a limit passes the door."""

import copy
import math

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward import config as configs
from embodied_reward.envs.robots.kinematics import geodesic_angle, matrix_of, rotation
from embodied_reward.envs.robots.limits import limits_from
from embodied_reward.envs.robots.planner import plan
from embodied_reward.envs.robots.safety import Check, SafetyDoor, inside_float32, judge
from embodied_reward.errors import ConfigError

TREE = configs.load_preset("robot", "er_sim_arm")
LIMITS = limits_from(TREE)
N = len(LIMITS.motors)


def words(goal):
    return dict(zip(LIMITS.motors, goal, strict=True))


def tool_at(q):
    """The tool's place by plain trigonometry, for roll and pan 0 and the others as given [deg]."""
    pan, lift, elbow, wrist, roll, _ = np.deg2rad(q)
    upper, fore = lift, lift + elbow
    hand = fore + wrist
    reach = 0.03 + 0.116 * math.sin(upper) + 0.135 * math.cos(fore) + 0.16 * math.cos(hand)
    high = 0.115 + 0.116 * math.cos(upper) - 0.135 * math.sin(fore) - 0.16 * math.sin(hand)
    return np.array([reach * math.cos(pan), reach * math.sin(pan), high])


def test_the_chain_is_the_arms_geometry():
    rng = np.random.default_rng(0)
    poses = rng.uniform(LIMITS.low, LIMITS.high, (50, N))
    place, turn = LIMITS.workspace.chain.forward(poses)
    np.testing.assert_allclose(place, [tool_at(q) for q in poses], atol=1e-12)
    np.testing.assert_allclose(
        turn @ np.swapaxes(turn, 1, 2), np.tile(np.eye(3), (50, 1, 1)), atol=1e-12
    )


@given(st.floats(0.0, math.pi), st.floats(-1, 1), st.floats(-1, 1), st.floats(0.1, 1))
def test_the_geodesic_angle_is_the_angle_of_rotation(angle, x, y, z):
    axis = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    turned = rotation(axis, np.array([angle]))[0]
    start = matrix_of([0.5, 0.5, 0.5, 0.5])
    assert geodesic_angle(start, start @ turned) == pytest.approx(angle, abs=1e-7)


def reference_ok(command, previous, velocity, measured, early, age):
    """The same rules, one motor after the other, as a person would write them down."""
    for q, p, u, m, i in zip(command, previous, velocity, measured, range(N), strict=True):
        if not (math.isfinite(q) and math.isfinite(m)):
            return False
        if q < LIMITS.low[i] or q > LIMITS.high[i]:
            return False
        speed = (q - p) * LIMITS.rate
        if abs(speed) > LIMITS.velocity[i] * (1 + 1e-12):
            return False
        if abs(speed - u) * LIMITS.rate > LIMITS.acceleration[i] * (1 + 1e-12):
            return False
        if abs(q - m) > LIMITS.lead[i]:
            return False
    space = LIMITS.workspace
    if np.any(tool_at(command) < space.low - 1e-9) or np.any(tool_at(command) > space.high + 1e-9):
        return False
    if np.linalg.norm(tool_at(command) - tool_at(previous)) > space.speed / LIMITS.rate + 1e-9:
        return False
    return not early and 0 <= age <= LIMITS.observation_age


def hard_float32(rng, shape):
    """Every bit pattern is as likely as any other: all NaNs, infinities, subnormals, both zeros."""
    return rng.integers(0, 2**32, shape, dtype=np.uint64).astype(np.uint32).view(np.float32)


def cases(rng, count):
    """Commands near enough to the limits that many pass and many fail by one rounding."""
    center = plan_home(rng, count)
    velocity = rng.uniform(-1, 1, (count, N)) * LIMITS.velocity
    bound = np.minimum(LIMITS.velocity, LIMITS.acceleration / LIMITS.rate) / LIMITS.rate
    scale = rng.choice([0.0, 0.3, 1.0, 1.0 + 1e-7, 1.2], (count, 1))
    step = rng.choice([-1.0, 1.0], (count, N)) * bound * scale
    command = (center + step).astype(np.float32)
    edge = rng.random((count, N)) < 0.03
    command = np.where(edge, rng.choice([LIMITS.low, LIMITS.high], count), command)
    wild = rng.random(count) < 0.3
    patterns = np.where(rng.random((count, N)) < 0.3, hard_float32(rng, (count, N)), command)
    command = np.where(wild[:, None], patterns, command).astype(np.float32)
    measured = center + rng.normal(0, 1.0, (count, N))
    broken = rng.random(count) < 0.02
    measured[broken, rng.integers(0, N, broken.sum())] = rng.choice([np.nan, np.inf, -np.inf])
    age = rng.choice(
        [0.0, 0.1, 0.25, 0.2500001, -0.1, np.nan, np.inf], count, p=[0.5, 0.3] + [0.04] * 5
    )
    early = rng.random(count) < 0.05
    # What was sent before had been admitted too, so its speed fits the change that is tried now.
    velocity = np.where(rng.random((count, 1)) < 0.8, step * LIMITS.rate, velocity)
    return command, center, velocity, measured, early, age


def plan_home(rng, count):
    """Poses inside the workspace, as float32, as the door remembers what it sent."""
    poses = rng.uniform(LIMITS.low, LIMITS.high, (count, N))
    near = LIMITS.home + rng.uniform(-1, 1, (count, N)) * 25
    poses = np.where(rng.random((count, 1)) < 0.8, near, poses)
    return inside_float32(poses, LIMITS.low, LIMITS.high).astype(np.float64)


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(4_000_000, marks=pytest.mark.slow, id="four_million")]
)
def test_commands_pass_only_inside_all_limits(count):
    rng, passed, seen = np.random.default_rng(count), 0, np.zeros(len(Check), np.int64)
    for _ in range(count // 20_000):
        command, previous, velocity, measured, early, age = cases(rng, 20_000)
        verdict = judge(
            command.astype(np.float64),
            LIMITS,
            previous=previous,
            velocity=velocity,
            measured=measured,
            early=early,
            age=age,
        )
        seen += np.bincount(verdict, minlength=len(Check))
        good = verdict == 0
        q = command[good].astype(np.float64)  # what the robot is sent
        assert np.isfinite(q).all()
        assert (q >= LIMITS.low).all()
        assert (q <= LIMITS.high).all()
        speed = (q - previous[good]) / LIMITS.period
        assert (np.abs(speed) <= LIMITS.velocity).all()
        change = np.abs(speed - velocity[good]) / LIMITS.period
        assert (change <= LIMITS.acceleration * (1 + 1e-12)).all()
        assert (np.abs(q - measured[good]) <= LIMITS.lead).all()
        assert not early[good].any()
        assert (age[good] <= LIMITS.observation_age).all()
        sample = rng.choice(np.flatnonzero(good), 40, replace=False)
        assert all(
            reference_ok(
                *(
                    x[i]
                    for x in (command.astype(np.float64), previous, velocity, measured, early, age)
                )
            )
            for i in sample
        )
        # Neither may the door refuse what a person reading the rules would let pass.
        bad = rng.choice(np.flatnonzero(verdict > 0), 40, replace=False)
        turned = verdict[bad]
        for i, why in zip(bad, turned, strict=True):
            if why not in (Check.WORKSPACE, Check.CHANGE):  # rotations are not in the reference
                row = (command.astype(np.float64), previous, velocity, measured, early, age)
                assert not reference_ok(*(x[i] for x in row))
        passed += int(good.sum())
    print({check.name: int(n) for check, n in zip(Check, seen, strict=True)})
    assert passed > count / 10
    # All eight checks were needed; SHAPE is about names, which vectors do not have.
    assert all(seen[check] > count / 2000 for check in Check if check != Check.SHAPE)


@pytest.mark.slow
def test_every_float32_that_is_not_finite_is_refused():
    tree = copy.deepcopy(TREE) | {"workspace": "none"}
    tree["motors"] = {"shoulder_pan.pos": tree["motors"]["shoulder_pan.pos"]}
    one, count = limits_from(tree), 1 << 20
    for sign in (0, 1 << 31):
        for first in range(0, 1 << 23, count):
            bits = np.arange(first, first + count, dtype=np.uint32) | np.uint32(0x7F800000 | sign)
            still, yes = np.zeros((count, 1)), np.zeros(count, bool)
            with np.errstate(invalid="ignore"):  # signalling NaNs
                command = bits.view(np.float32)[:, None].astype(np.float64)
            verdict = judge(
                command,
                one,
                previous=still,
                velocity=still,
                measured=still,
                early=yes,
                age=np.zeros(count),
            )
            assert (verdict == Check.FINITE).all()


SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 1e39, -1e39, 1e308, "x", None, [1.0], 1 + 2j, 10**400]


@pytest.mark.parametrize("value", SPECIAL)
@pytest.mark.parametrize("motor", range(N))
def test_what_is_no_finite_number_latches(value, motor):
    door = SafetyDoor(LIMITS)
    door.observe(LIMITS.home)
    goal = words(LIMITS.home)
    goal[LIMITS.motors[motor]] = value
    assert door.admit(goal, now=1.0, observed=1.0) is None
    assert door.latched.check in (Check.FINITE, Check.SHAPE)
    # Latched: the best of commands is refused until somebody releases the door.
    assert door.admit(words(LIMITS.home), now=1.1, observed=1.1) is None
    door.release()
    assert door.admit(words(LIMITS.home), now=1.2, observed=1.2) is not None


@given(st.data())
@settings(max_examples=20, deadline=None)
def test_a_stream_of_any_float64_numbers_never_leaves_the_limits(data):
    door, now, before = SafetyDoor(LIMITS), 0.0, LIMITS.home
    door.observe(LIMITS.home)
    anything = st.floats(width=64) | st.sampled_from([5e-324, -0.0, 75.0, 75.00000000001])
    near = st.floats(-7, 7)
    for _ in range(8):
        offsets = data.draw(st.lists(anything | near, min_size=N, max_size=N))
        close = data.draw(st.booleans())
        goal = np.array(offsets) + (before if close else 0.0)
        now += data.draw(st.sampled_from([0.0, 0.02, 0.1, 0.1, 0.1, 5.0]))
        sent = door.admit(
            words(goal), now=now, observed=now - data.draw(st.sampled_from([0, 0.2, 1]))
        )
        sent = door.resting() if sent is None else sent
        assert sent.dtype == np.float32
        q = sent.astype(np.float64)
        assert np.isfinite(q).all()
        assert (q >= LIMITS.low).all()
        assert (q <= LIMITS.high).all()
        assert (np.abs(q - before) <= LIMITS.velocity / LIMITS.rate).all() or door.latched
        before = q
        door.observe(q)
        door.release()


def outside_pose():
    """A pose within the limits of position whose tool is outside its box."""
    for pose in np.random.default_rng(0).uniform(LIMITS.low, LIMITS.high, (1000, N)):
        pose = np.float32(pose).astype(np.float64)
        place, inside = tool_at(pose), LIMITS.workspace
        if np.any(place < inside.low - 0.01) or np.any(place > inside.high + 0.01):
            return pose
    raise AssertionError("the workspace limits nothing")


def test_the_first_check_of_the_order_is_the_one_that_is_reported():
    """Faults are added from the last check to the first; each takes over from those before."""
    home, pose = LIMITS.home.astype(np.float64), outside_pose()
    state = {"command": home, "previous": home, "velocity": np.zeros(N), "measured": home}
    rest = {"early": False, "age": 0.0}

    def verdict():
        rows = {k: np.asarray(v)[None] for k, v in {**state, **rest}.items()}
        return Check(judge(limits=LIMITS, **rows)[0])

    assert verdict() is Check.PASSED
    beyond, nan = LIMITS.high + 1.0, np.full(N, np.nan)
    faults = [
        (Check.AGE, lambda: rest.update(age=10 * LIMITS.observation_age)),
        (Check.CHANGE, lambda: rest.update(early=True)),
        (Check.WORKSPACE, lambda: state.update(command=pose, previous=pose)),
        (Check.ACCELERATION, lambda: state.update(velocity=np.full(N, 1e6))),
        (Check.VELOCITY, lambda: state.update(previous=pose - 1e3)),
        (Check.POSITION, lambda: state.update(command=beyond)),
        (Check.FINITE, lambda: state.update(command=nan)),
    ]
    for check, add in faults:
        add()
        assert verdict() is check
    assert [check for check, _ in faults[::-1]] == sorted(set(Check) - {Check.PASSED, Check.SHAPE})


def test_names_are_looked_at_after_numbers():
    """Shape comes second: a command of wrong names and not finite is refused as not finite."""
    for extra, check in ((math.inf, Check.FINITE), (0.0, Check.SHAPE)):
        door = SafetyDoor(LIMITS)
        door.observe(LIMITS.home)
        assert door.admit({**words(LIMITS.high + 1), "wing": extra}, now=0.0, observed=-9.0) is None
        assert door.latched.check is check


def test_the_reason_names_the_motor():
    door = SafetyDoor(LIMITS)
    door.observe(LIMITS.home)
    goal = words(LIMITS.home) | {"elbow_flex.pos": LIMITS.home[2] + 30}
    assert door.admit(goal, now=0.0, observed=0.0) is None
    assert door.latched.check is Check.VELOCITY
    assert "elbow_flex.pos" in door.latched.reason
    assert door.account.report()["refused"] == {"VELOCITY": 1}


def test_a_stuck_motor_is_seen_by_how_far_commands_run_ahead():
    door, goal = SafetyDoor(LIMITS), LIMITS.home.copy()
    door.observe(LIMITS.home)
    for tick in range(20):
        goal[0] += 4.0
        if door.admit(words(goal), now=tick * 0.1, observed=tick * 0.1) is None:
            break
        door.observe(LIMITS.home)
    assert tick == 5  # 4, 8, ..., 20 degrees ahead pass; 24 do not
    assert "shoulder_pan" in door.latched.reason


def test_commands_in_a_burst_are_refused_and_jitter_is_not():
    door = SafetyDoor(LIMITS)
    door.observe(LIMITS.home)
    rng = np.random.default_rng(0)
    for tick in range(200):
        now = tick * 0.1 + rng.uniform(-0.03, 0.03)
        assert door.admit(words(LIMITS.home), now=now, observed=now) is not None
    results = [
        door.admit(words(LIMITS.home), now=now + k * 0.001, observed=now) is not None
        for k in range(1, 5)
    ]
    assert results.count(True) <= 1
    assert door.latched.check is Check.CHANGE


@pytest.mark.parametrize(
    ("seed", "ticks"),
    [(0, 300), *(pytest.param(i, 800, marks=pytest.mark.slow) for i in range(1, 7))],
)
def test_what_is_planned_passes_the_door(seed, ticks):
    rng, door, refused = np.random.default_rng(seed), SafetyDoor(LIMITS), 0
    door.observe(LIMITS.home)
    wish = LIMITS.home
    for tick in range(ticks):
        if tick % 15 == 0:
            wish = rng.uniform(LIMITS.low - 30, LIMITS.high + 30)
        goal = plan(wish, LIMITS, sent=door.sent, velocity=door.velocity)
        sent = door.admit(words(goal), now=tick * 0.1, observed=tick * 0.1)
        if sent is None:
            refused += 1
            door.release()
            sent = door.resting()
        door.observe(sent.astype(np.float64))
    assert refused <= 2, door.account.report()["holds"]


def test_a_plan_arrives_and_stays():
    door, wish = SafetyDoor(LIMITS), LIMITS.home + [20, 10, -10, 5, 30, 40]
    door.observe(LIMITS.home)
    for tick in range(40):
        goal = plan(wish, LIMITS, sent=door.sent, velocity=door.velocity)
        sent = door.admit(words(goal), now=tick * 0.1, observed=tick * 0.1)
        assert sent is not None, door.latched
        door.observe(sent.astype(np.float64))
    np.testing.assert_allclose(door.sent, wish, atol=1e-3)


def edited(path, value):
    tree = copy.deepcopy(TREE)
    *parents, leaf = path
    node = tree
    for key in parents:
        node = node[key]
    if value is KeyError:
        del node[leaf]
    else:
        node[leaf] = value
    return tree


PAN = ("motors", "shoulder_pan.pos")
BAD = [
    (("rate_hz",), KeyError, "rate_hz"),
    (("rate_hz",), 0, "positive"),
    (("heartbeat_s",), 0.2, "at most 0.1"),
    (("heartbeat_s",), float("nan"), "finite"),
    (("observation_age_s",), -1, "positive"),
    (("workspace",), KeyError, "workspace"),
    (("workspace",), None, "mapping"),
    (("motors",), {}, "motors"),
    ((*PAN, "low"), float("nan"), "finite"),
    ((*PAN, "low"), 1e38, "finite"),
    ((*PAN, "low"), 80, "below"),
    ((*PAN, "velocity"), float("inf"), "finite"),
    ((*PAN, "velocity"), -1, "positive"),
    ((*PAN, "velocity"), True, "finite"),
    ((*PAN, "velocity"), "60", "finite"),
    ((*PAN, "velocity"), KeyError, "no defaults"),
    ((*PAN, "velocty"), 1, "velocity"),
    ((*PAN, "home"), 90, "home"),
    (("workspace", "low"), [0.5, 0, 0], "below"),
    (("workspace", "chain"), [], "chain"),
    (("workspace", "chain", 0, "motor"), "shoulder_pan", "did you mean 'shoulder_pan.pos'"),
    (("workspace", "chain", 0, "axis"), [0, 0, 0], "length 1"),
    (("workspace", "rotation", "angle"), 200, "180"),
]


@pytest.mark.parametrize(("path", "value", "says"), BAD)
def test_limits_that_limit_nothing_are_refused(path, value, says):
    with pytest.raises(ConfigError, match=says):
        limits_from(edited(path, value))


def test_limits_without_a_workspace_say_so_in_words():
    assert limits_from(edited(("workspace",), "none")).workspace is None


def test_limits_of_another_robot_are_refused():
    with pytest.raises(ConfigError, match=r"missing: \['x.pos'\]"):
        LIMITS.check_motors([*LIMITS.motors, "x.pos"])


def test_the_file_round_trips_through_yaml():
    assert yaml.safe_load(yaml.safe_dump(TREE)) == TREE
