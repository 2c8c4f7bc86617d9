"""Things that only seem to lie about: drawn with the scene, in no model, so nothing can hit them.

They lie on the largest upward background surface at the height where the task happens, keep away
from everything that moves or marks a goal, and are low: what is pushed across one hides it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Float64, Int64

from ..rendering import load_mujoco
from .colour import rgb
from .draws import Draw
from .roles import Roles, level_boxes

MOST = 8
_TRIES = 200
_BROAD = 0.05  # half the width of a box on which something could lie [m]
_INNER = 0.75  # share of the table, about its middle, where things lie and cameras look


@dataclass(frozen=True)
class Distractors:
    """Geoms for a `mujoco.MjvScene`.

    Attributes:
        kinds: `mujoco.mjtGeom` numbers.
        sizes, places: Float64["n 3"] [m].
        turns: Float64["n"], about the vertical [rad].
        colours: Float64["n 3"].
    """

    kinds: list[int]
    sizes: Float64
    places: Float64
    turns: Float64
    colours: Float64

    def add(self, scene: Any) -> None:
        """Append the geoms to the scene of one picture, as far as it has room."""
        mujoco = load_mujoco()
        for i, kind in enumerate(self.kinds[: scene.maxgeom - scene.ngeom]):
            cos, sin = np.cos(self.turns[i]), np.sin(self.turns[i])
            axes = np.array([cos, -sin, 0.0, sin, cos, 0.0, 0.0, 0.0, 1.0])
            geom, colour = scene.geoms[scene.ngeom], np.append(self.colours[i], 1.0)
            mujoco.mjv_initGeom(
                geom, kind, self.sizes[i], self.places[i], axes, colour.astype(np.float32)
            )
            # Drawn in segmentations too, as nothing of the model.
            geom.segid, geom.objid, geom.objtype = scene.ngeom, -1, mujoco.mjtObj.mjOBJ_UNKNOWN
            scene.ngeom += 1


def scattered(model: Any, data: Any, roles: Roles, level: float, draw: Draw) -> Distractors:
    """Return `level * MOST` distractors for the scene as it stands after a reset.

    Where the scene has no room for as many, there are fewer. The first one's hue leads.
    """
    table = _table(model, data, roles)
    if table is None:
        return _gathered([], draw)
    low, high, height = table
    keep, radii = _kept_clear(model, data, roles, height)
    scale, rng = 0.05 * float(np.min(high - low)), draw.rng
    found: list[Float64] = []
    for _ in range(_TRIES):
        if len(found) >= int(np.ceil(level * MOST)):
            break
        size = scale * rng.uniform(0.6, 1.2, 3) * [1.0, 1.0, 0.35]
        spot = rng.uniform(low + scale, high - scale)
        near = np.linalg.norm(keep - spot, axis=1) < radii + 1.6 * scale
        others = [np.linalg.norm(f[:2] - spot) < 3.0 * scale for f in found]
        if not near.any() and not any(others):
            found.append(np.array([*spot, height + size[2], *size]))
    return _gathered(found, draw)


def _gathered(found: list[Float64], draw: Draw) -> Distractors:
    mujoco, rng, count = load_mujoco(), draw.rng, len(found)
    kinds = [mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_ELLIPSOID]
    kinds.append(mujoco.mjtGeom.mjGEOM_CYLINDER)
    rows = np.array(found).reshape(-1, 6)
    chosen = [int(kinds[i]) for i in rng.integers(len(kinds), size=count)]
    hues = draw.leading + 0.382 * np.arange(count)
    colours = [rgb(hue, rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.95)) for hue in hues]
    sizes = rows[:, 3:].copy()
    for i, kind in enumerate(chosen):
        if kind == kinds[2]:  # radius, radius, half the height
            sizes[i, 1] = sizes[i, 0]
    return Distractors(
        chosen,
        sizes,
        rows[:, :3],
        rng.uniform(0.0, np.pi, count),
        np.array(colours).reshape(-1, 3),
    )


def has_room(model: Any, roles: Roles) -> bool:
    """Return whether the scene has a surface for distractors."""
    mujoco = load_mujoco()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    return bool(_surfaces(model, data, roles).size)


def _surfaces(model: Any, data: Any, roles: Roles) -> Int64:
    """Return the boxes on which something could lie."""
    boxes = level_boxes(model, data, roles.background_geoms)
    return boxes[model.geom_size[boxes, :2].min(axis=1) >= _BROAD]


def _table(model: Any, data: Any, roles: Roles) -> tuple[Float64, Float64, float] | None:
    """Return the corners Float64[2] of the middle of the surface under the task, and its height.

    That is the broadest level background box; walls are narrow, and grounds are planes.
    """
    boxes = _surfaces(model, data, roles)
    if not len(boxes):
        return None
    best = boxes[np.argmax(model.geom_size[boxes, :2].min(axis=1))]
    middle, half = data.geom_xpos[best], model.geom_size[best]
    inner = _INNER * half[:2]
    return middle[:2] - inner, middle[:2] + inner, float(middle[2] + half[2])


def _kept_clear(model: Any, data: Any, roles: Roles, height: float) -> tuple[Float64, Float64]:
    """Return centres Float64["n 2"] and radii Float64["n"] of what must not be hidden [m].

    Only what reaches above the table's `height` counts.
    """
    body = model.geom_bodyid
    marked = model.body_mocapid[body] >= 0
    wanted = roles.object_geoms | roles.fixture_geoms | roles.robot_geoms | marked
    wanted &= (model.geom_rgba[:, 3] > 0.0) & (_tops(model, data) > height)
    sites = model.site_rgba[:, 3] > 0.0
    centres = np.concatenate([data.geom_xpos[wanted], data.site_xpos[sites]])[:, :2]
    radii = np.concatenate([model.geom_rbound[wanted], model.site_size[sites].max(axis=1)])
    return centres, radii


def _tops(model: Any, data: Any) -> Float64:
    """Return the height of every geom's highest point, or a little more, Float64["geoms"] [m]."""
    turns = data.geom_xmat.reshape(-1, 3, 3)
    middle = data.geom_xpos + np.einsum("gij,gj->gi", turns, model.geom_aabb[:, :3])
    return middle[:, 2] + np.einsum("gj,gj->g", np.abs(turns[:, 2]), model.geom_aabb[:, 3:])
