"""Which parts of any MuJoCo scene are robot, object, fixture or background.

Read off the model, so that it holds for scenes of other people:

    robot       kinematic trees with an actuated joint
    object      bodies that move, of all other trees
    background  planes and boxes that stand still and are named floor, ground, wall, table ...
    fixture     whatever else stands still, unless it is a mark

Marks show what is asked: sites, bodies placed by mocap, and flat geoms of the world without
contact, such as the zone of a planar task. No variation touches them.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Bool, Int64

from ..rendering import load_mujoco

BACKGROUND = ("floor", "ground", "wall", "table", "retainingwall", "arena")
"""How the names of background geoms, or of their bodies, begin."""

_HIDDEN_GROUP = 3  # MuJoCo draws geom groups 0 to 2
_LEVEL = 0.99  # cosine of a box's tilt


@dataclass(frozen=True)
class Roles:
    """Masks over the parts of one `mujoco.MjModel`.

    Attributes:
        robot, objects: Bool["bodies"].
        loose: Bool["bodies"], objects that are fixed to nothing.
        robot_geoms, object_geoms, fixture_geoms, background_geoms: Bool["geoms"], seen ones only.
        robot_dofs, object_dofs: Bool["dofs"].
    """

    robot: Bool
    objects: Bool
    loose: Bool
    robot_geoms: Bool
    object_geoms: Bool
    fixture_geoms: Bool
    background_geoms: Bool
    robot_dofs: Bool
    object_dofs: Bool


def roles_of(model: Any) -> Roles:
    """Return who is who in an `mujoco.MjModel`."""
    robot = np.isin(model.body_rootid, _robot_roots(model))
    moves = model.body_weldid != 0
    objects = moves & ~robot
    body = model.geom_bodyid
    seen, background = seen_geoms(model), _background(model)
    still = seen & ~moves[body] & ~robot[body] & ~background & (model.body_mocapid[body] < 0)
    return Roles(
        robot=robot,
        objects=objects,
        loose=objects & (model.body_parentid == 0) & (model.body_dofnum > 0),
        robot_geoms=seen & robot[body],
        object_geoms=seen & objects[body],
        fixture_geoms=still & ((body != 0) | _solid(model)),
        background_geoms=seen & background & ~robot[body],
        robot_dofs=robot[model.dof_bodyid],
        object_dofs=~robot[model.dof_bodyid],
    )


def seen_geoms(model: Any) -> Bool:
    """Return Bool["geoms"]: drawn, and not transparent."""
    return (model.geom_group < _HIDDEN_GROUP) & (model.geom_rgba[:, 3] > 0.0)


def level_boxes(model: Any, data: Any, geoms: Bool) -> Int64:
    """Return the boxes among geoms Bool["geoms"] whose own z axis is vertical, Int64["boxes"].

    Floors, tables and rims are; some models stand a wall up that was made lying down.

    Args:
        model: `mujoco.MjModel`.
        data: its `mujoco.MjData`, after kinematics.
        geoms: which geoms to look at.
    """
    box = model.geom_type == load_mujoco().mjtGeom.mjGEOM_BOX
    return np.flatnonzero(geoms & box & (np.abs(data.geom_xmat[:, 8]) > _LEVEL))


def _solid(model: Any) -> Bool:
    return (model.geom_contype != 0) | (model.geom_conaffinity != 0)


def _robot_roots(model: Any) -> list[int]:
    joints = [j for i in range(model.nu) for j in _driven(model, i)]
    return sorted({int(model.body_rootid[model.jnt_bodyid[j]]) for j in joints})


def _driven(model: Any, actuator: int) -> list[int]:
    """Return the joints that an actuator moves."""
    mujoco = load_mujoco()
    kind, target = model.actuator_trntype[actuator], int(model.actuator_trnid[actuator, 0])
    if kind in (mujoco.mjtTrn.mjTRN_JOINT, mujoco.mjtTrn.mjTRN_JOINTINPARENT):
        return [target]
    if kind != mujoco.mjtTrn.mjTRN_TENDON:
        return []
    first, count = model.tendon_adr[target], model.tendon_num[target]
    wraps = range(first, first + count)
    joint = mujoco.mjtWrap.mjWRAP_JOINT
    return [int(model.wrap_objid[w]) for w in wraps if model.wrap_type[w] == joint]


def _background(model: Any) -> Bool:
    mujoco = load_mujoco()
    flat = np.isin(model.geom_type, [mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX])
    still = model.body_weldid[model.geom_bodyid] == 0
    named = [
        any(name.lower().startswith(BACKGROUND) for name in _names(model, i))
        for i in range(model.ngeom)
    ]
    return flat & still & np.array(named, bool)


def _names(model: Any, geom: int) -> tuple[str, str]:
    return model.geom(geom).name, model.body(model.geom_bodyid[geom]).name
