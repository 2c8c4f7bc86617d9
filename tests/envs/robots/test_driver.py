"""The guard's rules of time and keys, on a robot of one motor, over the real connection."""

import json
import os
import select
import socket
import struct
import threading
import time

import numpy as np
import pytest

from embodied_reward.envs.robots import wire
from embodied_reward.envs.robots.arm import RemoteArm
from embodied_reward.envs.robots.driver import Driver, SafetyLog
from embodied_reward.envs.robots.guarded import GuardedRobot
from embodied_reward.envs.robots.keys import Keys
from embodied_reward.envs.robots.limits import limits_from
from embodied_reward.errors import EnvError

MOTOR = {"low": -100, "high": 100, "velocity": 50, "acceleration": 1000, "lead": 30, "home": 0}
LIMITS = limits_from(
    {
        "rate_hz": 10,
        "observation_age_s": 0.2,
        "heartbeat_s": 0.1,
        "motors": {"a.pos": MOTOR},
        "workspace": "none",
    }
)


class OneMotor:
    """A LeRobot robot in what it offers; it goes where it is told at once."""

    observation_features = {"a.pos": float, "cam": (4, 5, 3)}
    action_features = {"a.pos": float}

    def __init__(self):
        self.at, self.told, self.hang = 0.0, [], threading.Event()

    def connect(self, calibrate=True):
        pass

    def disconnect(self):
        pass

    def get_observation(self):
        while self.hang.is_set():
            time.sleep(0.01)
        return {"a.pos": self.at, "cam": np.zeros((4, 5, 3), np.uint8)}

    def send_action(self, action):
        self.told.append((time.monotonic(), action["a.pos"]))
        self.at = action["a.pos"]


@pytest.fixture
def served(tmp_path):
    """A guard in a thread, the rollout's end of its connection, and what both stand on."""
    closing = []

    def build(keys=None, deadman=False):
        robot = OneMotor()
        guarded = GuardedRobot(robot, LIMITS)
        ours, theirs = socket.socketpair()
        log = SafetyLog(str(tmp_path / "safety.jsonl"))
        driver = Driver(guarded, theirs, keys, deadman=deadman, log=log)
        thread = threading.Thread(target=driver.run)
        thread.start()
        hello = {**vars(guarded.features), "task": "", "terminal": False, "hurried": False}
        arm = RemoteArm(ours, hello, LIMITS)
        closing.append((robot, arm, thread, log, theirs))
        wait_for(lambda: guarded.last is not None)
        return arm, robot

    yield build
    for robot, arm, thread, log, link in closing:
        robot.hang.clear()
        arm.close()
        thread.join(timeout=5)
        assert not thread.is_alive()
        log.close()
        link.close()


def wait_for(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


LATE = ("no sign of life", "no command", "s old")


def drive(arm, ticks, step=1.0, *, patient=True):
    """Command some ticks; a busy machine may make this process late, which is not the test."""
    tries = ticks + 30 * patient
    while ticks and tries:
        tries -= 1
        state = arm.observe()
        if arm.command(state.sent + step, state.reading.time):
            arm.tick()
            ticks -= 1
        elif not (patient and any(x in arm.observe().held for x in LATE) and arm.release()):
            return False
    return not ticks


def held_by(arm, word, act):
    """Move, act, and wait for a hold with this reason; a busy machine may hold for being late."""
    for _ in range(10):
        assert drive(arm, 2)
        act()
        wait_for(lambda: arm.observe().held)
        held = arm.observe().held
        if word in held:
            return
        assert any(x in held for x in LATE), held
        assert arm.release()
    raise AssertionError(f"never held by '{word}', but by '{held}'")


def rested(arm):
    """Move, then rest, without having been late."""
    for _ in range(10):
        assert drive(arm, 5)
        arm.rest()
        if arm.observe().held is None:
            return
        assert arm.release()
    raise AssertionError("late every time")


def test_it_drives_and_shows_what_it_sees(served):
    arm, robot = served()
    rested(arm)
    state = arm.observe()
    assert state.held is None
    assert state.reading.frames["cam"].shape == (4, 5, 3)
    assert robot.at == pytest.approx(round(robot.at))
    assert robot.at >= 5.0


def test_silence_holds_and_stays_held_until_released(served):
    arm, robot = served()
    held_by(arm, "no sign of life", lambda: time.sleep(0.25))
    stopped = robot.told[-1][1]
    assert not drive(arm, 1, patient=False)
    assert robot.told[-1][1] == stopped
    assert arm.release()
    assert drive(arm, 3)
    arm.rest()


def test_heartbeats_without_commands_hold_too(served):
    arm, _ = served()

    def beat():
        for _ in range(6):
            wire.send(arm._link, {"do": "beat"})
            time.sleep(0.05)

    held_by(arm, "no command", beat)


def test_a_resting_arm_may_be_silent(served):
    arm, _ = served()
    rested(arm)
    time.sleep(0.4)
    assert arm.observe().held is None
    rested(arm)


def test_a_hanging_camera_holds_and_hangs_nothing_else(served):
    arm, robot = served()
    assert drive(arm, 3)
    robot.hang.set()
    began, held = time.monotonic(), None
    while held is None and time.monotonic() < began + 5:
        state = arm.observe()
        arm.command(state.sent + 1.0, state.reading.time)
        arm.tick()
        held = arm.observe().held
    assert any(x in held for x in LATE)
    # The hold was sent although the reader still hangs, and not back to where it last read.
    assert robot.told[-1][0] > began
    assert robot.told[-1][1] >= max(at for _, at in robot.told) - 1e-6


def test_the_other_side_going_away_holds(served, tmp_path):
    arm, robot = served()
    assert drive(arm, 3, step=3.0)
    told = len(robot.told)
    arm._link.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: '"end"' in (tmp_path / "safety.jsonl").read_text())
    assert len(robot.told) > told
    rows = [json.loads(line) for line in (tmp_path / "safety.jsonl").read_text().splitlines()]
    assert [r["event"] for r in rows][-2:] == ["hold", "end"]


GARBAGE = [
    b"\xff\xff\xff\xff",
    struct.pack("!I", 5) + b"hello",
    struct.pack("!I", 2) + b"[]",
    struct.pack("!I", 15) + b'{"frames": null',
    struct.pack("!I", 40) + json.dumps({"do": "x", "frames": {"a": [-1, 4]}}).encode().ljust(40),
    struct.pack("!I", 44) + json.dumps({"do": "x", "frames": {"a": [1 << 40]}}).encode().ljust(44),
    struct.pack("!I", 9) + b"half",
]


@pytest.mark.parametrize("content", GARBAGE)
def test_what_is_no_message_holds(served, tmp_path, content):
    arm, _ = served()
    assert drive(arm, 2)
    arm._link.sendall(content)
    wait_for(lambda: "hold" in (tmp_path / "safety.jsonl").read_text())
    with pytest.raises(EnvError):
        drive(arm, 3)


@pytest.fixture
def terminal():
    master, slave = os.openpty()
    keys = Keys(os.ttyname(slave))
    yield master, keys
    keys.close()
    os.close(master)
    os.close(slave)


def test_keys_come_without_enter_and_the_terminal_is_given_back(terminal):
    master, keys = terminal
    assert keys.there
    assert keys.pressed() == ""
    os.write(master, b"sI")
    assert select.select([keys.fd], [], [], 3.0)[0]
    assert keys.pressed() == "si"
    keys.close()
    keys.close()
    assert not keys.there


def test_no_terminal_is_no_error():
    assert not Keys("/dev/null").there


@pytest.mark.parametrize("key", [b" ", b"\x1b"])
def test_the_stop_key_stops_and_other_keys_reach_the_rollout(terminal, served, key):
    master, keys = terminal
    arm, _ = served(keys)
    os.write(master, b"s")
    wait_for(lambda: arm.observe().keys == "s")
    held_by(arm, "stop key", lambda: os.write(master, key))
    assert not drive(arm, 1)


def test_the_arm_moves_only_while_the_dead_man_key_is_held(terminal, served):
    master, keys = terminal
    arm, robot = served(keys, deadman=True)
    assert not arm.observe().enabled
    assert not drive(arm, 1, patient=False)  # not even for a moment
    assert "dead-man" in arm.observe().held
    assert robot.at == 0.0
    os.write(master, b"d")
    wait_for(lambda: arm.observe().enabled)
    assert arm.release()
    until = time.monotonic() + 1.2
    while time.monotonic() < until:  # longer than the key's grace
        os.write(master, b"d")
        assert drive(arm, 1, step=0.1)
    began = time.monotonic()
    while drive(arm, 1, step=0.1):
        assert time.monotonic() < began + 10
    assert "dead-man" in arm.observe().held
