"""What a rollout holds of a robot: the same few methods, whether the arm is guarded here or there.

`RemoteArm` talks to the process that guards the robot (`driver.py`), which every robot that runs
by the wall clock needs. `LocalArm` guards a simulated arm that waits for its commands.
"""

import contextlib
import math
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Float64

from . import lerobot_robots, wire
from .guarded import Features, GuardedRobot, Reading
from .limits import Limits, limits_from

STARTING = 120.0  # longest wait for a robot to connect [s]
ANSWER = 5.0  # longest wait for an answer [s]; a reset of a simulated scene may take some
_BEATS = 3  # per heartbeat


@dataclass(frozen=True)
class State:
    """What is known of the arm now.

    Attributes:
        reading: the newest observation; None where there is none.
        held: why commands are refused; None while they pass.
        sent: what the arm was told last, Float64["n"] [unit].
        velocity: the change per second of that [unit/s].
        keys: what the operator typed since the state before.
        enabled: False where a dead-man key is required and not held.
    """

    reading: Reading | None
    held: str | None
    sent: Float64
    velocity: Float64
    keys: str = ""
    enabled: bool = True


class Arm(ABC):
    """A guarded robot.

    Attributes:
        limits: the robot's.
        features: what it observes.
        task: in words, where the robot knows one.
        terminal: whether an operator's keys are read.
        missed: control ticks that came too late.
    """

    limits: Limits
    features: Features
    task: str
    terminal: bool = False
    missed: int = 0

    @abstractmethod
    def observe(self) -> State:
        """Return the newest state."""

    @abstractmethod
    def command(self, goal: Float64, observed: float) -> bool:
        """Send motor positions Float64["n"] computed from an observation of that time [s]."""

    @abstractmethod
    def tick(self) -> None:
        """Wait for the next control tick."""

    @abstractmethod
    def rest(self) -> None:
        """Stop the arm: no commands are meant to come for a while."""

    @abstractmethod
    def hold(self, reason: str) -> None:
        """Stop the arm and refuse commands until `release`."""

    @abstractmethod
    def release(self) -> bool:
        """Let commands pass again; returns whether that was possible."""

    @abstractmethod
    def reset_scene(self, seed: int) -> bool:
        """Let a simulator reset itself; False where a person has to."""

    @abstractmethod
    def inject(self, name: str, target: str = "") -> None:
        """Let a simulated fault begin."""

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """Return what passed the door and what did not, as JSON types."""

    @abstractmethod
    def close(self) -> None:
        """Hold the arm and disconnect; safe to call twice."""


class LocalArm(Arm):
    """An arm whose time passes in `tick` only; nothing can be late, so nothing watches.

    Args:
        robot: guarded, not realtime.
    """

    def __init__(self, robot: GuardedRobot) -> None:
        if robot.realtime:
            raise EnvError("a robot that runs by the wall clock needs its own process: RemoteArm")
        self._robot, self.limits, self.features = robot, robot.limits, robot.features
        self.task, self._closed = robot.task_description, False

    def observe(self) -> State:
        """See the base class."""
        robot = self._robot
        (robot.observe_quietly if robot.held else robot.observe)()
        held = robot.held.reason if robot.held else None
        return State(robot.last, held, robot.door.sent, robot.door.velocity)

    def command(self, goal: Float64, observed: float) -> bool:
        """See the base class."""
        return self._robot.command(_words(self.limits, goal), observed)

    def tick(self) -> None:
        """See the base class."""
        self._robot.repeat_hold()
        self._robot.wait(self.limits.period)

    def rest(self) -> None:
        """See the base class."""
        self._robot.rest()

    def hold(self, reason: str) -> None:
        """See the base class."""
        self._robot.hold(reason)

    def release(self) -> bool:
        """See the base class."""
        return self._robot.release()

    def reset_scene(self, seed: int) -> bool:
        """See the base class."""
        return self._robot.reset_scene(seed)

    def inject(self, name: str, target: str = "") -> None:
        """See the base class."""
        self._robot.inject(name, target)

    def report(self) -> dict[str, Any]:
        """See the base class."""
        return self._robot.account.report()

    def close(self) -> None:
        """See the base class."""
        if not self._closed:
            self._closed = True
            self._robot.close()


class RemoteArm(Arm):
    """The rollout's end of the connection to the process that guards the robot.

    Args:
        link: connected to a `Driver`.
        hello: its first answer.
        limits: the robot's.
        process: that process, where it is ours to wait for.
    """

    def __init__(
        self,
        link: socket.socket,
        hello: Mapping[str, Any],
        limits: Limits,
        process: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self._link, self.limits, self.process = link, limits, process
        views = {k: (int(v[0]), int(v[1])) for k, v in hello["views"].items()}
        motors, numbers, truth = (tuple(hello[k]) for k in ("motors", "numbers", "truth"))
        self.features = Features(motors, numbers, truth, views)
        self.task, self.terminal = str(hello["task"]), bool(hello["terminal"])
        self.hurried = bool(hello["hurried"])
        self._due, self._typed, self._report, self.missed = 0.0, "", {}, 0

    def observe(self) -> State:
        """See the base class."""
        answer, frames = self._ask({"do": "observe"})
        typed, self._typed = self._typed, ""
        known = {k: np.array(answer[k], np.float64) for k in ("sent", "velocity")}
        reading = Reading(answer["values"], frames, answer["time"]) if answer["values"] else None
        return State(reading, answer["held"], **known, keys=typed, enabled=answer["enabled"])

    def command(self, goal: Float64, observed: float) -> bool:
        """See the base class."""
        words = _words(self.limits, goal)
        return self._ask({"do": "command", "goal": words, "observed": observed})[0]["sent_now"]

    def tick(self) -> None:
        """See the base class; sends heartbeats while waiting."""
        self._due += self.limits.period
        if self._due < time.monotonic():
            # The first tick after a rest starts the clock anew and is not late.
            self.missed += self._due > time.monotonic() - 10 * self.limits.period
            self._due = time.monotonic()
        while (left := self._due - time.monotonic()) > 0:
            time.sleep(min(left, self.limits.heartbeat / _BEATS))
            wire.send(self._link, {"do": "beat"})

    def rest(self) -> None:
        """See the base class."""
        self._ask({"do": "rest"})

    def hold(self, reason: str) -> None:
        """See the base class."""
        self._ask({"do": "hold", "reason": reason})

    def release(self) -> bool:
        """See the base class."""
        return self._ask({"do": "release"})[0]["released"]

    def reset_scene(self, seed: int) -> bool:
        """See the base class."""
        return self._ask({"do": "reset_scene", "seed": seed})[0]["done"]

    def inject(self, name: str, target: str = "") -> None:
        """See the base class."""
        self._ask({"do": "inject", "name": name, "target": target})

    def report(self) -> dict[str, Any]:
        """See the base class."""
        if self._link.fileno() >= 0:
            self._report = self._ask({"do": "report"})[0]["report"]
        return self._report

    def close(self) -> None:
        """See the base class."""
        if self._link.fileno() < 0:
            return
        with contextlib.suppress(EnvError):
            self._report = self._ask({"do": "close"})[0]["report"]
        self._link.close()
        if self.process is not None:
            try:
                self.process.wait(timeout=10.0)
            except subprocess.TimeoutExpired:
                self.process.kill()

    def _ask(self, message: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            wire.send(self._link, message)
            answer, frames = wire.receive(self._link, time.monotonic() + ANSWER)
        except TimeoutError as error:
            raise EnvError(
                f"the robot's own process has not answered for {ANSWER:g} s; the arm keeps its "
                "last command: use the emergency stop"
            ) from error
        self._typed += answer.get("keys", "")
        return answer, frames


def connect(
    config: Any,
    limits: Any,
    *,
    packages: tuple[str, ...] = (),
    dry_run: bool = False,
    deadman: bool = False,
    keys: bool = False,
    log: str = "",
) -> Arm:
    """Connect a robot through its door.

    Args:
        config: LeRobot's configuration of the robot.
        limits: content of a limits file.
        packages: modules that define the robot, see `lerobot_robots.register`.
        dry_run: judge everything, send nothing.
        deadman: the arm moves only while the dead-man key is held.
        keys: read the operator's keys from the terminal.
        log: file that the guarding process appends holds and releases to.

    Raises:
        ConfigError: the limits cannot be used, or are not this robot's.
        EnvError: the robot does not connect.
    """
    known = limits_from(limits)
    if not getattr(config, "realtime", True):
        robot = GuardedRobot(lerobot_robots.make_robot(config), known, dry_run=dry_run)
        robot.observe()
        return LocalArm(robot)
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", f"{__package__}.driver", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
        )
    greeting = {
        "robot": lerobot_robots.encode(config),
        "limits": limits,
        "packages": packages,
        "dry_run": dry_run,
        "deadman": deadman,
        "keys": keys,
        "log": log,
    }
    try:
        return greet(ours, greeting, known, process)
    except EnvError as error:
        process.kill()
        process.wait()
        raise EnvError(f"the robot '{config.type}' did not connect: {error}") from error


def greet(
    link: socket.socket,
    greeting: Mapping[str, Any],
    limits: Limits,
    process: subprocess.Popen[bytes] | None = None,
) -> RemoteArm:
    """Tell a guarding process which robot to connect. Raises EnvError where it cannot."""
    try:
        wire.send(link, greeting)
        hello, _ = wire.receive(link, time.monotonic() + STARTING)
    except TimeoutError as error:
        raise EnvError(f"it has not answered for {STARTING:g} s") from error
    if "error" in hello:
        raise EnvError(str(hello["error"]))
    return RemoteArm(link, hello, limits, process)


def _words(limits: Limits, goal: Float64) -> dict[str, float]:
    if len(goal) != len(limits.motors):
        return {"wrong number of motors": math.nan}
    return dict(zip(limits.motors, map(float, goal), strict=True))
