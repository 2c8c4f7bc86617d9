"""What a pixel shows: background, arm, gripper, objects or goal, by the names in a MuJoCo model."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from embodied_reward.types import UInt8

from .rendering import load_mujoco

PARTS = ("background", "arm", "gripper", "objects", "goal")
"""Names of the labels 0, 1, ..."""

_BACKGROUND, _OBJECTS = PARTS.index("background"), PARTS.index("objects")


@dataclass(frozen=True)
class PartNames:
    """Names of bodies, geoms and sites that are something, as patterns (`wall*`).

    A body's name holds for everything beneath it, unless that has a name of its own here. A body
    of the world that nobody names is an object: what a task adds to a scene is what it is about.
    A geom or site of the world itself that nobody names is background.

    Attributes:
        background: scenery, and what only stands in the way of a camera.
        arm: what carries the gripper.
        gripper: what touches.
        objects: what the task is about, where that lies in the world itself.
        goal: marks that show where something has to go.
    """

    background: tuple[str, ...] = ()
    arm: tuple[str, ...] = ()
    gripper: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    goal: tuple[str, ...] = ()

    def label(self, name: str) -> int | None:
        """Return the label that a name has by itself."""
        for label, part in enumerate(PARTS):
            if name and any(fnmatchcase(name, pattern) for pattern in getattr(self, part)):
                return label
        return None


@dataclass(frozen=True)
class PartLabels:
    """Labels UInt8 of one model's geoms and sites, by their numbers."""

    geoms: UInt8
    sites: UInt8

    def of(self, ids: np.ndarray) -> UInt8:
        """Return labels UInt8["h w"] of a segmentation Int32["h w 2"]: number and MuJoCo type."""
        kinds = load_mujoco().mjtObj
        number, kind = ids[..., 0], ids[..., 1]
        found = np.zeros(number.shape, np.uint8)
        for code, labels in ((kinds.mjOBJ_GEOM, self.geoms), (kinds.mjOBJ_SITE, self.sites)):
            here = kind == int(code)
            found[here] = labels[number[here]]
        return found


def label_parts(model: Any, names: PartNames) -> PartLabels:
    """Return the labels of everything that can be drawn of a `mujoco.MjModel`."""
    bodies = np.full(model.nbody, _BACKGROUND, np.uint8)
    for body in range(1, model.nbody):  # parents come first
        parent = int(model.body_parentid[body])
        inherited = bodies[parent] if parent else _OBJECTS
        own = names.label(model.body(body).name)
        bodies[body] = inherited if own is None else own

    def labels(count: int, owner: Any, named: Any) -> UInt8:
        own = [names.label(named(k).name) for k in range(count)]
        carried = [bodies[owner[k]] for k in range(count)]
        return np.array(
            [c if o is None else o for o, c in zip(own, carried, strict=True)], np.uint8
        )

    return PartLabels(
        labels(model.ngeom, model.geom_bodyid, model.geom),
        labels(model.nsite, model.site_bodyid, model.site),
    )
