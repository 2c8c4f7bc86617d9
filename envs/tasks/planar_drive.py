"""How a scripted agent drives on the plane: poses into actions, ways around pucks, pushes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Float32, Float64

from .planar import REGION, SPEED, TURN
from .planar_scene import ARENA, BLADE, FINGER, PUCK, Embodiment

_CELL = 0.05  # of the grid on which ways are planned [m]
_MARGIN = 0.03  # kept from pucks and walls [m]
_BARRED = 30.0  # cost of a barred cell; finite, so that there is a way out of one
_ALIGNED = 0.05  # a push begins within this distance of its line [m] ...
_TURNED = 0.25  # ... and this angle of its direction [rad]
_LOOKAHEAD = 3  # cells of a planned way that are driven in one line


@dataclass(frozen=True)
class Scene:
    """What an expert reads from an observation.

    Attributes:
        place, heading: the agent's Float64[2] [m] and angle [rad].
        pucks: Float64["pucks 2"] [m].
        region: centre of the region to avoid, Float64[2] [m], where there is one.
    """

    place: Float64
    heading: float
    pucks: Float64
    region: Float64 | None

    @property
    def ahead(self) -> Float64:
        """Unit vector of the heading."""
        return np.array([np.cos(self.heading), np.sin(self.heading)])

    @classmethod
    def of(cls, observation: Mapping[str, Any], *, region: bool = False) -> "Scene":
        """Read an observation; with `region`, that of Avoid: puck, region, flags."""
        agent = observation["agent_pos"].astype(np.float64)
        pairs = observation["environment_state"].astype(np.float64).reshape(-1, 2)
        heading = float(np.arctan2(agent[3], agent[2]))
        if region:
            return cls(agent[:2], heading, pairs[:1], pairs[1])
        return cls(agent[:2], heading, pairs, None)


class Driver:
    """Turns wanted poses and pushes into actions.

    Args:
        body: the embodiment.
        rate: decisions per second [Hz].
    """

    def __init__(self, body: Embodiment, rate: float) -> None:
        self.body, self._rate = body, rate
        self.reach = FINGER + BLADE if body.gripper else BLADE  # the agent's front [m]
        self.turning = max(body.half, self.reach) + PUCK  # a turn hits pucks nearer than this [m]

    def to(self, scene: Scene, place: Float64, heading: float, *, grip: float = 1.0) -> Float32:
        """Go straight to a place, turning on the way."""
        move = (place - scene.place) * self._rate / SPEED
        move /= max(1.0, float(np.linalg.norm(move)))
        turn = np.clip(wrapped(heading - scene.heading) * self._rate / TURN, -1.0, 1.0)
        fingers = [grip] if self.body.gripper else []
        return np.array([*move, turn, *fingers], np.float32)

    def push(self, scene: Scene, puck: Float64, along: Float64) -> Float32:
        """Bring the agent behind a puck, then push it along a unit vector."""
        across = np.array([-along[1], along[0]])
        heading = float(np.arctan2(along[1], along[0]))
        turned = abs(wrapped(heading - scene.heading)) < _TURNED
        start = self._within(puck - along * (PUCK + self.reach + 0.05), along)
        # Near a wall a long blade pushes off-centre: as far as its start had to move.
        aside = float((puck - scene.place) @ across - (puck - start) @ across)
        behind = float((puck - scene.place) @ along)
        if turned and behind > 0.8 * PUCK and abs(aside) < _ALIGNED:
            goal = scene.place + 0.2 * along + aside * across
            return self.to(scene, goal, heading, grip=1.0 if behind < 0.2 else -1.0)
        if self._holds(scene, turned):
            back = self._within(scene.place - 0.2 * scene.ahead, scene.ahead)
            return self.to(scene, back, scene.heading, grip=-1.0)
        return self.to(scene, self._next(scene, start, along, turned), heading, grip=-1.0)

    def _holds(self, scene: Scene, turned: bool) -> bool:
        """Return whether a puck in front would be dragged along by what comes next."""
        front = (scene.pucks - scene.place) @ scene.ahead
        side = (scene.pucks - scene.place) @ np.array([-scene.ahead[1], scene.ahead[0]])
        enough = PUCK + self.reach + 0.01 if turned else self.turning
        return bool(np.any((front > 0) & (front < enough) & (np.abs(side) < self.body.half + PUCK)))

    def _within(self, place: Float64, along: Float64) -> Float64:
        """Return the nearest place where a blade that faces `along` touches no wall."""
        return np.clip(place, *self._bounds(along))

    def _bounds(self, along: Float64) -> tuple[Float64, Float64]:
        # A blade lies across its heading.
        extent = np.abs(along[::-1]) * self.body.half + np.abs(along) * BLADE + 0.01
        return extent - ARENA, ARENA - extent

    def _next(self, scene: Scene, there: Float64, along: Float64, turned: bool) -> Float64:
        """Return the next place on the cheapest way past pucks, walls and region."""
        cells = _cells()
        low, high = self._bounds(along)
        barred = np.any((cells < low - _MARGIN) | (cells > high + _MARGIN), axis=-1)
        for puck in scene.pucks:
            barred |= self._hits(puck - cells, along, turned)
        if scene.region is not None:
            barred |= np.linalg.norm(scene.region - cells, axis=-1) < REGION + _MARGIN
        way = cheapest_way(np.where(barred, _BARRED, 1.0), _index(scene.place), _index(there))
        if len(way) <= _LOOKAHEAD:
            return there
        return cells[way[_LOOKAHEAD]]

    def _hits(self, offset: Float64, along: Float64, turned: bool) -> Any:
        """Return Bool[...]: a puck at this offset [..., 2] from the agent is touched."""
        if not turned:
            return np.linalg.norm(offset, axis=-1) < self.turning + _MARGIN
        front, side = offset @ along, np.abs(offset @ np.array([-along[1], along[0]]))
        near = PUCK + _MARGIN
        along_it = (front > -BLADE - near) & (front < self.reach + near)
        return along_it & (side < self.body.half + near)


def cheapest_way(
    cost: Float64, start: tuple[int, int], goal: tuple[int, int]
) -> list[tuple[int, int]]:
    """Return the cells from start to goal, both included, of least total cost of entering.

    Args:
        cost: Float64["n n"] > 0, per unit of length; diagonals are longer.
        start: row and column.
        goal: row and column.
    """
    left = np.full(np.add(cost.shape, 2), np.inf)
    inner = left[1:-1, 1:-1]
    inner[goal] = 0.0
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
    while True:
        around = [left[1 + i : i - 1 or None, 1 + j : j - 1 or None] for i, j in steps]
        best = np.min([a + np.hypot(*s) * cost for a, s in zip(around, steps, strict=True)], axis=0)
        if np.all(best >= inner - 1e-9):
            break
        np.minimum(inner, best, out=inner)
    way = [start]
    while way[-1] != goal:
        i, j = way[-1]
        ahead = [(i + a, j + b) for a, b in steps]
        lengths = [np.hypot(*s) * cost[i, j] for s in steps]
        here = [left[a + 1, b + 1] + d for (a, b), d in zip(ahead, lengths, strict=True)]
        way.append(ahead[int(np.argmin(here))])
    return way


def wrapped(angle: float) -> float:
    """Return the angle in [-pi, pi) [rad]."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)


def _cells() -> Float64:
    """Return the centres of the grid's cells, Float64["n n 2"] [m]."""
    axis = np.arange(-ARENA, ARENA + _CELL / 2, _CELL)
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)


def _index(place: Float64) -> tuple[int, int]:
    cell = np.rint((np.clip(place, -ARENA, ARENA) + ARENA) / _CELL).astype(int)
    return int(cell[0]), int(cell[1])
