"""A simulated arm of the SO-101's class that behaves as hardware does: `--robot.type=er_sim_arm`.

It is an ordinary LeRobot robot. LeRobot's own commands take it with
`--robot.discover_packages_path=embodied_reward.envs.robots.sim_arm`.

LeRobot and torch are loaded when the robot is asked for: the cameras' process needs neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config_er_sim_arm import ErSimArmConfig, FaultsConfig
    from .er_sim_arm import ErSimArm

_LAZY = {
    "ErSimArm": ".er_sim_arm",
    "ErSimArmConfig": ".config_er_sim_arm",
    "FaultsConfig": ".config_er_sim_arm",
}

__all__ = ["ErSimArm", "ErSimArmConfig", "FaultsConfig"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __package__), name)
