"""Tasks of robosuite 1.5 as `VisualEnv`s, through the `robosuite` package.

    env = embodied_reward.envs.make("robosuite/Lift", views=("agentview",), size=84)

Importing this module registers the tasks with Gymnasium; Gymnasium imports it itself where the id
names it: `gymnasium.make("embodied_reward.envs.robosuite:robosuite/Lift")`.
"""

from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

from .tasks import SUITE, TASKS

if TYPE_CHECKING:
    from .env import RobosuiteEnv

for _name in TASKS:
    register(
        id=f"{SUITE}/{_name}", entry_point=f"{__name__}.env:RobosuiteEnv", kwargs={"task": _name}
    )


def make(task: str, **kwargs: Any) -> "RobosuiteEnv":
    """Build one task; what `embodied_reward.envs.make("robosuite/<task>")` calls."""
    from .env import RobosuiteEnv

    return RobosuiteEnv(task, **kwargs)


def task_names() -> list[str]:
    """Return the names of all tasks, e.g. "Lift". Raises MissingDependencyError."""
    from .backend import check_installed

    check_installed()
    return list(TASKS)
