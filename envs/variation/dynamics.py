"""Task-relevant factors: numbers of the model that decide what an action does.

Every factor multiplies by `base ** (level * strength)` with a strength in [-1, -0.5] or [0.5, 1]
(`Draw.signed`), so that a level is a size of change, up or down, on a logarithmic scale.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.types import Bool

from ..rendering import load_mujoco
from .draws import Draw
from .roles import Roles

MOST = {
    "mass": 4.0,
    "friction": 4.0,
    "damping": 4.0,
    "gravity": 1.6,
    "actuator": 2.5,
    "robot": 4.0,
    "object_size": 1.35,
}
"""Factor -> the largest multiplier, at level 1."""


def multiplier(factor: str, level: float, draw: Draw) -> float:
    """Return what a factor multiplies by; 1 at level 0."""
    return float(MOST[factor] ** (level * draw.signed))


class Dynamics:
    """Applies factors to one `mujoco.MjModel` and takes them back exactly.

    Only arrays that a factor changed are written back, so what an environment itself writes into
    its model (goals, places) stays.
    """

    def __init__(self, model: Any, roles: Roles) -> None:
        self._model, self._roles = model, roles
        self._before: dict[str, np.ndarray] = {}
        self._flags = int(model.opt.disableflags)

    def apply(self, factors: Mapping[str, float]) -> None:
        """Take back what was applied, then multiply; factor -> multiplier."""
        self.restore()
        if not factors:
            return
        before = _arrays(self._model)
        for factor, times in factors.items():
            SCALE[factor](self._model, self._roles, times)
        _settle_constants(self._model)
        self._before = {
            name: old
            for name, old in before.items()
            if not np.array_equal(old, _array(self._model, name))
        }

    def restore(self) -> None:
        """Put back the bytes that were there before."""
        for name, old in self._before.items():
            _array(self._model, name)[...] = old
        self._before = {}
        self._model.opt.disableflags = self._flags

    @property
    def changed_meshes(self) -> bool:
        """Whether meshes have other vertices than before."""
        return "mesh_vert" in self._before


def _arrays(model: Any) -> dict[str, np.ndarray]:
    """Return a copy of every array of numbers in the model, and gravity."""
    names = [n for n in dir(model) if not n.startswith("_")]
    found = {n: a.copy() for n in names if isinstance(a := getattr(model, n), np.ndarray)}
    return {**found, "opt.gravity": model.opt.gravity.copy()}


def _array(model: Any, name: str) -> np.ndarray:
    return model.opt.gravity if name == "opt.gravity" else getattr(model, name)


def _settle_constants(model: Any) -> None:
    """Recompute what MuJoCo derives from masses and sizes; near and far planes stay."""
    mujoco = load_mujoco()
    extent, centre = float(model.stat.extent), model.stat.center.copy()
    mujoco.mj_setConst(model, mujoco.MjData(model))
    model.stat.extent, model.stat.center[...] = extent, centre


def _scale_mass(model: Any, bodies: Bool, times: float) -> None:
    model.body_mass[bodies] *= times
    model.body_inertia[bodies] *= times


def _mass(model: Any, roles: Roles, times: float) -> None:
    _scale_mass(model, roles.objects, times)


def _friction(model: Any, roles: Roles, times: float) -> None:
    model.geom_friction[:, 0] *= times
    model.pair_friction[:, :2] *= times


def _damping(model: Any, roles: Roles, times: float) -> None:
    model.dof_damping[roles.object_dofs] *= times
    model.dof_frictionloss[roles.object_dofs] *= times


def _gravity(model: Any, roles: Roles, times: float) -> None:
    model.opt.gravity[:] *= times


def _actuator(model: Any, roles: Roles, times: float) -> None:
    """Scale all of an actuator's force, so that a servo is stiffer but has the same aim."""
    model.actuator_gainprm[:] *= times
    model.actuator_biasprm[:] *= times
    model.actuator_forcerange[:] *= times


def _robot(model: Any, roles: Roles, times: float) -> None:
    _scale_mass(model, roles.robot, times)
    model.dof_damping[roles.robot_dofs] *= times
    model.dof_armature[roles.robot_dofs] *= times
    # A robot that is led by the hand follows its leader so much later.
    welds = _welds(model)
    model.eq_solref[welds, 0] *= np.where(model.eq_solref[welds, 0] > 0.0, max(times, 0.5), 1.0)


def _welds(model: Any) -> Bool:
    return np.isin(model.eq_type, [load_mujoco().mjtEq.mjEQ_WELD]).reshape(-1)


def _size(model: Any, roles: Roles, times: float) -> None:
    """Scale geoms about their body's origin, and where the body is free about its underside."""
    geoms = np.flatnonzero(roles.loose[model.geom_bodyid])
    _scale_meshes(model, geoms, times)
    down = _undersides(model, geoms)
    for array in (model.geom_size, model.geom_pos, model.geom_rbound, model.geom_aabb):
        array[geoms] *= times
    model.geom_pos[geoms, 2] += (times - 1.0) * down
    model.body_inertia[roles.loose] *= times**2
    # The tree of boxes around geoms is that of the old size; without it every pair is tested.
    model.opt.disableflags |= int(load_mujoco().mjtDisableBit.mjDSBL_MIDPHASE)


def _scale_meshes(model: Any, geoms: np.ndarray, times: float) -> None:
    """Scale the vertices of meshes that only these geoms use."""
    mesh = int(load_mujoco().mjtGeom.mjGEOM_MESH)
    mine = {int(model.geom_dataid[g]) for g in geoms if model.geom_type[g] == mesh}
    others = np.setdiff1d(np.flatnonzero(model.geom_type == mesh), geoms)
    for index in mine - set(model.geom_dataid[others].tolist()):
        first = model.mesh_vertadr[index]
        model.mesh_vert[first : first + model.mesh_vertnum[index]] *= times


def _undersides(model: Any, geoms: np.ndarray) -> np.ndarray:
    """Return per geom how far its body reaches below its origin [m]; 0 where it is not free."""
    mujoco, free = load_mujoco(), np.zeros(model.nbody, bool)
    free[model.jnt_bodyid[model.jnt_type == mujoco.mjtJoint.mjJNT_FREE]] = True
    down = np.zeros(model.nbody)
    for geom in geoms[free[model.geom_bodyid[geoms]]]:
        turn, middle = np.zeros(9), np.zeros(3)
        mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
        middle = turn.reshape(3, 3) @ model.geom_aabb[geom, :3] + model.geom_pos[geom]
        half = np.abs(turn.reshape(3, 3)) @ model.geom_aabb[geom, 3:]
        body = model.geom_bodyid[geom]
        down[body] = max(down[body], half[2] - middle[2])
    return down[model.geom_bodyid[geoms]]


Scale = Callable[[Any, Roles, float], None]

SCALE: Mapping[str, Scale] = {
    "mass": _mass,
    "friction": _friction,
    "damping": _damping,
    "gravity": _gravity,
    "actuator": _actuator,
    "robot": _robot,
    "object_size": _size,
}
"""Factor -> what multiplies the model's numbers."""
