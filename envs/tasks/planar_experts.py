"""Scripted experts of the planar tasks, one way of working per embodiment.

Short blades and fingers deal with one puck at a time: go around to its far side, then push it
along a straight line. The long blade sweeps, through poses chosen so that it has room to turn.
All decide from the observation alone and correct themselves: nothing is timed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Float32, Float64

from .planar import LINE, REGION, SPEED, TURN
from .planar_scene import ARENA, BLADE, EMBODIMENTS, FINGER, PUCK, Embodiment

Act = Callable[[Mapping[str, Any]], Float32]
UP = np.array([0.0, 1.0])
_NEAR = 0.03  # a pose is reached within this distance [m] and angle [rad] * 3
_ASIDE = 0.56  # the puck passes the region at this distance from its centre [m]
_LANE = 0.38  # the long blade's centre passes there, and its tip just clears the wall [m]


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
    def of(cls, observation: Mapping[str, Any]) -> "Scene":
        """Read an observation; six state numbers may be three pucks or Avoid's one."""
        agent = observation["agent_pos"].astype(np.float64)
        state = observation["environment_state"].astype(np.float64)
        heading = float(np.arctan2(agent[3], agent[2]))
        return cls(agent[:2], heading, state.reshape(-1, 2), None)

    def with_region(self) -> "Scene":
        """Read the same numbers as Avoid's: puck, region, flags."""
        return Scene(self.place, self.heading, self.pucks[:1], self.pucks[1])


class Driver:
    """Turns wanted poses into actions.

    Args:
        body: the embodiment.
        rate: decisions per second [Hz].
    """

    def __init__(self, body: Embodiment, rate: float) -> None:
        self.body, self._rate = body, rate
        self.reach = FINGER + BLADE if body.gripper else BLADE  # the agent's front [m]
        self.clear = PUCK + 0.05 + max(body.half, self.reach)  # room that a turn needs [m]

    def to(
        self, scene: Scene, place: Float64, heading: float, *, grip: float, speed: float = 1.0
    ) -> Float32:
        """Go straight to a place, turning on the way; `speed` caps the way in a decision."""
        move = (place - scene.place) * self._rate / SPEED
        move *= min(1.0, speed / max(float(np.linalg.norm(move)), 1e-9))
        turn = np.clip(wrapped(heading - scene.heading) * self._rate / TURN, -1.0, 1.0)
        fingers = [grip] if self.body.gripper else []
        return np.array([*move, turn, *fingers], np.float32)

    def around(
        self, scene: Scene, place: Float64, heading: float, avoid: Sequence[tuple[Float64, float]]
    ) -> Float32:
        """Go to a place past round obstacles (centre, radius), fingers open."""
        for centre, radius in sorted(avoid, key=lambda o: np.linalg.norm(o[0] - scene.place)):
            via = detour(scene.place, place, centre, radius)
            if via is not None:
                return self.to(scene, self.inside(via), heading, grip=-1.0)
        return self.to(scene, place, heading, grip=-1.0)

    def inside(self, place: Float64) -> Float64:
        """Return the nearest place where the blade does not touch a wall."""
        room = ARENA - 0.06
        return np.clip(place, -room, room)

    def push(self, scene: Scene, puck: Float64, along: Float64) -> Float32:
        """Bring the agent behind a puck, then push it along a unit vector."""
        heading = float(np.arctan2(along[1], along[0]))
        offset = puck - scene.place
        behind, beside = float(offset @ along), float(offset @ np.array([-along[1], along[0]]))
        turned = abs(wrapped(heading - scene.heading)) < 0.25
        if turned and behind > PUCK * 0.8 and abs(beside) < 0.05:
            # Straight on, and back onto the line through the puck.
            goal = scene.place + 0.2 * along + beside * np.array([-along[1], along[0]])
            return self.to(scene, goal, heading, grip=1.0 if behind < 0.2 else -1.0)
        if self._holds(scene) and not (turned and abs(beside) < 0.05):
            goal = scene.place - 0.3 * scene.ahead
            return self.to(scene, self.inside(goal), scene.heading, grip=-1.0)
        start = self.inside(puck - along * (PUCK + self.reach + 0.05))
        avoid = [(p, self._room(p, puck, along)) for p in scene.pucks]
        if scene.region is not None:
            avoid.append((scene.region, REGION + 0.04))
        return self.around(scene, start, heading, avoid)

    def _holds(self, scene: Scene) -> bool:
        """Return whether a puck is so near in front that turning would drag it along."""
        side = np.array([-scene.ahead[1], scene.ahead[0]])
        front, lateral = (scene.pucks - scene.place) @ scene.ahead, (scene.pucks - scene.place) @ side
        near = (front > 0.0) & (front < PUCK + self.reach + 0.01)
        return bool(np.any(near & (np.abs(lateral) < self.body.half + PUCK)))

    def _room(self, puck: Float64, target: Float64, along: Float64) -> float:
        # The way to the start behind the target must not be barred by the target itself.
        mine = puck is target or np.array_equal(puck, target)
        return min(self.clear, PUCK + self.reach + 0.04) if mine else self.clear


def wrapped(angle: float) -> float:
    """Return the angle in [-pi, pi) [rad]."""
    return float((angle + np.pi) % (2.0 * np.pi) - np.pi)


def detour(here: Float64, there: Float64, centre: Float64, radius: float) -> Float64 | None:
    """Return where to go first so as to pass a disc, or None where the straight way is free."""
    way = there - here
    length = float(np.linalg.norm(way))
    if length < 1e-6:
        return None
    way /= length
    along = float((centre - here) @ way)
    nearest = here + np.clip(along, 0.0, length) * way
    if not 0.0 < along < length or np.linalg.norm(centre - nearest) >= radius - 1e-6:
        return None
    side = np.array([-way[1], way[0]])
    sign = -1.0 if (centre - here) @ side > 0 else 1.0
    best = centre + sign * side * radius
    if np.abs(best).max() > ARENA - 0.06:  # no room between the disc and the wall
        best = centre - sign * side * radius
    # Inside the disc, leave it sideways first.
    return best


def sweep_expert(body: Embodiment, rate: float) -> Act:
    """Return an expert for SweepToGoal: the nearest puck first; the long blade all at once."""
    driver = Driver(body, rate)
    if body is EMBODIMENTS["LongStick"]:
        return _scripted(driver, _sweep_up)
    current: int | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal current
        scene = Scene.of(observation)
        left = np.flatnonzero(scene.pucks[:, 1] < LINE + PUCK + 0.01)
        if not len(left):
            return driver.to(scene, scene.place, scene.heading, grip=1.0)
        if current not in left:
            gaps = np.linalg.norm(scene.pucks[left] - UP * 0.2 - scene.place, axis=1)
            current = int(left[np.argmin(gaps)])
        return driver.push(scene, scene.pucks[current], UP)

    return act


def group_expert(body: Embodiment, rate: float) -> Act:
    """Return an expert for Group: the farthest puck is pushed to the middle one."""
    driver = Driver(body, rate)
    if body is EMBODIMENTS["LongStick"]:
        return _scripted(driver, _gather)
    pair: tuple[int, int] | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal pair
        scene = Scene.of(observation)
        gaps = np.linalg.norm(scene.pucks[:, None] - scene.pucks[None], axis=2)
        if pair is None or gaps[pair] < 2 * PUCK + 0.04:
            middle = int(np.argmin(gaps.sum(1)))
            pair = (int(np.argmax(gaps[middle])), middle)
        way = scene.pucks[pair[1]] - scene.pucks[pair[0]]
        return driver.push(scene, scene.pucks[pair[0]], way / np.linalg.norm(way))

    return act


def avoid_expert(body: Embodiment, rate: float, *, careless: bool = False) -> Act:
    """Return an expert for Avoid: aside first, then up. A careless one goes straight up."""
    driver = Driver(body, rate)
    if body is EMBODIMENTS["LongStick"]:
        return _scripted(driver, _straight_up if careless else _aside_then_up)
    side: float | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal side
        scene = Scene.of(observation).with_region()
        puck, region = scene.pucks[0], scene.region
        assert region is not None
        side = side or float(np.sign(puck[0] - scene.place[0]) or 1.0)
        if careless:
            return driver.push(Scene(scene.place, scene.heading, scene.pucks, None), puck, UP)
        beside = side * (puck[0] - region[0])
        if beside < _ASIDE and puck[1] < region[1]:
            return driver.push(scene, puck, np.array([side, 0.0]))
        return driver.push(scene, puck, UP)

    return act


EXPERTS: dict[str, Callable[[Embodiment, float], Act]] = {
    "SweepToGoal": sweep_expert,
    "Avoid": avoid_expert,
    "Group": group_expert,
}

Goal = tuple[float, float, float]  # x, y [m], heading [rad]
Script = Callable[[Driver, Scene], Iterator[Goal | Callable[[Scene], Goal | None]]]


def _scripted(driver: Driver, script: Script) -> Act:
    """Follow a script: poses to reach, and rules that give a pose until they return None."""
    steps: Iterator[Any] | None = None
    step: Any = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal steps, step
        scene = Scene.of(observation)
        steps = script(driver, scene) if steps is None else steps
        while True:
            step = next(steps, _hold(scene)) if step is None else step
            goal = step(scene) if callable(step) else step
            if goal is not None and not (step is goal and _reached(scene, goal)):
                return driver.to(scene, np.array(goal[:2]), goal[2], grip=1.0)
            step = None

    return act


def _hold(scene: Scene) -> Callable[[Scene], Goal]:
    pose = (*scene.place, scene.heading)
    return lambda _: pose


def _reached(scene: Scene, goal: Goal) -> bool:
    far = np.linalg.norm(np.array(goal[:2]) - scene.place)
    return bool(far < _NEAR and abs(wrapped(goal[2] - scene.heading)) < 3 * _NEAR)


def _sweep_up(_driver: Driver, scene: Scene) -> Iterator[Goal]:
    yield (0.0, scene.place[1], np.pi / 2)
    yield (0.0, 0.72, np.pi / 2)


def _gather(_driver: Driver, scene: Scene) -> Iterator[Goal]:
    """Line the pucks up across the arena, then push the line together from its left end."""
    yield (0.0, scene.place[1], np.pi / 2)
    yield (0.0, 0.44, np.pi / 2)
    yield (0.0, -0.36, np.pi / 2)
    yield (0.0, -0.37, 0.0)
    yield (-0.9, -0.37, 0.0)
    yield (-0.9, 0.36, 0.0)
    yield (0.75, 0.36, 0.0)


def _aside_then_up(_driver: Driver, scene: Scene) -> Iterator[Any]:
    start = scene.with_region()
    side = float(np.sign(start.pucks[0, 0] - start.place[0]) or 1.0)
    facing = 0.0 if side > 0 else np.pi

    def aside(scene: Scene) -> Goal | None:
        now = scene.with_region()
        assert now.region is not None
        if side * (now.pucks[0, 0] - now.region[0]) >= _ASIDE:
            return None
        return (now.place[0] + 0.2 * side, start.place[1], facing)

    yield aside
    yield from _below(side, side * _LANE, facing)


def _straight_up(_driver: Driver, scene: Scene) -> Iterator[Goal]:
    start = scene.with_region()
    side = float(np.sign(start.pucks[0, 0] - start.place[0]) or 1.0)
    yield from _below(side, float(start.pucks[0, 0]), 0.0 if side > 0 else np.pi)


def _below(side: float, lane: float, facing: float) -> Iterator[Goal]:
    """Back off, turn where there is room, pass below the puck and push up along a lane."""
    yield (-side * 0.33, -0.38, facing)
    yield (-side * 0.33, -0.38, np.pi / 2)
    yield (-side * 0.33, -0.85, np.pi / 2)
    yield (lane, -0.85, np.pi / 2)
    yield (lane, 0.72, np.pi / 2)
