"""Environments of embodied-reward, imported as `embodied_reward.envs`.

    env = make("metaworld/drawer-open-v3", views=("corner2", "gripperPOV"), size=64, seed=0)

Importing this package imports no simulator; `make` does.
"""

if __name__ != "embodied_reward.envs":
    raise ImportError(f"imported as {__name__!r}; write `import embodied_reward.envs` instead")

import importlib
from typing import TYPE_CHECKING, Any

from .registry import list_envs, make, suite_of

if TYPE_CHECKING:
    from .base import VisualEnv
    from .behaviours import make_behaviour

_LAZY = {"VisualEnv": ".base", "make_behaviour": ".behaviours"}

__all__ = ["VisualEnv", "list_envs", "make", "make_behaviour", "suite_of"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __package__), name)
