"""One suite for every arm that runs by the wall clock.

Without options the simulated arm, whose faults are injected. With `pytest --hardware=ROBOT.yaml
tests/envs/robots/test_arm.py -s` a real one, whose faults an operator makes when asked; that file
holds `robot:` (LeRobot's configuration), `limits:` (a path) and, where needed, `packages:`.
"""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from embodied_reward import config as configs
from embodied_reward.envs.robots import arm as arms
from embodied_reward.envs.robots import lerobot_robots
from embodied_reward.envs.robots.arm_env import go_home

SWING = Path(__file__).with_name("swing.py")
_spec = importlib.util.spec_from_file_location("swing", SWING)
swing = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(swing)

SIMULATED = {"robot": {"type": "er_sim_arm", "size": 24}}
LATE = ("no sign of life", "no command", "s old")  # what a busy machine does to the simulated arm
FAULTS = [
    ("protective_stop", "press the emergency stop (or cut the motors' power)"),
    ("stuck_motor", "block the moving arm gently with your hand"),
    ("camera_crash", "unplug a camera"),
]


@pytest.fixture(scope="module")
def tree(request):
    file = request.config.getoption("--hardware")
    if not file:
        return {**SIMULATED, "limits": configs.load_preset("robot", "er_sim_arm")}
    given = yaml.safe_load(Path(file).read_text())
    limits = Path(file).parent / given["limits"]
    return {**given, "limits": yaml.safe_load(limits.read_text())}


class Rig:
    """An arm and who breaks it."""

    def __init__(self, tree, hardware):
        packages, self.hardware = tuple(tree.get("packages", ())), hardware
        config = lerobot_robots.decode(tree["robot"], packages)
        self.arm = arms.connect(config, tree["limits"], packages=packages, keys=hardware)
        if hardware and not self.arm.terminal:
            self.arm.close()
            pytest.fail("--hardware needs an operator at a terminal: run pytest with -s")

    def ask(self, words):
        print(f"\n>>> {words}, then press Enter", flush=True)
        while not set(self.arm.observe().keys) & {"\r", "\n", "r"}:
            time.sleep(0.05)

    def ready(self):
        """Bring the arm home, whatever the test before has left."""
        for _ in range(20):
            if not self.hardware:
                self.arm.reset_scene(0)
            elif held := self.arm.observe().held:
                self.ask(f"held: {held}. Look at the robot")
            if self.arm.release() and go_home(self.arm):
                return self.arm
        raise AssertionError(self.arm.observe().held)

    def swing_until(self, stopped, seconds):
        """Swing until a hold whose reason `stopped` accepts; returns the reason."""
        until, tick = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            held = self.arm.observe().held
            if held and stopped(held):
                return held
            assert held is None or (not self.hardware and any(x in held for x in LATE)), held
            swing.swing(self.arm, tick)
            tick += 1
        raise AssertionError("nothing held the arm")


@pytest.fixture(scope="module")
def rig(tree, request):
    made = Rig(tree, bool(request.config.getoption("--hardware")))
    yield made
    made.arm.close()


def measured(arm):
    values = arm.observe().reading.values
    return np.array([values[m] for m in arm.limits.motors])


def near(arm):
    """How far a motor may be from where it was told to be: half of what counts as stuck."""
    return arm.limits.lead / 2


def test_it_swings_and_comes_home(rig):
    arm, sent, ticks = rig.ready(), 0, 2 * swing.TURN
    places = []
    for tick in range(ticks):
        sent += swing.swing(arm, tick)
        places.append(measured(arm))
    assert sent >= ticks / 2
    assert np.ptp(places, axis=0)[0] > near(arm)[0] / 2
    arm = rig.ready()
    assert (np.abs(measured(arm) - arm.limits.home) <= near(arm)).all()


@pytest.mark.parametrize("beyond", [np.nan, np.inf, 1e9, "a leap"])
def test_what_lies_beyond_its_limits_moves_nothing(rig, beyond):
    arm = rig.ready()
    before, state = measured(arm), arm.observe()
    leap = 3 * arm.limits.velocity[0] * arm.limits.period
    goal = state.sent.copy()
    goal[0] = goal[0] + leap if beyond == "a leap" else beyond
    assert not arm.command(goal, state.reading.time)
    assert arm.limits.motors[0] in arm.observe().held
    time.sleep(0.3)
    assert (np.abs(measured(arm) - before) <= near(arm)).all()
    assert not arm.command(state.sent, arm.observe().reading.time)  # latched


def test_a_silent_rollout_stops_it(rig):
    arm = rig.ready()
    for tick in range(swing.TURN // 2):
        swing.swing(arm, tick)
    time.sleep(0.6)
    assert any(x in arm.observe().held for x in LATE)
    stopped = measured(arm)
    time.sleep(0.5)
    assert (np.abs(measured(arm) - stopped) <= near(arm) / 4).all()


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_a_fault_holds_it_and_a_mended_arm_goes_on(rig, fault, words):
    arm = rig.ready()
    if rig.hardware:
        print(f"\n>>> while the arm moves: {words}", flush=True)
    else:
        arm.inject(fault, "shoulder_pan" if fault == "stuck_motor" else "")
    if fault == "camera_crash":
        held = rig.swing_until(lambda reason: "s old" in reason or "failed" in reason, 60)
    else:
        held = rig.swing_until(lambda reason: not any(x in reason for x in LATE), 60)
    assert held
    if rig.hardware:
        rig.ask("undo it")
    rig.ready()


def test_the_stop_key_stops_it(rig):
    if not rig.hardware:
        pytest.skip("test_driver.py does it on a terminal of its own")
    rig.ready()
    print("\n>>> press space while the arm moves", flush=True)
    assert "stop key" in rig.swing_until(lambda reason: True, 60)


@pytest.mark.slow
def test_a_killed_rollout_leaves_it_held(tree, tmp_path):
    (tmp_path / "rig.json").write_text(json.dumps(tree))
    log = tmp_path / "safety.jsonl"
    process = subprocess.Popen([sys.executable, SWING, tmp_path / "rig.json", log])
    until = time.monotonic() + 120
    while not (log.is_file() and '"go"' in log.read_text()):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    while '"end"' not in log.read_text():
        assert time.monotonic() < killed + 30
        time.sleep(0.05)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    hold = [row for row in rows if row["event"] == "hold"][-1]
    periods = (hold["monotonic"] - killed) * tree["limits"]["rate_hz"]
    # Held before the kill counts: the arm rests. Without real-time priority the system may be late.
    assert periods <= (2 if rows[0]["real_time_priority"] else 20)
