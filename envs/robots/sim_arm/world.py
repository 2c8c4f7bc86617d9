"""The arm's physics, its servos and its clock."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Float64

from ...rendering import load_mujoco
from .faults import ActiveFaults
from .scene import (
    MOTORS,
    NEAR,
    ON_MARK,
    PUCK,
    RANGES,
    TIMESTEP,
    place,
    scene_xml,
    to_motors,
    to_radians,
)

SERVO_SPEED = 150.0  # of the motors towards their goal [unit/s]
_TICK = 0.008  # of the wall clock's thread [s]
_REMEMBERED = 600  # snapshots, for latency
_KEPT = 5  # steps between two of them


@dataclass(frozen=True)
class Snapshot:
    """The world at one moment.

    Attributes:
        time: of the world's clock [s].
        motors: measured positions, Float64["n"] [unit].
        numbers: what a tracker sees of the task's things.
        truth: progress in [0, 1] and whether the task is done, as 0 or 1.
        qpos: all of MuJoCo's positions, to draw from.
        mocap: positions of its marks, Float64["m 3"].
    """

    time: float
    motors: Float64
    numbers: Float64
    truth: tuple[float, float]
    qpos: Float64
    mocap: Float64


class World:
    """One scene that goes on whether or not anybody commands it.

    Args:
        task: of `scene.TASKS`.
        faults: what is broken.
        latency: delay of commands and of observations [s].
        realtime: follow the wall clock; otherwise time passes in `wait` only.
    """

    def __init__(self, task: str, faults: ActiveFaults, *, latency: float, realtime: bool) -> None:
        self.task, self.faults, self._latency, self.realtime = task, faults, latency, realtime
        self.model: Any = load_mujoco().MjModel.from_xml_string(scene_xml(task))
        self.data: Any = load_mujoco().MjData(self.model)
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._pending: deque[tuple[float, Float64]] = deque()
        self._past: deque[Snapshot] = deque(maxlen=_REMEMBERED)
        self._time = self._started = time.monotonic() if realtime else 0.0
        self.on_change: Callable[[Snapshot], None] | None = None
        self.reset(0)

    def now(self) -> float:
        """Return the time of the world's clock [s]; the system's monotonic one where realtime."""
        return time.monotonic() if self.realtime else self._time

    def start(self) -> None:
        """Let time pass by itself, where realtime."""
        if self.realtime and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="er-sim-arm", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None

    def reset(self, seed: int) -> None:
        """Mend all faults, put the arm home and the task's things somewhere else."""
        with self._lock:
            self.faults.mend()
            self._pending.clear()
            place(self.task, self.model, self.data, np.random.default_rng(seed))
            self._goal = self._profile = to_motors(self.data.qpos[:6])
            self._first = self._left()
            self._past.clear()
            self._remember()

    def command(self, goal: Float64) -> None:
        """Tell the motors where to go; arrives after the latency, or never, or twice."""
        with self._lock:
            if self.faults.lost():
                return
            goal = np.clip(goal, *np.array(RANGES, np.float64).T)
            self._pending.append((self.now() + self._latency, goal))
            if self.faults.repeated():
                self._pending.append((self.now() + self._latency + 3 * TIMESTEP, self._goal))

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        if self.realtime:
            time.sleep(seconds)
            return
        with self._lock:
            self._advance(self._time + seconds)

    def seen(self) -> Snapshot:
        """Return the newest snapshot that has arrived, the latency old."""
        with self._lock:
            if not self._latency:
                return self._past[-1]
            until = self.now() - self._latency
            return next((s for s in reversed(self._past) if s.time <= until), self._past[0])

    def speed(self) -> float:
        """Return how fast the fastest joint turns right now [deg/s]."""
        with self._lock:
            return float(np.rad2deg(np.abs(self.data.qvel[:5]).max()))

    def _run(self) -> None:
        while not self._stop.wait(_TICK):
            with self._lock:
                # What was missed for longer than this is lost: the arm was not powered, so to say.
                self._time = max(self._time, time.monotonic() - 0.25)
                self._advance(time.monotonic())

    def _advance(self, until: float) -> None:
        self.faults.advance(until - self._started)
        steps = round((until - self._time) / TIMESTEP)
        for step in range(steps):
            if self._latency and step % _KEPT == 0:
                self._remember()  # what was seen between two decisions arrives late, one by one
            self._time += TIMESTEP
            while self._pending and self._pending[0][0] <= self._time:
                self._goal = self._pending.popleft()[1]
            self._servo()
        if steps:
            self._remember()

    def _servo(self) -> None:
        if self.faults.hits("protective_stop"):
            self.data.ctrl[:] = self.data.qpos[:6]
        else:
            step = SERVO_SPEED * TIMESTEP
            self._profile = self._profile + np.clip(self._goal - self._profile, -step, step)
            self.data.ctrl[:] = to_radians(self._profile)
        stuck = [i for i, m in enumerate(MOTORS) if self.faults.hits("stuck_motor", m)]
        before = self.data.qpos[stuck].copy()
        load_mujoco().mj_step(self.model, self.data)
        if stuck:
            self.data.qpos[stuck], self.data.qvel[stuck] = before, 0.0

    def _remember(self) -> None:
        load_mujoco().mj_kinematics(self.model, self.data)
        left = self._left()
        done = left[-1] <= 0.0
        share = 1.0 - left / np.maximum(self._first, 1e-6)
        snapshot = Snapshot(
            time=self._time,
            motors=to_motors(self.data.qpos[:6]),
            numbers=self._numbers(),
            truth=(1.0 if done else float(np.clip(share, 0.0, 1.0).mean()), float(done)),
            qpos=self.data.qpos.copy(),
            mocap=self.data.mocap_pos.copy(),
        )
        self._past.append(snapshot)
        if self.on_change:
            self.on_change(snapshot)

    def _left(self) -> Float64:
        """Return what is left to do, one length per part [m]; the last is 0 when done."""
        tip, mark = self.data.site("tip").xpos, self.data.mocap_pos[0]
        if self.task == "reach":
            return np.maximum([np.linalg.norm(tip - mark) - NEAR], 0.0)
        puck = self.data.qpos[6:9]
        reach = np.linalg.norm(tip - puck) - 1.5 * PUCK
        return np.maximum([reach, np.linalg.norm(puck[:2] - mark[:2]) - ON_MARK], 0.0)

    def _numbers(self) -> Float64:
        if self.task == "reach":
            return self.data.mocap_pos[0].copy()
        return np.array([*self.data.qpos[6:8], *self.data.mocap_pos[0, :2]])
