"""LeRobot's robots by name: configurations to and from JSON types, and the robots themselves."""

import contextlib
import importlib
import pkgutil
from typing import Any

import draccus

from embodied_reward.errors import ConfigError, did_you_mean

SIMULATED = "er_sim_arm"


def register(kind: str, packages: tuple[str, ...] = ()) -> None:
    """Import what defines a robot of this type, so that LeRobot's registry knows it.

    Args:
        kind: what follows `--robot.type=`.
        packages: modules that register further robots when they are imported, as
            `--robot.discover_packages_path` of LeRobot's own commands.

    Raises:
        ConfigError: a package cannot be imported.
    """
    from .sim_arm import ErSimArmConfig  # noqa: F401 (its module registers it)

    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"cannot import '{package}', which defines robots: {error}"
            ) from error
    if kind != SIMULATED and not packages:
        _import_all("lerobot.robots")
        _import_all("lerobot.cameras")


def register_teleoperators() -> None:
    """Import LeRobot's teleoperators, so that its registry knows them."""
    _import_all("lerobot.teleoperators")


def decode(tree: dict[str, Any], packages: tuple[str, ...] = ()) -> Any:
    """Return the robot's configuration. Raises ConfigError."""
    from lerobot.robots.config import RobotConfig

    kind = str(tree.get("type"))
    register(kind, packages)
    known = RobotConfig.get_known_choices()
    if kind not in known:
        raise ConfigError(f"unknown --robot.type '{kind}'; {did_you_mean(kind, known)}")
    try:
        return draccus.decode(RobotConfig, tree)
    except (draccus.ParsingError, ValueError, TypeError) as error:
        raise ConfigError(f"bad --robot configuration: {' '.join(str(error).split())}") from error


def encode(config: Any) -> dict[str, Any]:
    """Return JSON types, with the robot's type."""
    return {"type": config.type, **draccus.encode(config)}


def make_robot(config: Any) -> Any:
    """Build the robot, not connected yet. Raises ConfigError where LeRobot cannot."""
    from lerobot.robots import make_robot_from_config

    from .sim_arm import ErSimArm, ErSimArmConfig

    if isinstance(config, ErSimArmConfig):
        return ErSimArm(config)
    try:
        return make_robot_from_config(config)
    except (ValueError, ImportError, TypeError) as error:
        raise ConfigError(f"LeRobot cannot build '{config.type}': {error}") from error


def _import_all(package: str) -> None:
    """Import every device of a LeRobot package whose own dependencies are installed."""
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if module.ispkg:
            with contextlib.suppress(ImportError, OSError):
                importlib.import_module(f"{package}.{module.name}")
