"""What a robot may be told: read from a file a person wrote, and checked before anything moves.

    rate_hz: 10
    observation_age_s: 0.25
    heartbeat_s: 0.1
    motors:
      shoulder_pan.pos: {low: -80, high: 80, velocity: 60, acceleration: 400, lead: 15, home: 0}
    workspace:                    # or `workspace: none`, in so many words
      low: [0.1, -0.2, 0.005]
      high: [0.35, 0.2, 0.3]
      speed: 0.5
      rotation: {reference: [1, 0, 0, 0], angle: 120, speed: 180}
      tool: [0.1, 0, 0]
      chain:
        - {motor: shoulder_pan.pos, offset: [0, 0, 0.05], axis: [0, 0, 1], scale: 0.0174533}

Nothing has a default: a bound that nobody chose is a bound that never engages.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.types import Float64

from .kinematics import Link, SerialChain, matrix_of

MAX_HEARTBEAT = 0.1  # [s]
MAX_PERIODS = 1.5  # heartbeats in control periods: a hold must follow within two
_MOTOR = ("low", "high", "velocity", "acceleration", "lead", "home")
_TOP = ("rate_hz", "observation_age_s", "heartbeat_s", "motors", "workspace")


@dataclass(frozen=True)
class Workspace:
    """Where the tool may be, how it may be turned, and how fast it may go.

    Attributes:
        chain: the arm's kinematics.
        low: lower corner of the box in the base's frame, Float64[3] [m].
        high: upper corner [m].
        speed: of the tool's point [m/s].
        reference: orientation around which the tool may turn, Float64["3 3"].
        angle: by how much, as one rotation about any axis [rad].
        turning: how fast it may turn [rad/s].
    """

    chain: SerialChain
    low: Float64
    high: Float64
    speed: float
    reference: Float64
    angle: float
    turning: float


@dataclass(frozen=True)
class Limits:
    """All limits of one robot; make one with `limits_from`.

    Attributes:
        motors: names of the action's components, in the order of every vector here.
        low: lowest position, Float64["n"] [unit].
        high: highest position [unit].
        velocity: largest change of the command per second [unit/s].
        acceleration: largest change of that per second [unit/s^2].
        lead: how far a command may be ahead of the measured position [unit].
        home: where episodes begin [unit].
        rate: commands per second [Hz].
        observation_age: of what a command was computed from [s].
        heartbeat: silence after which the robot is held [s].
        workspace: None where the file says `none`.
    """

    motors: tuple[str, ...]
    low: Float64
    high: Float64
    velocity: Float64
    acceleration: Float64
    lead: Float64
    home: Float64
    rate: float
    observation_age: float
    heartbeat: float
    workspace: Workspace | None

    @cached_property
    def period(self) -> float:
        """Time between two commands [s]."""
        return 1.0 / self.rate

    def check_motors(self, names: Sequence[str]) -> None:
        """Raise ConfigError unless the limits are those of a robot with these action features."""
        missing = sorted(set(names) - set(self.motors))
        extra = sorted(set(self.motors) - set(names))
        if missing or extra:
            raise ConfigError(
                f"the limits must name every motor of the robot, {list(names)}, and no other; "
                f"missing: {missing or 'none'}, not of this robot: {extra or 'none'}"
            )


def limits_from(tree: Any, source: str = "the limits") -> Limits:
    """Check a file's content and return the limits.

    Args:
        tree: what the file holds.
        source: its name, for messages.

    Raises:
        ConfigError: something is missing, unknown, not finite or contradicts itself.
    """
    top = _mapping(tree, _TOP, source)
    rate = _positive(top["rate_hz"], f"{source}: rate_hz")
    heartbeat = _positive(top["heartbeat_s"], f"{source}: heartbeat_s")
    longest = min(MAX_HEARTBEAT, MAX_PERIODS / rate)
    if heartbeat > longest:
        raise ConfigError(
            f"{source}: heartbeat_s must be at most {longest:g} s ({MAX_HEARTBEAT} s, and "
            f"{MAX_PERIODS} periods of {rate:g} Hz), got {heartbeat:g}"
        )
    if not isinstance(top["motors"], Mapping) or not top["motors"]:
        raise ConfigError(f"{source}: motors must map every motor's name to its limits")
    names = tuple(map(str, top["motors"]))
    rows = [_motor(top["motors"][n], f"{source}: motors: {n}") for n in top["motors"]]
    columns = {key: np.array([row[key] for row in rows]) for key in _MOTOR}
    return Limits(
        motors=names,
        rate=rate,
        observation_age=_positive(top["observation_age_s"], f"{source}: observation_age_s"),
        heartbeat=heartbeat,
        workspace=_workspace(top["workspace"], names, f"{source}: workspace"),
        **columns,
    )


def _motor(tree: Any, where: str) -> dict[str, float]:
    row = _mapping(tree, _MOTOR, where)
    out = {key: _number(row[key], f"{where}: {key}") for key in _MOTOR}
    for key in ("velocity", "acceleration", "lead"):
        _positive(out[key], f"{where}: {key}")
    if not out["low"] < out["high"]:
        raise ConfigError(f"{where}: low {out['low']:g} must lie below high {out['high']:g}")
    if not out["low"] <= out["home"] <= out["high"]:
        raise ConfigError(f"{where}: home {out['home']:g} lies outside [low, high]")
    return out


def _workspace(tree: Any, motors: tuple[str, ...], where: str) -> Workspace | None:
    if tree == "none":
        return None
    top = _mapping(tree, ("low", "high", "speed", "rotation", "tool", "chain"), where)
    low, high = (np.array(_vector(top[k], 3, f"{where}: {k}")) for k in ("low", "high"))
    if not (low < high).all():
        raise ConfigError(f"{where}: low {low.tolist()} must lie below high {high.tolist()}")
    turn = _mapping(top["rotation"], ("reference", "angle", "speed"), f"{where}: rotation")
    quaternion = _unit(turn["reference"], 4, f"{where}: rotation: reference")
    angle = _positive(turn["angle"], f"{where}: rotation: angle")
    if angle > 180:
        raise ConfigError(f"{where}: rotation: angle is at most 180 degrees, got {angle:g}")
    if not isinstance(top["chain"], list) or not top["chain"]:
        raise ConfigError(f"{where}: chain must list the joints from the base outwards")
    links = [_link(row, motors, f"{where}: chain {i}") for i, row in enumerate(top["chain"])]
    return Workspace(
        chain=SerialChain(tuple(links), _vector(top["tool"], 3, f"{where}: tool")),
        low=low,
        high=high,
        speed=_positive(top["speed"], f"{where}: speed"),
        reference=matrix_of(quaternion),
        angle=math.radians(angle),
        turning=math.radians(_positive(turn["speed"], f"{where}: rotation: speed")),
    )


def _link(tree: Any, motors: tuple[str, ...], where: str) -> Link:
    zero = {"zero": 0.0} if isinstance(tree, Mapping) and "zero" not in tree else {}
    keys = ("motor", "offset", "axis", "scale", "zero")
    row = _mapping({**tree, **zero} if isinstance(tree, Mapping) else tree, keys, where)
    if row["motor"] not in motors:
        raise ConfigError(
            f"{where}: unknown motor '{row['motor']}'; {did_you_mean(str(row['motor']), motors)}"
        )
    scale = _number(row["scale"], f"{where}: scale")
    if scale == 0:
        raise ConfigError(f"{where}: scale must not be zero [rad per unit of the motor]")
    return Link(
        motor=motors.index(row["motor"]),
        offset=_vector(row["offset"], 3, f"{where}: offset"),
        axis=_unit(row["axis"], 3, f"{where}: axis"),
        scale=scale,
        zero=_number(row["zero"], f"{where}: zero"),
    )


def _mapping(tree: Any, keys: Sequence[str], where: str) -> Mapping[str, Any]:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where} must be a mapping with {list(keys)}, got {tree!r}")
    for key in tree:
        if key not in keys:
            raise ConfigError(f"{where}: unknown key '{key}'; {did_you_mean(str(key), keys)}")
    missing = [key for key in keys if key not in tree]
    if missing:
        raise ConfigError(f"{where}: {missing} must be given; limits have no defaults")
    return tree


def _number(value: Any, where: str) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    # Commands are float32: a limit beyond its range would be one that nothing can exceed.
    if not good or not math.isfinite(value) or abs(value) > 1e30:
        raise ConfigError(f"{where} must be a finite number, got {value!r}")
    return float(value)


def _positive(value: Any, where: str) -> float:
    number = _number(value, where)
    if number <= 0:
        raise ConfigError(f"{where} must be positive, got {number:g}")
    return number


def _vector(value: Any, count: int, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple) or len(value) != count:
        raise ConfigError(f"{where} must be a list of {count} numbers, got {value!r}")
    return tuple(_number(v, where) for v in value)


def _unit(value: Any, count: int, where: str) -> tuple[Any, ...]:
    vector = _vector(value, count, where)
    length = math.sqrt(sum(v * v for v in vector))
    if not 0.5 < length < 2.0:
        raise ConfigError(f"{where} must have length 1, got {list(vector)}")
    return tuple(v / length for v in vector)
