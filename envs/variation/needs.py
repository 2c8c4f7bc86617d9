"""What a factor needs in a scene; a factor without it is refused instead of doing nothing."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError

from .distractors import has_room
from .roles import Roles


def check_needs(factors: Iterable[str], model: Any, roles: Roles) -> None:
    """Raise EnvError for a factor that has nothing to vary in this `mujoco.MjModel`."""
    for factor in factors:
        there, missing = NEEDS[factor]
        if not there(model, roles):
            raise EnvError(f"variation '{factor}' has nothing to vary here: {missing}")


def _damped(model: Any, roles: Roles) -> bool:
    total = model.dof_damping + model.dof_frictionloss
    return bool((total[roles.object_dofs] > 0.0).any())


Need = tuple[Callable[[Any, Roles], bool], str]

NEEDS: Mapping[str, Need] = {
    "texture": (lambda m, r: bool(r.background_geoms.any()), "no background geom was found"),
    "video": (lambda m, r: bool(r.background_geoms.any()), "no background geom was found"),
    "light": (lambda m, r: True, ""),
    "robot_colour": (lambda m, r: bool(r.robot_geoms.any()), "no actuated joint was found"),
    "object_colour": (lambda m, r: bool(r.object_geoms.any()), "no object moves"),
    "fixture_colour": (lambda m, r: bool(r.fixture_geoms.any()), "only background stands still"),
    "distractors": (has_room, "no table or floor is a box"),
    "camera": (lambda m, r: m.ncam > 0, "there are no cameras"),
    "mass": (lambda m, r: bool(r.objects.any()), "no object moves"),
    "friction": (lambda m, r: m.ngeom > 0, "there are no geoms"),
    "damping": (_damped, "no object's joint has damping or dry friction"),
    "gravity": (lambda m, r: bool(np.any(m.opt.gravity != 0.0)), "there is no gravity"),
    "actuator": (lambda m, r: m.nu > 0, "there are no actuators"),
    "robot": (lambda m, r: bool(r.robot.any()), "no actuated joint was found"),
    "object_size": (lambda m, r: bool(r.loose.any()), "no object is loose"),
}
"""Factor -> whether a model has something for it to change, and what to say where not."""
