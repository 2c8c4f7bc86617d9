"""Names to environments: `make("metaworld/drawer-open-v3", size=64)`."""

import importlib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from embodied_reward.errors import EnvError, MissingDependencyError, did_you_mean

if TYPE_CHECKING:
    from .base import VisualEnv

ENTRY_POINT_GROUP = "embodied_reward.envs"


class Suite(Protocol):
    """What an adapter module offers under its prefix, here or behind an entry point."""

    def make(self, task: str, **kwargs: Any) -> "VisualEnv":
        """Build one task."""
        ...

    def task_names(self) -> list[str]:
        """Return the tasks this suite can build."""
        ...


# Prefix -> module relative to this package; imported only when one of its tasks is asked for.
SUITES = {
    "metaworld": ".metaworld",
    "trap": ".trap",
    "robosuite": ".robosuite",
    "embodied_reward": ".tasks",
}


def make(env_id: str, **kwargs: Any) -> "VisualEnv":
    """Build an environment from `<suite>/<task>`.

    Args:
        env_id: e.g. "metaworld/drawer-open-v3".
        **kwargs: the suite's own, e.g. views, size, seed, horizon, action_repeat; see
            `embodied_reward.envs.metaworld.MetaWorldEnv`, `embodied_reward.envs.trap.TrapEnv` and
            `embodied_reward.envs.tasks.env.TaskEnv`.

    Raises:
        EnvError: unknown suite or task, naming the nearest ids; a bad argument.
        MissingDependencyError: the simulator is not installed.
    """
    suite = suite_of(env_id)
    try:
        return suite.make(env_id.partition("/")[2], **kwargs)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        raise EnvError(f"'{env_id}' does not take that argument: {error}") from error


def suite_of(env_id: str) -> Suite:
    """Return the suite that builds `env_id`.

    Raises:
        EnvError: unknown suite or task, naming the nearest ids.
        MissingDependencyError: the simulator is not installed.
    """
    prefix, _, task = env_id.partition("/")
    if prefix not in _prefixes():
        # Importing a simulator to answer a typo in its name is worth the better answer.
        raise EnvError(f"unknown environment '{env_id}'; {did_you_mean(env_id, list_envs())}")
    suite = _suite(prefix)
    known = suite.task_names()
    if task not in known:
        ids = [f"{prefix}/{name}" for name in known]
        raise EnvError(f"unknown environment '{env_id}'; {did_you_mean(env_id, ids)}")
    return suite


def list_envs() -> list[str]:
    """Return the ids of all environments whose simulator is installed."""
    return list(_ids())


def _ids() -> Iterator[str]:
    for prefix in _prefixes():
        try:
            names = _suite(prefix).task_names()
        except MissingDependencyError:
            continue
        yield from (f"{prefix}/{name}" for name in names)


def _prefixes() -> list[str]:
    return [*SUITES, *(e.name for e in _third_party() if e.name not in SUITES)]


def _third_party() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _suite(prefix: str) -> Suite:
    if prefix in SUITES:
        return cast(Suite, importlib.import_module(SUITES[prefix], __package__))
    return next(e for e in _third_party() if e.name == prefix).load()
