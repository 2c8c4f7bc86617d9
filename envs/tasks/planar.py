"""Planar tasks after X-MAGICAL (Zakka et al. 2021) and RAPL (arXiv:2412.04835): rules and starts.

| task        | what is asked                           | done when                               |
|-------------|-----------------------------------------|-----------------------------------------|
| SweepToGoal | push three pucks into the zone at the   | all lie wholly inside                   |
|             | top                                     |                                         |
| Avoid       | push the puck there, around a region    | it lies inside, and neither it nor the  |
|             | that people dislike                     | agent's centre ever was in the region   |
| Group       | gather three pucks                      | no two are over 0.4 m apart             |

Only SweepToGoal is public in X-MAGICAL; Avoid and Group are our reading of RAPL's text.

Action, each in [-1, 1]: velocity along x and y (`SPEED` per unit), turn rate (`TURN` per unit,
counter-clockwise), and for the Gripper its fingers (1 closes, -1 opens). X-MAGICAL's agents drive
along their heading only; ours move in any direction, which leaves the blade to tell them apart.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied_reward.types import Float32, Float64

from .planar_scene import (
    ARENA,
    CAMERAS,
    EMBODIMENTS,
    OPEN,
    PUCK,
    TIMESTEP,
    disc,
    planar_xml,
    strip,
)
from .rules import Rules, share

SPEED = 1.2  # [m/s]
TURN = 3.0  # [rad/s]
LINE = 0.55  # lower edge of the zone at the top [m]
REGION = 0.3  # radius of the region that people dislike [m]
GATHERED = 0.4  # largest distance of two gathered pucks [m]; three touching ones are 0.18 apart
VIOLATED = 0.5  # progress counts so much once the region was entered
_FPS = 10
_LOW_START = -0.8  # y of a start at the lower wall [m]


class Planar(Rules):
    """What the three planar tasks share. `embodiment` is a name of `EMBODIMENTS`."""

    cameras: ClassVar[tuple[str, ...]] = CAMERAS
    fps: ClassVar[int] = _FPS
    pucks: ClassVar[int] = 3

    def __init__(self, embodiment: str) -> None:
        self.embodiment, self.body = embodiment, EMBODIMENTS[embodiment]
        self.actions = 4 if self.body.gripper else 3
        self._joints = 5 if self.body.gripper else 3
        high = np.ones(self._joints + 1 - self.body.gripper)
        self.agent_bounds = (np.array([*-high[:4], 0.0])[: len(high)], high)
        self.state_bounds = self._state_bounds()
        self._first = np.zeros(0)

    def place(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        """Draw pucks, agent and whatever else the task moves."""
        pucks, agent = self._draw(data, rng)
        data.qpos[:3], data.qpos[3 : self._joints] = agent, OPEN
        data.qpos[self._joints :] = pucks.ravel()
        self._first = self.distances(data)

    def act(self, model: Any, data: Any, action: Float32) -> None:
        """Drive for 1 / `fps` seconds."""
        data.ctrl[:3] = SPEED * action[0], SPEED * action[1], TURN * action[2]
        data.ctrl[3:] = OPEN * (1.0 - action[3:]) / 2.0
        _step(model, data)

    def positions(self, data: Any) -> Float64:
        """Return the pucks' centres Float64["pucks 2"] [m]."""
        return data.qpos[self._joints :].reshape(-1, 2).copy()

    def pose(self, data: Any) -> Float64:
        """Return the agent's x, y [m] and heading [rad], Float64[3]."""
        return data.qpos[:3].copy()

    def agent(self, data: Any) -> Float64:
        """Return x, y [m], cosine and sine of the heading, and the Gripper's opening in [0, 1]."""
        x, y, turn = self.pose(data)
        opening = data.qpos[3 : self._joints].mean(keepdims=True) / OPEN if self.actions > 3 else []
        return np.array([x, y, np.cos(turn), np.sin(turn), *opening])

    def state(self, data: Any) -> Float64:
        """Return the pucks' x, y [m], one after the other."""
        return self.positions(data).ravel()

    def misread(self, seen: Mapping[str, Any], offset: Float64) -> dict[str, Any]:
        """Return an observation in which every puck is moved by `offset` [m].

        The long blade sweeps wherever pucks are, so there it is the agent's place that is wrong,
        by twice as much.
        """
        key, count = ("environment_state", self.pucks)
        if self.embodiment == "LongStick":
            key, count, offset = "agent_pos", 1, 2.0 * offset
        moved = seen[key].copy()
        moved[: 2 * count] += np.tile(offset, count).astype(np.float32)
        return {**seen, key: moved}

    def distances(self, data: Any) -> Float64:
        """Return what is left to do, one length per part [m]; all 0 when done."""
        raise NotImplementedError

    def parts(self, data: Any) -> Float64:
        """Return the share of every first distance that is gone."""
        return share(self.distances(data), self._first)

    def success(self, data: Any) -> bool:
        """Return whether nothing is left to do."""
        return bool(np.all(self.distances(data) <= 0.0))

    def _state_bounds(self) -> tuple[Float64, Float64]:
        high = np.full(2 * self.pucks, ARENA)
        return -high, high

    def _draw(self, data: Any, rng: np.random.Generator) -> tuple[Float64, Float64]:
        """Return pucks Float64["pucks 2"] and the agent's pose Float64[3]."""
        raise NotImplementedError

    def _low_start(self, rng: np.random.Generator) -> Float64:
        """Draw a pose at the lower wall that faces up."""
        reach = ARENA - self.body.half - 0.05
        return np.array([rng.uniform(-reach, reach), _LOW_START, np.pi / 2])


class SweepToGoal(Planar):
    """Push three pucks into the zone at the top."""

    description = "push the three pucks into the zone at the top"

    def xml(self) -> str:
        """Return arena, zone, agent and three pucks."""
        return planar_xml(self.embodiment, self.pucks, [strip("zone", LINE, ".62 .85 .6 1")])

    def distances(self, data: Any) -> Float64:
        """Return how far every puck's lower edge is below the zone [m]."""
        return np.maximum(LINE + PUCK - self.positions(data)[:, 1], 0.0)

    def _draw(self, data: Any, rng: np.random.Generator) -> tuple[Float64, Float64]:
        pucks = scattered(rng, self.pucks, apart=0.28, low=(-0.5, -0.45), high=(0.5, 0.2))
        return pucks, self._low_start(rng)


class Group(Planar):
    """Gather three pucks."""

    description = "gather the three pucks in one place"

    def xml(self) -> str:
        """Return arena, agent and three pucks."""
        return planar_xml(self.embodiment, self.pucks)

    def distances(self, data: Any) -> Float64:
        """Return by how much every pair is too far apart [m]."""
        pucks = self.positions(data)
        gaps = np.linalg.norm(pucks - np.roll(pucks, 1, axis=0), axis=1)
        return np.maximum(gaps - GATHERED, 0.0)

    def _draw(self, data: Any, rng: np.random.Generator) -> tuple[Float64, Float64]:
        pucks = scattered(rng, self.pucks, apart=0.5, low=(-0.5, -0.4), high=(0.5, 0.35))
        return pucks, self._low_start(rng)


class Avoid(Planar):
    """Push the puck into the zone without entering the region in the middle."""

    description = "push the puck to the top without entering the red region"
    pucks = 1

    def __init__(self, embodiment: str) -> None:
        super().__init__(embodiment)
        self.region = np.zeros(2)
        self._entered, self._steps_inside = False, 0

    def xml(self) -> str:
        """Return arena, zone, region, agent and one puck."""
        marks = [strip("zone", LINE, ".62 .85 .6 1"), disc("region", REGION, ".93 .5 .45 1")]
        return planar_xml(self.embodiment, self.pucks, marks)

    def place(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        """Draw the scene and forget that the region was entered."""
        super().place(model, data, rng)
        self._entered, self._steps_inside = False, 0

    def act(self, model: Any, data: Any, action: Float32) -> None:
        """Drive, and note whether the region was entered."""
        super().act(model, data, action)
        inside = self.inside(data)
        self._entered, self._steps_inside = self._entered or inside, self._steps_inside + inside

    def inside(self, data: Any) -> bool:
        """Return whether the puck's or the agent's centre is in the region."""
        places = np.stack([*self.positions(data), self.pose(data)[:2]])
        return bool(np.any(np.linalg.norm(places - self.region, axis=1) < REGION))

    def state(self, data: Any) -> Float64:
        """Return the puck, the region's centre [m], whether it is and ever was entered (0, 1)."""
        flags = float(self.inside(data)), float(self._entered)
        return np.array([*self.positions(data)[0], *self.region, *flags])

    def distances(self, data: Any) -> Float64:
        """Return how far the puck's lower edge is below the zone [m]."""
        return np.maximum(LINE + PUCK - self.positions(data)[:, 1], 0.0)

    def parts(self, data: Any) -> Float64:
        """Return the puck's share, halved once the region was entered."""
        return super().parts(data) * (VIOLATED if self._entered else 1.0)

    def success(self, data: Any) -> bool:
        """Return whether the puck is in the zone and the region was never entered."""
        return super().success(data) and not self._entered

    def disliked(self, data: Any) -> float:
        """Return 1.0 inside the region."""
        return float(self.inside(data))

    @classmethod
    def disliked_in(cls, states: Float32) -> Float64:
        """Return the flag that says so of every state."""
        return states[:, 4].astype(np.float64)

    def info(self, data: Any) -> Mapping[str, Any]:
        """Return how many base steps ended inside the region, and whether the puck arrived."""
        return {"steps_inside": self._steps_inside, "puck_arrived": super().success(data)}

    def _state_bounds(self) -> tuple[Float64, Float64]:
        high = np.ones(6)
        return np.array([-1.0, -1.0, -1.0, -1.0, 0.0, 0.0]), high

    def _draw(self, data: Any, rng: np.random.Generator) -> tuple[Float64, Float64]:
        """Put the region in the middle, the puck below it, the agent beside the puck."""
        self.region = np.array([rng.uniform(-0.04, 0.04), rng.uniform(0.05, 0.13)])
        data.mocap_pos[0, :2] = self.region
        side = rng.choice([-1.0, 1.0])
        puck = np.array([[side * rng.uniform(0.0, 0.2), rng.uniform(-0.42, -0.34)]])
        away = np.pi if side < 0 else 0.0
        return puck, np.array([-side * rng.uniform(0.75, 0.85), rng.uniform(-0.37, -0.33), away])


TASKS: dict[str, type[Planar]] = {"SweepToGoal": SweepToGoal, "Avoid": Avoid, "Group": Group}


def scattered(
    rng: np.random.Generator,
    count: int,
    *,
    apart: float,
    low: tuple[float, float],
    high: tuple[float, float],
) -> Float64:
    """Draw Float64["count 2"] points of a box [m], each pair at least `apart`."""
    while True:
        points = rng.uniform(low, high, (count, 2))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
        if np.all(gaps[np.triu_indices(count, 1)] >= apart):
            return points


def _step(model: Any, data: Any) -> None:
    from ..rendering import load_mujoco

    load_mujoco().mj_step(model, data, nstep=round(1.0 / _FPS / TIMESTEP))
