"""The process that alone talks to the robot: it guards, watches, and holds when nobody is there.

The rollout (policy, reward model, learner, recorder) lives in another process and sends commands.
This one imports none of those and does nothing slow, so that it notices within a heartbeat when
the rollout is killed, stopped, hangs or is merely late, and holds the arm within two control
periods. Cameras are read in a thread of their own: a hanging one makes the observation old, which
holds the arm as well.
"""

import contextlib
import json
import math
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from embodied_reward.errors import EmbodiedRewardError
from embodied_reward.types import UInt8

from . import lerobot_robots, processes, wire
from .guarded import GuardedRobot
from .keys import DEADMAN, STOP, Keys
from .limits import limits_from

TICK = 0.005  # between two looks at the clock [s]
DEADMAN_S = 0.7  # a held key repeats; keyboards take up to this long to begin [s]
NOT_HELD = f"the dead-man key '{DEADMAN}' is not held"
STILL = 1.0  # joint speed below which a simulated arm is said to stand still [deg/s]
_LINGER = 0.5  # the hold is watched for so long after the rollout is gone [s]
_Reply = tuple[dict[str, Any], dict[str, UInt8]]


class SafetyLog:
    """What happened, one JSON object a line, written by the guard: it outlives the rollout.

    Args:
        path: of the file, which is appended to; empty writes nothing.
    """

    def __init__(self, path: str) -> None:
        self._file = Path(path).open("a", buffering=1) if path else None  # noqa: SIM115

    def write(self, event: str, **facts: Any) -> None:
        """Write one event with the monotonic time [s]; a full disk must not stop the guard."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                row = {"event": event, "monotonic": time.monotonic(), "at": time.time(), **facts}
                self._file.write(json.dumps(row) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Driver:
    """Serve one rollout.

    Args:
        robot: connected and guarded.
        link: to the rollout.
        keys: the operator's.
        deadman: whether the arm moves only while the dead-man key is held.
        log: of holds and releases.
    """

    def __init__(
        self,
        robot: GuardedRobot,
        link: socket.socket,
        keys: Keys | None,
        *,
        deadman: bool,
        log: SafetyLog,
    ) -> None:
        self._log, self._logged, self._moving = log, False, False
        self._robot, self._link, self._keys, self._deadman = robot, link, keys, deadman
        self._bus, self._stop = threading.RLock(), threading.Event()
        self._live, self._heard, self._commanded, self._held_d = False, 0.0, 0.0, -math.inf
        self._repeated, self._typed, self.open = 0.0, "", True
        self._do: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "observe": lambda message: {},
            "command": self._command,
            "rest": self._rest,
            "release": self._release,
            "reset_scene": self._reset,
            "hold": self._hold,
            "inject": self._inject,
            "report": lambda message: {"report": self._robot.account.report()},
            "close": self._close,
        }

    def run(self) -> None:
        """Serve until the rollout is gone, then watch the hold for a moment."""
        observer = threading.Thread(target=self._observe, name="er-observer", daemon=True)
        observer.start()
        sources = [self._link, *([self._keys.fd] if self._keys and self._keys.there else [])]
        try:
            while self.open:
                ready = select.select(sources, [], [], TICK)[0]
                if self._keys and self._keys.fd in ready:
                    self._take_keys(self._keys.pressed())
                if self._link in ready:
                    self._serve()
                self._watch(time.monotonic())
            self._link.close()
            until = time.monotonic() + _LINGER
            while time.monotonic() < until:
                self._watch(time.monotonic())
                time.sleep(TICK)
        finally:
            self._log.write("end", **self._robot.account.report())
            self._stop.set()
            observer.join(timeout=1.0)

    def _serve(self) -> None:
        try:
            message, _ = wire.receive(self._link, time.monotonic() + self._robot.limits.heartbeat)
            self._heard = time.monotonic()
            if message.get("do") == "beat":
                return
            answer, frames = self._answer(message)
            wire.send(self._link, answer, frames, patience=self._robot.limits.heartbeat)
        except (wire.ClosedError, TimeoutError) as error:
            self.open = False
            with self._taking_turns():
                self._robot.hold(f"the rollout is gone: {error}")
            self._live = False

    def _answer(self, message: dict[str, Any]) -> _Reply:
        with self._taking_turns():
            extra = self._do[str(message.get("do"))](message)
            return self._state() | extra, self._frames(message)

    def _state(self) -> dict[str, Any]:
        robot, reading, held = self._robot, self._robot.last, self._robot.held
        typed, self._typed = self._typed, ""
        return {
            "held": held.reason if held else None,
            "values": dict(reading.values) if reading else {},
            "time": reading.time if reading else -math.inf,
            "sent": robot.door.sent.tolist(),
            "velocity": robot.door.velocity.tolist(),
            "keys": typed,
            "enabled": self._enabled(time.monotonic()),
        }

    def _frames(self, message: dict[str, Any]) -> dict[str, UInt8]:
        reading = self._robot.last
        return dict(reading.frames) if reading and message["do"] == "observe" else {}

    def _command(self, message: dict[str, Any]) -> dict[str, Any]:
        self._commanded = time.monotonic()
        if not self._enabled(self._commanded):
            self._robot.hold(NOT_HELD)
        sent = self._robot.command(message["goal"], float(message["observed"]))
        if sent and not self._live:
            self._log.write("go")
        self._live = sent
        return {"sent_now": sent}

    def _rest(self, message: dict[str, Any]) -> dict[str, Any]:
        self._robot.rest()
        if self._live:
            self._log.write("rest")
        self._live = False
        return {}

    def _release(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"released": self._robot.release()}

    def _reset(self, message: dict[str, Any]) -> dict[str, Any]:
        self._live = False
        done = self._robot.reset_scene(int(message["seed"]))
        if done:
            self._robot.observe()
        return {"done": done}

    def _hold(self, message: dict[str, Any]) -> dict[str, Any]:
        self._live = False
        self._robot.hold(str(message["reason"]))
        return {}

    def _inject(self, message: dict[str, Any]) -> dict[str, Any]:
        self._robot.inject(str(message["name"]), str(message["target"]))
        return {}

    def _close(self, message: dict[str, Any]) -> dict[str, Any]:
        self.open = self._live = False
        self._robot.hold("closed")
        return {"report": self._robot.account.report()}

    def _take_keys(self, typed: str) -> None:
        if any(key in STOP for key in typed):
            self._live = False
            with self._taking_turns():
                self._robot.hold("the stop key was pressed")
        if DEADMAN in typed:
            self._held_d = time.monotonic()
        # A dead-man key is held, not typed; as often as it repeats it would flood the rollout.
        self._typed += "".join(k for k in typed if k not in STOP and k != DEADMAN)

    def _watch(self, now: float) -> None:
        """Hold where something that has to come did not come; tell a held arm again."""
        if self._live and (reason := self._overdue(now)):
            self._live = False
            with self._taking_turns():
                self._robot.hold(reason)
        self._note()
        if self._robot.held and now - self._repeated > self._robot.limits.period:
            self._repeated = now
            with self._taking_turns():
                self._robot.repeat_hold()

    def _note(self) -> None:
        """Log a hold when it begins and ends, and when a simulated arm has come to rest."""
        held = self._robot.held
        if held and not self._logged:
            self._log.write("hold", check=held.check.name, reason=held.reason)
        elif self._logged and not held:
            self._log.write("release")
        if held and self._moving and self._robot.measure_speed() < STILL:
            self._log.write("still")
        self._logged = held is not None
        self._moving = held is None or (self._moving and self._robot.measure_speed() >= STILL)

    def _overdue(self, now: float) -> str:
        limits, reading = self._robot.limits, self._robot.last
        if now - self._heard > limits.heartbeat:
            return (
                f"no sign of life from the rollout for {now - self._heard:.2f} s: policy, reward "
                "model or learner is stopped or too slow"
            )
        if now - self._commanded > 2 * limits.period:
            return f"no command for {now - self._commanded:.2f} s"
        age = math.inf if reading is None else self._robot.now() - reading.time
        if age > limits.observation_age:
            return f"the newest observation is {age:.2f} s old: a camera or an encoder is silent"
        return "" if self._enabled(now) else NOT_HELD

    def _enabled(self, now: float) -> bool:
        return not self._deadman or now - self._held_d <= DEADMAN_S

    def _observe(self) -> None:
        """Read the robot again and again; may hang in a camera without hanging anything else."""
        pause = min(self._robot.limits.period / 2, 0.05)
        while not self._stop.wait(pause):
            with self._bus:
                if self._robot.held:
                    self._robot.observe_quietly()
                else:
                    self._robot.observe()

    @contextlib.contextmanager
    def _taking_turns(self) -> Iterator[None]:
        """Take turns with the observer; a hanging one must not keep a hold from being sent."""
        got = self._bus.acquire(timeout=self._robot.limits.heartbeat / 4)
        try:
            yield
        finally:
            if got:
                self._bus.release()


def serve(link: socket.socket) -> None:
    """Build the robot that the first message describes, and serve."""
    message, _ = wire.receive(link, time.monotonic() + 60.0)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the rollout ends by itself; that is noticed here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through `close`, which holds
    keys: Keys | None = None
    log = SafetyLog(message["log"])
    try:
        limits = limits_from(message["limits"])
        config = lerobot_robots.decode(message["robot"], tuple(message["packages"]))
        robot = GuardedRobot(lerobot_robots.make_robot(config), limits, dry_run=message["dry_run"])
    except Exception as error:  # noqa: BLE001 (drivers raise anything; the rollout shows it)
        plain = isinstance(error, EmbodiedRewardError)
        wire.send(link, {"error": str(error) if plain else f"{type(error).__name__}: {error}"})
        return
    try:
        keys = Keys() if message["keys"] else None
        robot.observe()
        hurried = processes.hurry()
        features = vars(robot.features) | {"task": robot.task_description, "hurried": hurried}
        wire.send(link, {**features, "terminal": bool(keys and keys.there)})
        log.write("start", robot=message["robot"]["type"], real_time_priority=hurried)
        Driver(robot, link, keys, deadman=message["deadman"], log=log).run()
    finally:
        if keys:
            keys.close()
        robot.close()
        log.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
