"""The names of the suite's tasks, and their registration with Gymnasium; loads no simulator."""

import importlib
from typing import TYPE_CHECKING

from gymnasium.envs.registration import register

from embodied_reward.errors import EnvError, did_you_mean

if TYPE_CHECKING:
    from .rules import Rules

PREFIX = "embodied_reward"
VERSION = "v0"
PLANAR = ("SweepToGoal", "Avoid", "Group")
TABLETOP = ("TableReach", "TablePush", "TableDrawer", "TablePeg")
EMBODIMENTS = ("Gripper", "ShortStick", "MediumStick", "LongStick")


def names() -> list[str]:
    """Return every task's name, e.g. "SweepToGoal-MediumStick-v0"."""
    planar = [f"{task}-{body}-{VERSION}" for task in PLANAR for body in EMBODIMENTS]
    return planar + [f"{task}-{VERSION}" for task in TABLETOP]


def rules_of(name: str) -> "Rules":
    """Build the rules of one task. Raises EnvError naming the nearest."""
    if name not in names():
        raise EnvError(f"unknown task '{PREFIX}/{name}'; {did_you_mean(name, names())}")
    task, *body = name.removesuffix(f"-{VERSION}").split("-")
    return _all_rules()[task](*body)


def rules_class(description: str) -> type["Rules"]:
    """Return the rules that a recorded episode's task text names. Raises EnvError."""
    by_text = {rules.description: rules for rules in _all_rules().values()}
    if description not in by_text:
        raise EnvError(
            f"'{description}' is no task of the suite; {did_you_mean(description, by_text)}"
        )
    return by_text[description]


def _all_rules() -> dict[str, type["Rules"]]:
    modules = (importlib.import_module(m, __package__) for m in (".planar", ".tabletop"))
    return {name: rules for module in modules for name, rules in module.TASKS.items()}


def register_gymnasium() -> None:
    """Register every task with Gymnasium as "embodied_reward/<name>"."""
    for name in names():
        entry_point = f"{__package__}.env:TaskEnv"
        register(id=f"{PREFIX}/{name}", entry_point=entry_point, kwargs={"task": name})
