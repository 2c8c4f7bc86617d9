"""The project's own suite: small MuJoCo tasks of primitive geometry, made for reward research.

    env = make("embodied_reward/SweepToGoal-MediumStick-v0", size=64)
    env = gymnasium.make("embodied_reward/SweepToGoal-MediumStick-v0", size=64)
"""

from typing import TYPE_CHECKING, Any

from . import catalogue

if TYPE_CHECKING:
    from .env import TaskEnv


def make(task: str, **kwargs: Any) -> "TaskEnv":
    """Build one task; what `embodied_reward.envs.make("embodied_reward/<task>")` calls."""
    from .env import TaskEnv

    return TaskEnv(task, **kwargs)


def task_names() -> list[str]:
    """Return the names of all tasks. Raises MissingDependencyError without MuJoCo."""
    from ..rendering import load_mujoco

    load_mujoco()
    return catalogue.names()
