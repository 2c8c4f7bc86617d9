"""Tabletop tasks with several cameras, one of which cannot see the decisive moment.

| task        | done when                                        | hidden from                     |
|-------------|--------------------------------------------------|---------------------------------|
| TableReach  | the fingertips are within 3 cm of the ball       | front: a screen before the ball |
| TablePush   | the puck's centre is within 3 cm of the mark     | side: a wall beside the mark    |
| TableDrawer | the drawer is 12 cm open                         | top: a shelf above the drawer   |
| TablePeg    | the held peg is 5 cm deep in the hole            | top: the hand itself            |

Action, each in [-1, 1]: velocity of the hand along x, y, z (`SPEED` per unit) and the fingers (1
closes, -1 opens). Progress has two parts: to the place of contact, and the thing itself.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied_reward.types import Float32, Float64

from ..rendering import load_mujoco
from .rules import Rules, share
from .tabletop_scene import (
    GRIP,
    HIGH,
    PEG,
    PEG_TIP,
    REACH,
    TIMESTEP,
    fixed,
    mark,
    table_xml,
)

SPEED = 0.6  # [m/s]
NEAR = 0.03  # [m]
OPENED = 0.12  # of the drawer [m]
DEPTH = 0.05  # of the peg in its hole [m]
PUCK, PUCK_TALL = 0.035, 0.02  # radius and half the height of what is pushed [m]
BLOCK = 0.08  # height of the block with the hole [m]
HOLE = 0.018  # half the width of the hole [m]; the peg's is 0.012
_FPS = 20
_SCREEN = ".45 .5 .58 1"


class Tabletop(Rules):
    """What the tabletop tasks share.

    Attributes:
        occluded: the camera that cannot see the decisive moment.
        watched: the geom that it would have to see.
    """

    cameras: ClassVar[tuple[str, ...]] = ("front", "side", "top")
    default_views: ClassVar[int] = 2
    fps: ClassVar[int] = _FPS
    occluded: ClassVar[str]
    watched: ClassVar[str]
    actions = 4

    def __init__(self) -> None:
        self.agent_bounds = (
            np.array([-REACH, -REACH, -0.1, 0.0]) - 0.02,
            np.array([REACH, REACH, HIGH, 1.0]) + 0.02,
        )
        self.state_bounds = (np.full(self.numbers, -1.0), np.full(self.numbers, 1.0))
        self._first = np.zeros(0)

    numbers: ClassVar[int] = 3  # of `environment_state`

    def place(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        """Put the hand somewhere above the near side of the table, then the task's things."""
        data.qpos[:3] = rng.uniform([-0.2, -0.34, 0.16], [0.2, -0.26, 0.24])
        data.qpos[3:5] = self.first_opening
        self._set(model, data, rng)
        load_mujoco().mj_forward(model, data)
        self._first = self.distances(data)

    first_opening: ClassVar[float] = GRIP

    def act(self, model: Any, data: Any, action: Float32) -> None:
        """Move for 1 / `fps` seconds."""
        data.ctrl[:3] = SPEED * action[:3]
        data.ctrl[3:] = self._grip(float(action[3]))
        load_mujoco().mj_step(model, data, nstep=round(1.0 / _FPS / TIMESTEP))
        load_mujoco().mj_kinematics(model, data)

    def hand(self, data: Any) -> Float64:
        """Return the fingertips' x, y, z, Float64[3] [m]."""
        return data.qpos[:3].copy()

    def agent(self, data: Any) -> Float64:
        """Return the fingertips' x, y, z [m] and the opening in [0, 1]."""
        return np.array([*self.hand(data), data.qpos[3:5].mean() / GRIP])

    def misread(self, seen: Mapping[str, Any], offset: Float64) -> dict[str, Any]:
        """Return an observation in which the first thing is a third of `offset` off [m]."""
        moved = seen["environment_state"].copy()
        moved[:2] += (offset / 3.0).astype(np.float32)
        return {**seen, "environment_state": moved}

    @abstractmethod
    def distances(self, data: Any) -> Float64:
        """Return what is left to do, one length per part [m]; the last is 0 when done."""

    def parts(self, data: Any) -> Float64:
        """Return the share of every first distance that is gone."""
        return share(self.distances(data), self._first)

    def success(self, data: Any) -> bool:
        """Return whether nothing is left of the last part."""
        return bool(self.distances(data)[-1] <= 0.0)

    @abstractmethod
    def _set(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        """Draw where the task's things are."""

    def _grip(self, action: float) -> float:
        return GRIP * (1.0 - action) / 2.0


class TableReach(Tabletop):
    """Bring the fingertips to a ball behind a screen."""

    description = "reach the ball behind the screen"
    cameras = ("side", "front", "top")
    occluded, watched = "front", "ball"

    def xml(self) -> str:
        """Return table, screen and ball."""
        screen = fixed("screen", ".24 .008 .11", "0 -.04 .11", _SCREEN)
        return table_xml(screen + mark("ball", 'type="sphere" size=".025"', ".9 .35 .1 1"))

    def state(self, data: Any) -> Float64:
        """Return the ball's x, y, z [m]."""
        return data.mocap_pos[0].copy()

    def distances(self, data: Any) -> Float64:
        """Return the way from the fingertips to the ball [m]."""
        gap = np.linalg.norm(self.hand(data) - self.state(data))
        return np.maximum(np.array([gap]) - NEAR, 0.0)

    def _set(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        data.mocap_pos[0] = rng.uniform([-0.15, 0.05, 0.03], [0.15, 0.2, 0.1])


class TablePush(Tabletop):
    """Push a puck onto a mark beside a wall."""

    description = "push the puck onto the mark"
    cameras = ("front", "side", "top")
    occluded, watched = "side", "puck"
    numbers = 5

    def xml(self) -> str:
        """Return table, wall, mark and puck."""
        wall = fixed("screen", ".008 .17 .1", ".24 .24 .1", _SCREEN)
        goal = mark("goal", 'type="cylinder" size=".06 .002"', ".35 .7 .4 1")
        puck = (
            '<body name="puck"><freejoint/>'
            f'<geom name="puck" type="cylinder" size="{PUCK} {PUCK_TALL}" mass=".15" '
            'friction=".6" rgba=".16 .42 .85 1"/></body>'
        )
        return table_xml(wall + goal + puck)

    def state(self, data: Any) -> Float64:
        """Return the puck's x, y, z and the mark's x, y [m]."""
        return np.array([*data.qpos[5:8], *data.mocap_pos[0, :2]])

    def distances(self, data: Any) -> Float64:
        """Return the ways from the hand to the puck and from the puck to the mark [m]."""
        puck, goal = data.qpos[5:8], data.mocap_pos[0]
        reach = np.linalg.norm(self.hand(data) - puck) - 2 * PUCK
        return np.maximum([reach, np.linalg.norm(puck[:2] - goal[:2]) - NEAR], 0.0)

    def _set(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        data.mocap_pos[0] = [*rng.uniform([-0.1, 0.22], [0.08, 0.28]), 0.0]
        across = data.mocap_pos[0, 0] + rng.uniform(-0.08, 0.08)
        data.qpos[5:12] = [across, rng.uniform(-0.12, -0.04), PUCK_TALL, 1.0, 0.0, 0.0, 0.0]


class TableDrawer(Tabletop):
    """Pull a drawer open by its handle."""

    description = "pull the drawer open by its handle"
    cameras = ("side", "top", "front")
    occluded, watched = "top", "handle"
    numbers = 4
    first_opening = 0.0

    def xml(self) -> str:
        """Return table, cabinet, shelf and drawer."""
        wood, front = ".55 .4 .28 1", ".68 .52 .36 1"
        sides = "".join(
            fixed(f"panel{x}", ".008 .1 .07", f"{x} 0 .07", wood) for x in (-0.135, 0.135)
        )
        return table_xml(f"""
    <body name="cabinet" pos="0 .3 0">
      {sides}
      {fixed("cabinet_top", ".143 .085 .006", "0 .015 .146", wood)}
      {fixed("shelf", ".2 .19 .006", "0 -.11 .4", _SCREEN)}
      <body name="drawer" pos="0 0 .07">
        <joint name="drawer" type="slide" axis="0 -1 0" limited="true" range="0 .16" damping="6"
          frictionloss=".5"/>
        <geom name="drawer" type="box" size=".12 .09 .05" pos="0 -.005 0" mass=".5" rgba="{front}"/>
        <geom name="handle" type="box" size=".05 .006 .012" pos="0 -.15 .02" mass=".05"
          rgba=".1 .1 .12 1"/>
        <geom name="stem0" type="box" size=".005 .025 .008" pos=".045 -.12 .02" mass=".01"
          rgba=".1 .1 .12 1"/>
        <geom name="stem1" type="box" size=".005 .025 .008" pos="-.045 -.12 .02" mass=".01"
          rgba=".1 .1 .12 1"/>
      </body>
    </body>""")

    def state(self, data: Any) -> Float64:
        """Return the handle's x, y, z and how far the drawer is open [m]."""
        return np.array([*data.geom("handle").xpos, data.qpos[5]])

    def distances(self, data: Any) -> Float64:
        """Return the ways from the hand to behind the handle, and of the drawer [m]."""
        hook = data.geom("handle").xpos + [0.0, 0.025, 0.0]
        reach = np.linalg.norm(self.hand(data) - hook) - NEAR
        return np.maximum([reach, OPENED - data.qpos[5]], 0.0)

    def _set(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        model.body("cabinet").pos[:] = [rng.uniform(-0.12, 0.12), rng.uniform(0.28, 0.34), 0.0]


class TablePeg(Tabletop):
    """Insert the held peg into the hole of a block."""

    description = "insert the peg into the hole of the block"
    cameras = ("front", "top", "side")
    occluded, watched = "top", "peg"
    first_opening = PEG[0]

    def xml(self) -> str:
        """Return table, peg and block."""
        rim, colour = (0.06 - HOLE) / 2, ".3 .5 .4 1"
        walls = "".join(
            fixed(f"block{i}", f"{w} {h} {BLOCK / 2}", f"{x} {y} {BLOCK / 2}", colour)
            for i, (x, y, w, h) in enumerate(
                (
                    (HOLE + rim, 0, rim, 0.06),
                    (-HOLE - rim, 0, rim, 0.06),
                    (0, HOLE + rim, HOLE, rim),
                    (0, -HOLE - rim, HOLE, rim),
                )
            )
        )
        wide, long = PEG
        peg = (
            f'<geom name="peg" type="box" size="{wide} {wide} {long}" pos="0 0 {long - PEG_TIP}" '
            'mass=".05" friction=".2" rgba=".95 .72 .1 1"/>'
        )
        return table_xml(f'<body name="block">{walls}</body>', held=peg, low=PEG_TIP + 0.005)

    def state(self, data: Any) -> Float64:
        """Return the hole's mouth: x, y, z [m]."""
        return data.body("block").xpos + [0.0, 0.0, BLOCK]

    def distances(self, data: Any) -> Float64:
        """Return the way of the peg's tip to the mouth, and then down [m]."""
        way = self.hand(data) - [0.0, 0.0, PEG_TIP] - self.state(data)
        inside = bool(np.all(np.abs(way[:2]) <= HOLE))
        depth = max(-way[2], 0.0) if inside else 0.0
        return np.array([np.linalg.norm(way) if not depth else 0.0, max(DEPTH - depth, 0.0)])

    def _set(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        model.body("block").pos[:2] = rng.uniform([-0.2, 0.0], [0.2, 0.22])

    def _grip(self, action: float) -> float:
        return PEG[0]  # the peg is fixed to the hand; fingers rest on it


TASKS: dict[str, type[Tabletop]] = {
    rules.__name__: rules for rules in (TableReach, TablePush, TableDrawer, TablePeg)
}
