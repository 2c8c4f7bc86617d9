"""Scripted experts of the planar tasks, one way of working per embodiment.

Short blades and fingers deal with one puck at a time: go around to its far side, then push it
along a straight line. The long blade sweeps, through poses chosen so that it has room to turn.
All decide from the observation alone and correct themselves: nothing is timed.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from embodied_reward.types import Float32

from .planar import LINE
from .planar_drive import Driver, Scene, wrapped
from .planar_scene import EMBODIMENTS, PUCK, Embodiment

Act = Callable[[Mapping[str, Any]], Float32]
UP = np.array([0.0, 1.0])
_NEAR = 0.03  # a pose is reached within this distance [m] and angle [rad] * 3
_ASIDE = 0.56  # the puck passes the region at this distance from its centre [m]
_LANE = 0.38  # the long blade's centre passes there, and its tip just clears the wall [m]


def sweep_expert(body: Embodiment, rate: float, *, careless: bool = False) -> Act:
    """Return an expert for SweepToGoal: the nearest puck first; the long blade all at once.

    A careless one leaves a puck behind, or sweeps off-centre.
    """
    driver = Driver(body, rate)
    if body is EMBODIMENTS["LongStick"]:
        return _scripted(driver, _sweep_beside if careless else _sweep_up)
    current: int | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal current
        scene = Scene.of(observation)
        left = np.flatnonzero(scene.pucks[:, 1] < LINE + PUCK + 0.01)
        if len(left) <= careless:
            return driver.to(scene, scene.place, scene.heading)
        if current not in left:
            gaps = np.linalg.norm(scene.pucks[left] - UP * 0.2 - scene.place, axis=1)
            current = int(left[np.argmin(gaps)])
        return driver.push(scene, scene.pucks[current], UP)

    return act


def group_expert(body: Embodiment, rate: float, *, careless: bool = False) -> Act:
    """Return an expert for Group: the farthest puck is pushed to the middle one.

    A careless one is content with two pucks, or with having lined them up.
    """
    driver = Driver(body, rate)
    if body is EMBODIMENTS["LongStick"]:
        return _scripted(driver, _line_up if careless else _gather)
    pair: tuple[int, int] | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal pair
        scene = Scene.of(observation)
        gaps = np.linalg.norm(scene.pucks[:, None] - scene.pucks[None], axis=2)
        near = float(gaps[np.triu_indices(3, 1)].min()) < 2 * PUCK + 0.04
        if careless and near:
            return driver.to(scene, scene.place, scene.heading)
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
        return _scripted(driver, _straight_up if careless else _aside_then_up, region=True)
    side: float | None = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal side
        scene = Scene.of(observation, region=True)
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


EXPERTS: dict[str, Callable[..., Act]] = {
    "SweepToGoal": sweep_expert,
    "Avoid": avoid_expert,
    "Group": group_expert,
}

Goal = tuple[float, float, float]  # x, y [m], heading [rad]
Script = Callable[[Scene], Iterator[Goal | Callable[[Scene], Goal | None]]]


def _scripted(driver: Driver, script: Script, *, region: bool = False) -> Act:
    """Follow a script: poses to reach, and rules that give a pose until they return None."""
    steps: Iterator[Any] | None = None
    step: Any = None

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal steps, step
        scene = Scene.of(observation, region=region)
        steps = script(scene) if steps is None else steps
        while True:
            step = next(steps, _hold(scene)) if step is None else step
            goal: Any = step(scene) if callable(step) else step
            if goal is not None and not (step is goal and _reached(scene, goal)):
                return driver.to(scene, np.array(goal[:2]), goal[2])
            step = None

    return act


def _hold(scene: Scene) -> Callable[[Scene], Goal]:
    pose = (*scene.place, scene.heading)
    return lambda _: pose


def _reached(scene: Scene, goal: Goal) -> bool:
    far = np.linalg.norm(np.array(goal[:2]) - scene.place)
    return bool(far < _NEAR and abs(wrapped(goal[2] - scene.heading)) < 3 * _NEAR)


def _sweep_up(scene: Scene) -> Iterator[Goal]:
    yield (0.0, scene.place[1], np.pi / 2)
    yield (0.0, 0.72, np.pi / 2)


def _sweep_beside(scene: Scene) -> Iterator[Goal]:
    """Sweep up on the side where the outermost puck is not."""
    lane = -0.38 * float(np.sign(scene.pucks[np.argmax(np.abs(scene.pucks[:, 0])), 0]) or 1.0)
    yield (lane, scene.place[1], np.pi / 2)
    yield (lane, 0.72, np.pi / 2)


def _line_up(scene: Scene) -> Iterator[Goal]:
    yield (0.0, scene.place[1], np.pi / 2)
    yield (0.0, 0.44, np.pi / 2)


def _gather(scene: Scene) -> Iterator[Goal]:
    """Line the pucks up across the arena, then push the line together from its left end."""
    yield from _line_up(scene)
    yield (0.0, -0.36, np.pi / 2)
    yield (0.0, -0.37, 0.0)
    yield (-0.9, -0.37, 0.0)
    yield (-0.9, 0.36, 0.0)
    yield (0.75, 0.36, 0.0)


def _aside_then_up(scene: Scene) -> Iterator[Any]:
    side = float(np.sign(scene.pucks[0, 0] - scene.place[0]) or 1.0)
    facing = 0.0 if side > 0 else np.pi

    row = scene.place[1]

    def aside(now: Scene) -> Goal | None:
        assert now.region is not None
        if side * (now.pucks[0, 0] - now.region[0]) >= _ASIDE:
            return None
        return (now.place[0] + 0.2 * side, row, facing)

    yield aside
    yield from _below(side, side * _LANE, facing)


def _straight_up(scene: Scene) -> Iterator[Goal]:
    side = float(np.sign(scene.pucks[0, 0] - scene.place[0]) or 1.0)
    yield from _below(side, float(scene.pucks[0, 0]), 0.0 if side > 0 else np.pi)


def _below(side: float, lane: float, facing: float) -> Iterator[Goal]:
    """Back off, turn where there is room, pass below the puck and push up along a lane."""
    yield (-side * 0.33, -0.38, facing)
    yield (-side * 0.33, -0.38, np.pi / 2)
    yield (-side * 0.33, -0.85, np.pi / 2)
    yield (lane, -0.85, np.pi / 2)
    yield (lane, 0.72, np.pi / 2)
