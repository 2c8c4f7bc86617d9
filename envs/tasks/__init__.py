"""The project's own suite: small MuJoCo tasks of primitive geometry, made for reward research.

    env = embodied_reward.envs.make("embodied_reward/SweepToGoal-MediumStick-v0", size=64)

Importing this module registers the tasks with Gymnasium (since 1.0 Gymnasium looks for no entry
points); Gymnasium imports it itself where the id names it:

    import embodied_reward.envs.tasks
    env = gymnasium.make("embodied_reward/SweepToGoal-MediumStick-v0", size=64)

    id = "embodied_reward.envs.tasks:embodied_reward/SweepToGoal-MediumStick-v0"
    env = gymnasium.make(id, size=64)
"""

from typing import TYPE_CHECKING, Any

from . import catalogue

if TYPE_CHECKING:
    from .env import TaskEnv

catalogue.register_gymnasium()


def make(task: str, **kwargs: Any) -> "TaskEnv":
    """Build one task; what `embodied_reward.envs.make("embodied_reward/<task>")` calls."""
    from .env import TaskEnv

    return TaskEnv(task, **kwargs)


def task_names() -> list[str]:
    """Return the names of all tasks. Raises MissingDependencyError without MuJoCo."""
    from ..rendering import load_mujoco

    load_mujoco()
    return catalogue.names()
