"""A LeRobot robot that can be told nothing but through the safety door.

Whoever holds a `GuardedRobot` has no other way to move the arm. A hold is repeated until it is
released, so that a lost packet does not undo it.
"""

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.errors import ConfigError
from embodied_reward.types import Float64, UInt8

from .limits import Limits
from .safety import Account, Check, SafetyDoor, Violation

TRUTH = "truth."
"""Prefix of observations that only a simulator can make; policies never see them."""


@dataclass(frozen=True)
class Features:
    """What a robot observes.

    Attributes:
        motors: keys of the action, in the limits' order; the policy's `agent_pos`.
        numbers: other numbers; the policy's `environment_state`.
        truth: what only a simulator knows.
        views: camera -> (height, width) [px].
    """

    motors: tuple[str, ...]
    numbers: tuple[str, ...]
    truth: tuple[str, ...]
    views: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Reading:
    """One observation.

    Attributes:
        values: motors, numbers and truth by name.
        frames: view -> UInt8["h w 3"].
        time: of the oldest part of it, by the robot's clock [s].
    """

    values: Mapping[str, float]
    frames: Mapping[str, UInt8]
    time: float


def features_of(robot: Any, limits: Limits) -> Features:
    """Sort a robot's features. Raises ConfigError where the limits do not fit it."""
    observed, actions = robot.observation_features, robot.action_features
    odd = [key for key, kind in actions.items() if kind is not float]
    if odd:
        raise ConfigError(
            f"the robot's action '{odd[0]}' is no single number; it cannot be limited"
        )
    limits.check_motors(list(actions))
    unseen = [key for key in limits.motors if key not in observed]
    if unseen:
        raise ConfigError(
            f"the robot does not observe {unseen}: a command cannot be held against where it is"
        )
    other = [k for k, kind in observed.items() if kind is float and k not in actions]
    shapes = {k: kind for k, kind in observed.items() if isinstance(kind, tuple)}
    return Features(
        motors=limits.motors,
        numbers=tuple(k for k in other if not k.startswith(TRUTH)),
        truth=tuple(k for k in other if k.startswith(TRUTH)),
        views={k: (s[0], s[1]) for k, s in shapes.items() if len(s) == 3 and s[2] == 3},
    )


class GuardedRobot:
    """The robot behind its door; connects on construction and holds the arm when closed.

    Args:
        robot: any LeRobot robot with scalar actions, calibrated, not connected yet.
        limits: what it may be told.
        dry_run: judge and count everything, send nothing.
        calibrate: let LeRobot calibrate where the robot asks for it.
    """

    def __init__(self, robot: Any, limits: Limits, *, dry_run: bool = False) -> None:
        self.features = features_of(robot, limits)
        self.limits, self.dry_run, self._robot = limits, dry_run, robot
        self.door = SafetyDoor(limits)
        self.last: Reading | None = None
        self._hold: dict[str, float] | None = None
        self._measured_at = -math.inf
        # Calibrating asks questions and moves the arm by hand: nothing for a guard to do.
        robot.connect(calibrate=False)
        if not getattr(robot, "is_calibrated", True):
            robot.disconnect()
            raise ConfigError(
                "the robot is not calibrated; LeRobot's `lerobot-calibrate` does that"
            )

    @property
    def account(self) -> Account:
        """What passed the door, and what did not."""
        return self.door.account

    @property
    def held(self) -> Violation | None:
        """Why the robot is held; None while commands pass."""
        return self.door.latched

    def now(self) -> float:
        """Return the robot's clock: its own where it has one, else the monotonic one [s]."""
        return self._robot.now() if hasattr(self._robot, "now") else time.monotonic()

    def observe(self) -> Reading | None:
        """Read the robot; where that fails the robot is held, and None is returned."""
        began = self.now()
        try:
            row = self._robot.get_observation()
        except Exception as error:  # noqa: BLE001 (drivers raise anything; all of it means hold)
            self.hold(f"reading the robot failed: {_first_line(error)}")
            return None
        self._take(row, began)
        return self.last

    def command(self, command: Mapping[str, float], observed: float) -> bool:
        """Send a command if the door lets it pass, else hold; returns whether it was sent.

        Args:
            command: motor -> position [unit].
            observed: time of the reading that it was computed from [s].
        """
        goal = self.door.admit(command, now=self.now(), observed=observed)
        if goal is None:
            self._settle()
            return False
        return self._send(dict(zip(self.limits.motors, goal.tolist(), strict=True)))

    def hold(self, reason: str) -> None:
        """Stop the arm where it is and refuse commands until `release`."""
        self.door.latch(reason, self.now())
        self._settle()

    def rest(self) -> None:
        """Stop the arm where it is, without a latch: nobody means to command it for a while."""
        if self.door.latched is None:
            self._hold = None
            self._settle()

    def repeat_hold(self) -> None:
        """Tell a held robot again to stay where it is."""
        if self._hold is not None and self.door.latched is not None:
            self._send(self._hold)

    def release(self) -> bool:
        """Let commands pass again; returns False where the encoders still say nothing."""
        reading = self.observe_quietly()
        if reading is None or not np.isfinite(self._motors(reading.values)).all():
            return False
        self.door.release()
        self._hold = None
        self.rest()
        return self.door.latched is None

    def observe_quietly(self) -> Reading | None:
        """Read the robot without holding it where that fails."""
        began = self.now()
        try:
            row = self._robot.get_observation()
        except Exception:  # noqa: BLE001 (asked whether it works again; it does not)
            return None
        self._take(row, began)
        return self.last

    def wait(self, seconds: float) -> None:
        """Let the robot's time pass."""
        if hasattr(self._robot, "wait"):
            self._robot.wait(seconds)
        else:
            time.sleep(seconds)

    @property
    def realtime(self) -> bool:
        """Whether its time passes by itself."""
        return getattr(getattr(self._robot, "config", None), "realtime", True)

    def reset_scene(self, seed: int) -> bool:
        """Let a simulator do what a person does between episodes; False where there is none."""
        if not hasattr(self._robot, "reset_scene"):
            return False
        self._robot.reset_scene(seed)
        self.door = self._fresh_door()
        self._hold = None
        return True

    def inject(self, name: str, target: str = "") -> None:
        """Let a simulated fault begin."""
        self._robot.inject(name, target)

    def measure_speed(self) -> float:
        """Return the simulator's own fastest joint speed [deg/s]; NaN for other robots."""
        return self._robot.speed() if hasattr(self._robot, "speed") else float("nan")

    @property
    def task_description(self) -> str:
        """The task in words, where the robot knows one."""
        return getattr(self._robot, "task_description", "")

    def close(self) -> None:
        """Hold, then disconnect."""
        with contextlib.suppress(Exception):
            self.hold("closed")
        self._robot.disconnect()

    def _fresh_door(self) -> SafetyDoor:
        door = SafetyDoor(self.limits)
        door.account = self.door.account
        return door

    def _settle(self) -> None:
        """Send the resting position once, and remember it to be repeated."""
        if self._hold is None:
            fresh = self.now() - self._measured_at <= self.limits.period
            resting = self.door.resting(fresh=fresh)
            self._hold = dict(zip(self.limits.motors, resting.tolist(), strict=True))
        self._send(self._hold)

    def _send(self, goal: dict[str, float]) -> bool:
        if self.dry_run:
            return True
        try:
            self._robot.send_action(goal)
        except Exception as error:  # noqa: BLE001 (as above)
            self.door.latch(f"the robot refused a command: {_first_line(error)}", self.now())
            return False
        return True

    def _take(self, row: Mapping[str, Any], began: float) -> None:
        names = (*self.features.motors, *self.features.numbers, *self.features.truth)
        values = {key: float(row[key]) for key in names}
        frames = {view: np.asarray(row[view]) for view in self.features.views}
        self.last = Reading(values, frames, self._taken_at(began))
        self._measured_at = min(began, getattr(self._robot, "observed_at", began))
        self.door.observe(self._motors(values))
        bad = [m for m in self.features.motors if not np.isfinite(values[m])]
        if bad and self.door.latched is None:
            reason = f"the encoder of '{bad[0]}' says {values[bad[0]]}"
            self.door.latch(reason, self.now(), check=Check.FINITE)
            self._settle()

    def _motors(self, values: Mapping[str, float]) -> Float64:
        return np.array([values[m] for m in self.features.motors])

    def _taken_at(self, began: float) -> float:
        """Return when the oldest part of the last observation was taken [s]."""
        times = [getattr(self._robot, "observed_at", began)]
        cameras = getattr(self._robot, "cameras", {}).values()
        stamps = [getattr(camera, "latest_timestamp", None) for camera in cameras]
        if hasattr(self._robot, "now"):
            return min([*times, *(s for s in stamps if s)])
        # LeRobot's cameras stamp with `perf_counter`, of which only differences mean anything.
        now, clock = time.monotonic(), time.perf_counter()
        return min([*times, *(now - (clock - s) for s in stamps if s)])


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
