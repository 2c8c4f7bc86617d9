"""The only door to a robot: every command is judged, and what fails any check is never sent.

A command is rounded to float32 first, as it will be sent, and judged in float64 after that. The
checks run in the order of `Check`; the first that fails holds the robot where it is, and the
hold stays latched until a person (or an unattended run's own rule) releases it.

This is the software side only. It replaces neither the controller's own limits nor an emergency
stop that works without any software.
"""

import enum
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from embodied_reward.types import Bool, Float32, Float64, Int64

from .kinematics import geodesic_angle
from .limits import Limits, Workspace

EARLY = 0.5  # of a period that a command may come early, once; not on average
_STALE = 2.0  # periods without a command after which the arm is taken to stand still


class Check(enum.IntEnum):
    """What can be wrong with a command, in the order in which it is looked for."""

    PASSED = 0
    FINITE = 1
    SHAPE = 2
    POSITION = 3
    VELOCITY = 4
    ACCELERATION = 5
    WORKSPACE = 6
    CHANGE = 7
    AGE = 8


@dataclass(frozen=True)
class Violation:
    """Why the robot is held.

    Attributes:
        check: the check that failed; PASSED where the cause is no command (a key, a lost
            heartbeat, an error of the robot).
        reason: one line for the operator.
        time: of the door's clock [s].
    """

    check: Check
    reason: str
    time: float


@dataclass
class Account:
    """What passed the door, and what did not."""

    passed: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    holds: list[Violation] = field(default_factory=list)

    def report(self) -> dict[str, object]:
        """Return JSON types."""
        events = [{"time": v.time, "check": v.check.name, "reason": v.reason} for v in self.holds]
        return {"commands_sent": self.passed, "refused": dict(self.refused), "holds": events}


def judge(
    command: Float64,
    limits: Limits,
    *,
    previous: Float64,
    velocity: Float64,
    measured: Float64,
    early: Bool,
    age: Float64,
) -> Int64:
    """Return the first check that each of b commands fails, Int64["b"]; 0 where it passes.

    Args:
        command: Float64["b n"], already rounded to float32.
        limits: the robot's.
        previous: Float64["b n"], what was sent before [unit].
        velocity: Float64["b n"], change per second of what was sent before [unit/s].
        measured: Float64["b n"], the newest measured position [unit].
        early: Bool["b"], commands come faster than the control rate.
        age: Float64["b"], of the observation that the command was computed from [s].
    """
    with np.errstate(invalid="ignore", over="ignore"):
        speed = (command - previous) / limits.period
        # Written so that a NaN fails: not (good) instead of (bad).
        failed = {
            Check.FINITE: ~np.isfinite(np.concatenate([command, measured], axis=1)).all(axis=1),
            Check.POSITION: ~((command >= limits.low) & (command <= limits.high)).all(axis=1),
            Check.VELOCITY: ~(np.abs(speed) <= limits.velocity).all(axis=1),
            Check.ACCELERATION: ~(
                np.abs(speed - velocity) <= limits.acceleration * limits.period
            ).all(axis=1),
            Check.CHANGE: early | ~(np.abs(command - measured) <= limits.lead).all(axis=1),
            Check.AGE: ~((age >= 0) & (age <= limits.observation_age)),
        }
        if limits.workspace is not None:
            outside, fast = _tool(command, previous, limits.workspace, limits.period)
            failed[Check.WORKSPACE] = outside
            failed[Check.CHANGE] |= fast
    verdict = np.zeros(len(command), np.int64)
    for check in sorted(failed, reverse=True):
        verdict[failed[check]] = check
    return verdict


def _tool(
    command: Float64, previous: Float64, workspace: Workspace, period: float
) -> tuple[Bool, Bool]:
    """Return whether the tool is outside, and whether it moves or turns too fast, Bool["b"]."""
    place, turn = workspace.chain.forward(command)
    before, facing = workspace.chain.forward(previous)
    inside = ((place >= workspace.low) & (place <= workspace.high)).all(axis=1)
    inside &= geodesic_angle(workspace.reference, turn) <= workspace.angle
    slow = np.linalg.norm(place - before, axis=1) <= workspace.speed * period
    slow &= geodesic_angle(facing, turn) <= workspace.turning * period
    return ~inside, ~slow


def inside_float32(values: Float64, low: Float64, high: Float64) -> Float32:
    """Return `values` clipped to [low, high] as float32 numbers that lie inside it themselves."""
    rounded = np.clip(values, low, high).astype(np.float32)
    above, below = rounded.astype(np.float64) > high, rounded.astype(np.float64) < low
    rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
    rounded[below] = np.nextafter(rounded[below], np.float32(np.inf))
    return rounded


class SafetyDoor:
    """Judge the commands of one robot one after the other, and remember what was sent.

    Args:
        limits: the robot's; there is no door without them.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.account = limits, Account()
        self.latched: Violation | None = None
        count = len(limits.motors)
        self._sent = np.full(count, np.nan)
        self._velocity = np.zeros(count)
        self._measured, self._slot = np.full(count, np.nan), -math.inf

    @property
    def sent(self) -> Float64:
        """What the robot was told last, Float64["n"] [unit]; NaN before the first observation."""
        return self._sent.copy()

    @property
    def velocity(self) -> Float64:
        """Change per second of what was sent, Float64["n"] [unit/s]."""
        return self._velocity.copy()

    def observe(self, measured: Float64) -> None:
        """Take the newest measured position; the first one counts as what was sent."""
        self._measured = np.asarray(measured, np.float64).copy()
        if np.isnan(self._sent).any() and np.isfinite(self._measured).all():
            self._sent = self._within(self._measured).astype(np.float64)

    def admit(self, command: Mapping[str, float], *, now: float, observed: float) -> Float32 | None:
        """Return what to send, Float32["n"], or None: then the door is latched, see `latched`.

        Args:
            command: motor -> position [unit].
            now: of a monotonic clock [s].
            observed: when the observation was made that the command was computed from [s].
        """
        if self.latched is not None:
            self.account.refused["LATCHED"] += 1
            return None
        if now - self._slot > _STALE * self.limits.period:
            self._velocity[:] = 0.0
        goal, problem = self._rounded(command)
        if problem:
            self.latch(problem[1], now, check=problem[0])
            return None
        slot = max(self._slot + self.limits.period, now - EARLY * self.limits.period)
        verdict = Check(self._judge(goal, slot > now + EARLY * self.limits.period, now - observed))
        if verdict:
            self.latch(self._reason(verdict, goal, now - observed), now, check=verdict)
            return None
        self._velocity = (goal - self._sent) / self.limits.period
        self._sent, self._slot = goal, slot
        self.account.passed += 1
        return goal.astype(np.float32)

    def latch(self, reason: str, now: float, *, check: Check = Check.PASSED) -> None:
        """Refuse all commands from now on; the first reason stays."""
        if check:
            self.account.refused[check.name] += 1
        if self.latched is None:
            self.latched = Violation(check, reason, now)
            self.account.holds.append(self.latched)

    def resting(self, *, fresh: bool = True) -> Float32:
        """Return where to hold, Float32["n"], and take it as sent.

        The measured position, where the arm's motors then stop; what was sent before where the
        encoders say nothing.

        Args:
            fresh: the measured position is of this period. An older one lies behind the arm,
                which would turn round for it.
        """
        known = np.isfinite(self._measured) & fresh
        target = np.where(known, self._measured, self._sent)
        target = np.where(np.isfinite(target), target, self.limits.home)
        held = self._within(target)
        self._sent, self._velocity[:] = held.astype(np.float64), 0.0
        return held

    def release(self) -> None:
        """Let commands pass again."""
        self.latched = None

    def _within(self, values: Float64) -> Float32:
        return inside_float32(values, self.limits.low, self.limits.high)

    def _rounded(self, command: Mapping[str, float]) -> tuple[Float64, tuple[Check, str] | None]:
        """Return the command as it would be sent, and what makes it no command at all."""
        nothing, motors = np.zeros(0), self.limits.motors
        try:
            values = {str(k): float(v) for k, v in command.items()}
        except (TypeError, ValueError, OverflowError, AttributeError):
            return nothing, (Check.SHAPE, f"not one number per motor: {command!r:.80}")
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused here
            rounded = {k: float(np.float32(v)) for k, v in values.items()}
        bad = [k for k, v in rounded.items() if not math.isfinite(v)]
        if bad:
            return nothing, (Check.FINITE, f"'{bad[0]}' was told {values[bad[0]]}")
        if set(values) != set(motors):
            return nothing, (Check.SHAPE, f"the command names {sorted(values)}, not {motors}")
        return np.array([rounded[m] for m in motors]), None

    def _judge(self, goal: Float64, early: bool, age: float) -> int:
        return judge(
            goal[None],
            self.limits,
            previous=self._sent[None],
            velocity=self._velocity[None],
            measured=self._measured[None],
            early=np.array([early]),
            age=np.array([age]),
        )[0]

    def _reason(self, check: Check, goal: Float64, age: float) -> str:
        limits = self.limits
        speed = np.abs(goal - self._sent) / limits.period
        change = np.abs((goal - self._sent) / limits.period - self._velocity) / limits.period
        beyond = np.maximum(limits.low - goal, goal - limits.high)
        lead = np.abs(goal - self._measured)
        per_motor = {
            Check.FINITE: (-np.isfinite(self._measured).astype(float), "measured", self._measured),
            Check.POSITION: (beyond, "position", goal),
            Check.VELOCITY: (speed / limits.velocity, "velocity", speed),
            Check.ACCELERATION: (change / limits.acceleration, "acceleration", change),
            Check.CHANGE: (lead / limits.lead, "ahead of the arm by", lead),
        }
        if check is Check.AGE:
            return f"the observation is {age:.3f} s old, allowed: {limits.observation_age:g} s"
        if check is Check.WORKSPACE:
            return "the tool would leave its workspace"
        ratio, word, value = per_motor[check]
        if check is Check.CHANGE and not (ratio > 1).any():
            return "the tool would move or turn too fast, or commands come too fast"
        worst = int(np.nanargmax(np.where(np.isnan(ratio), np.inf, ratio)))
        return f"'{limits.motors[worst]}': {word} {value[worst]:.4g} is over its limit"
