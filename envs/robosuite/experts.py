"""Scripted experts of robosuite tasks: moves of the hand, one after the other, from what is seen.

A move leads the hand to a place that is computed anew from every observation, so that a thing that
slips or is pushed is followed. Where a thing is lost on its way, the script begins again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from embodied_reward.types import Float32, Float64

Seen = Mapping[str, Float64]  # robosuite's names of sensors
Where = Callable[[Seen], Float64]  # a place [m], x, y, z

OPEN, CLOSED = -1.0, 1.0
_STEP, _TURN = 0.05, 0.5  # what one unit of an action asks for [m], [rad]
# Share of what is left that one decision asks for: at most so much, and so much per Hz, since an
# action is repeated until the next decision.
_GAIN, _TURN_GAIN, _PER_HZ = 1.6, 0.8, 0.1
_PATIENCE_S = 6.0  # then a script begins again


@dataclass(frozen=True)
class Move:
    """One move of a script.

    Attributes:
        to: where the hand goes.
        grip: the fingers' action on the way.
        near: distance at which the move is over [m].
        seconds: the least it takes [s].
        slow: the largest displacement per step, in units of the action.
        keeps: whether what is held must still be in the hand.
        over: says that the move is over, instead of `near`.
    """

    to: Where
    grip: float = OPEN
    near: float = 0.01
    seconds: float = 0.0
    slow: float = 1.0
    keeps: bool = False
    over: Callable[[Seen], bool] | None = None

    def arrived(self, seen: Seen) -> bool:
        """Return whether the hand is where this move leads it."""
        return self.over(seen) if self.over else _gap(seen, self.to(seen)) < self.near


@dataclass(frozen=True)
class Script:
    """An expert's moves.

    Attributes:
        moves: one after the other; the last one goes on for ever.
        held: place of what is held, which has to stay within `grasp` of the hand.
        yaw: how the hand should be turned about the vertical [rad], up to `symmetry`.
        symmetry: turns that are alike [rad].
        lean: turn about the hand's own x axis, away from pointing straight down [rad].
        grasp: see `held` [m].
    """

    moves: Sequence[Move]
    held: Where
    yaw: Callable[[Seen], float] = lambda _: 0.0
    symmetry: float = np.pi / 2
    lean: float = 0.0
    grasp: float = 0.04


class Expert:
    """Plays a script; build a new one for every episode.

    Args:
        script: what to do.
        rate: decisions per second [Hz].
        turns: whether actions have a rotation.
    """

    def __init__(self, script: Script, rate: float, turns: bool) -> None:
        self._script, self._rate, self._turns = script, rate, turns
        self._at, self._spent = 0, 0

    def __call__(self, seen: Seen) -> Float32:
        """Return the next action."""
        move = self._move(seen)
        self._spent += 1
        hand = seen["robot0_eef_pos"]
        calm = min(1.0, _PER_HZ * self._rate)
        go = calm * _GAIN * (move.to(seen) - hand) / _STEP
        go *= min(1.0, move.slow / max(float(np.abs(go).max()), 1e-9))
        turn = calm * _TURN_GAIN * self._turn(seen) / _TURN if self._turns else np.zeros(0)
        return np.clip([*go, *turn, move.grip], -1.0, 1.0).astype(np.float32)

    def _move(self, seen: Seen) -> Move:
        moves = self._script.moves
        move, seconds = moves[self._at], self._spent / self._rate
        lost = move.keeps and _gap(seen, self._script.held(seen)) > self._script.grasp
        last = self._at == len(moves) - 1
        if lost or (seconds > _PATIENCE_S and not last):
            self._at, self._spent = 0, 0
        elif not last and seconds >= move.seconds and move.arrived(seen):
            self._at, self._spent = self._at + 1, 0
        return moves[self._at]

    def _turn(self, seen: Seen) -> Float64:
        """Return the rotation vector to a hand that points down, turned as the script wants."""
        now = Rotation.from_quat(seen["robot0_eef_quat"])
        x = now.as_matrix()[:, 0]
        yaw, symmetry = np.arctan2(x[1], x[0]), self._script.symmetry
        off = self._script.yaw(seen) - yaw
        wanted = yaw + off - symmetry * np.round(off / symmetry)
        down = Rotation.from_euler("ZX", [wanted, self._script.lean + np.pi])
        return (down * now.inv()).as_rotvec()


def _gap(seen: Seen, place: Float64) -> float:
    return float(np.linalg.norm(seen["robot0_eef_pos"] - place))


def _above(where: Where, height: float) -> Where:
    return lambda seen: where(seen) + [0.0, 0.0, height]


def _here(seen: Seen) -> Float64:
    return seen["robot0_eef_pos"]


def _yaw_of(key: str) -> Callable[[Seen], float]:
    """Return how a thing is turned about the vertical [rad]."""

    def yaw(seen: Seen) -> float:
        x = Rotation.from_quat(seen[key]).as_matrix()[:, 0]
        return float(np.arctan2(x[1], x[0]))

    return yaw


def _grasp(where: Where) -> list[Move]:
    return [
        Move(_above(where, 0.08), near=0.02),
        Move(where, near=0.008, slow=0.6),
        Move(where, CLOSED, near=0.02, seconds=0.4, slow=0.3),
    ]


def _carry(held: Where, goal: Where) -> Where:
    """Return where the hand goes so that what it holds comes to `goal`."""
    return lambda seen: seen["robot0_eef_pos"] + goal(seen) - held(seen)


def _sensor(key: str) -> Where:
    return lambda seen: seen[key]


def _raised(where: Where, height: Callable[[Seen], float]) -> Where:
    """Return the same place at another height [m]."""
    return lambda seen: np.array([*where(seen)[:2], height(seen)])


def _put(held: Where, goal: Where, clear: float, *, drop: float = 0.0) -> list[Move]:
    """Return moves that carry what is held over `goal`, `clear` above it, down, and let it go."""
    high = _raised(held, lambda seen: float(goal(seen)[2]) + clear)
    return [
        Move(_carry(held, high), CLOSED, near=0.02, keeps=True),
        Move(_carry(held, _above(goal, clear)), CLOSED, near=0.01, keeps=True),
        Move(_carry(held, _above(goal, drop)), CLOSED, near=0.006, slow=0.4, keeps=True),
        Move(_here, OPEN, near=0.05, seconds=0.3),
        Move(_above(_here, 0.05), OPEN, seconds=1.5),
        Move(_above(_here, 0.05), OPEN),
    ]


def _lift() -> Script:
    cube = _sensor("cube_pos")
    up = Move(_above(_here, 0.05), CLOSED, keeps=True)
    return Script([*_grasp(cube), up], cube, _yaw_of("cube_quat"))


def _stack() -> Script:
    red, green = _sensor("cubeA_pos"), _sensor("cubeB_pos")
    put = _put(red, _above(green, 0.047), clear=0.06)
    return Script([*_grasp(red), *put], red, _yaw_of("cubeA_quat"))


def _door() -> Script:
    def hold(seen: Seen) -> Float64:
        """Return a point of the handle nearer to its pivot than the end that is observed."""
        angle = float(seen["handle_qpos"][0])
        return seen["handle_pos"] + _INWARDS * np.array([np.cos(angle), 0.0, np.sin(angle)])

    def turned(seen: Seen) -> Float64:
        angle = float(seen["handle_qpos"][0])
        left = np.clip(_TURNED - angle, 0.0, 0.7)
        return hold(seen) + 0.1 * left * np.array([np.sin(angle), 0.0, -np.cos(angle)])

    def pulled(seen: Seen) -> Float64:
        return turned(seen) + [0.0, 0.05, 0.0]

    moves = [
        Move(_raised(_here, lambda seen: float(seen["handle_pos"][2]) + 0.09), near=0.02),
        *_grasp(hold),
        Move(turned, CLOSED, keeps=True, over=lambda seen: seen["handle_qpos"][0] > _TURNED - 0.1),
        Move(pulled, CLOSED, keeps=True),
    ]
    return Script(moves, hold, symmetry=2 * np.pi, lean=-0.5, grasp=0.06)


_TURNED = 1.3  # of the door's handle before an expert pulls [rad]
_INWARDS = 0.02  # [m]

SCRIPTS: dict[str, Callable[[], Script]] = {"Lift": _lift, "Stack": _stack, "Door": _door}
