"""The names of the suite's tasks, and what they are registered under in Gymnasium.

Importing this module imports neither Gymnasium nor a simulator: Gymnasium itself calls
`register_gymnasium` (entry point group `gymnasium.envs`) while it is being imported.
"""

import importlib
from typing import TYPE_CHECKING

from embodied_reward.errors import EnvError, did_you_mean

if TYPE_CHECKING:
    from .rules import Rules

PREFIX = "embodied_reward"
VERSION = "v0"
PLANAR = ("SweepToGoal", "Avoid", "Group")
EMBODIMENTS = ("Gripper", "ShortStick", "MediumStick", "LongStick")


def names() -> list[str]:
    """Return every task's name, e.g. "SweepToGoal-MediumStick-v0"."""
    return [f"{task}-{body}-{VERSION}" for task in PLANAR for body in EMBODIMENTS]


def rules_of(name: str) -> "Rules":
    """Build the rules of one task. Raises EnvError naming the nearest."""
    if name not in names():
        raise EnvError(f"unknown task '{PREFIX}/{name}'; {did_you_mean(name, names())}")
    task, body, _ = name.split("-")
    return importlib.import_module(".planar", __package__).TASKS[task](body)


def register_gymnasium() -> None:
    """Register every task with Gymnasium, under the namespace of the entry point."""
    from gymnasium.envs.registration import register

    for name in names():
        entry_point = "embodied_reward.envs.tasks.env:TaskEnv"
        register(id=name, entry_point=entry_point, kwargs={"task": name})
