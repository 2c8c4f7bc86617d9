"""The robosuite tasks that are offered: words, what is observed, what is what in the scene."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..parts import PartNames

SUITE = "robosuite"


@dataclass(frozen=True)
class Task:
    """One robosuite environment.

    Attributes:
        description: the task in words.
        state: robosuite's own sensors that make up `environment_state`, in this order.
        robots: how many arms.
        name: robosuite's name of the environment; default: the task's.
        options: further arguments of robosuite's constructor.
    """

    description: str
    state: tuple[str, ...]
    robots: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


def _posed(*names: str) -> tuple[str, ...]:
    """Return position, quaternion and position seen from the gripper of every object."""
    kinds = ("{}_pos", "{}_quat", "{}_to_robot0_eef_pos")
    return tuple(kind.format(name) for name in names for kind in kinds)


_NUTS = ("SquareNut", "RoundNut")
_GROCERIES = ("Milk", "Bread", "Cereal", "Can")

TASKS: dict[str, Task] = {
    "Lift": Task("lift the cube", ("cube_pos", "cube_quat", "gripper_to_cube_pos")),
    "Stack": Task(
        "stack the red cube on the green cube",
        (
            *("cubeA_pos", "cubeA_quat", "cubeB_pos", "cubeB_quat"),
            *("gripper_to_cubeA", "gripper_to_cubeB", "cubeA_to_cubeB"),
        ),
    ),
    "Door": Task(
        "turn the handle and pull the door open",
        (
            *("door_pos", "handle_pos", "door_to_eef_pos", "handle_to_eef_pos"),
            *("hinge_qpos", "handle_qpos"),
        ),
    ),
    "NutAssembly": Task("put each nut on its peg", _posed(*_NUTS)),
    "NutAssemblySquare": Task("put the square nut on the square peg", _posed("SquareNut")),
    "NutAssemblyRound": Task("put the round nut on the round peg", _posed("RoundNut")),
    "PickPlace": Task("put every thing into its own bin", _posed(*_GROCERIES)),
    "PickPlaceMilk": Task("put the milk into its bin", _posed("Milk")),
    "PickPlaceBread": Task("put the bread into its bin", _posed("Bread")),
    "PickPlaceCereal": Task("put the cereal into its bin", _posed("Cereal")),
    "PickPlaceCan": Task("put the can into its bin", _posed("Can")),
    "Wipe": Task(
        "wipe all the dirt off the table",
        (
            *("robot0_contact", "proportion_wiped", "wipe_radius", "wipe_centroid"),
            "gripper_to_wipe_centroid",
        ),
    ),
    "TwoArmPegInHole": Task(
        "put the peg of one arm into the hole that the other holds",
        ("hole_pos", "hole_quat", "peg_to_hole", "peg_quat", "angle", "t", "d"),
        robots=2,
    ),
}
"""Task -> what it is. robosuite's `...Single` tasks are left out: which object they ask for depends
on the hash seed of the process, so no seed decides the scene."""

PARTS_OF = PartNames(
    background=("table*", "floor*", "wall*", "bin*", "*_eef_target*"),
    arm=("robot*", "fixed_mount*", "mount*"),
    gripper=("gripper*", "*right_hand*"),
    objects=("peg*", "hole*"),
    goal=("Visual*",),
)
