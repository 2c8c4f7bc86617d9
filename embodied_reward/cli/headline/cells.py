"""What a cell is, where its files are, and which of them are finished."""

import importlib.metadata
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_reward import __version__
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.headline.config import CONDITIONS, HeadlineConfig, environment
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing

_PACKAGES = ("torch", "stable-baselines3", "gymnasium", "numpy", "mujoco", "metaworld")


@dataclass(frozen=True, order=True)
class Scene:
    """A task under a seed: everything that the conditions share is prepared once for it."""

    task: str
    seed: int

    @property
    def name(self) -> str:
        """Return a name for files."""
        return f"{self.task.replace('/', '-')}_seed{self.seed}"


@dataclass(frozen=True, order=True)
class Cell:
    """One run of the study."""

    scene: Scene
    condition: str

    @property
    def name(self) -> str:
        """Return a name for files."""
        return f"{self.scene.name}_{self.condition}"


@dataclass(frozen=True)
class Folders:
    """Where the study's files are, below `root`."""

    root: Path

    def demo(self, scene: Scene) -> Path:
        """Return the data set of the one demonstration."""
        return self.root / "prepared" / scene.name / "demo"

    def prepared(self, scene: Scene, name: str) -> Path:
        """Return a file or folder of what the scene's conditions share."""
        return self.root / "prepared" / scene.name / name

    def run(self, cell: Cell) -> Path:
        """Return the training run's folder."""
        return self.root / "runs" / cell.name

    def result(self, cell: Cell) -> Path:
        """Return the finished cell's file."""
        return self.root / "cells" / f"{cell.name}.json"

    def log(self, name: str) -> Path:
        """Return what a job printed."""
        return self.root / "logs" / f"{name}.log"


@dataclass
class Clock:
    """Wall and CPU seconds of this process since it was built."""

    wall: float = field(default_factory=time.monotonic)
    cpu: float = field(default_factory=time.process_time)

    def seconds(self) -> dict[str, float]:
        """Return both, rounded to a tenth."""
        wall, cpu = time.monotonic() - self.wall, time.process_time() - self.cpu
        return {"wall_seconds": round(wall, 1), "cpu_seconds": round(cpu, 1)}


def cells_of(config: HeadlineConfig) -> list[Cell]:
    """Return all cells in the order in which they run: every condition of a seed, then the next.

    A study that is stopped early then still compares conditions on the same scenes.
    """
    return [
        Cell(Scene(task, seed), condition)
        for seed in config.seeds
        for task in config.tasks
        for condition in CONDITIONS
        if condition in config.conditions
    ]


def env_of(config: HeadlineConfig, scene: Scene) -> EnvConfig:
    """Return the environment's configuration."""
    return EnvConfig(
        id=environment(scene.task), horizon=config.horizon, action_repeat=config.action_repeat
    )


def versions() -> dict[str, str]:
    """Return what computed the numbers."""
    known = {"python": platform.python_version(), "embodied-reward": __version__}
    for package in _PACKAGES:
        try:
            known[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            known[package] = "none"
    return known


def write_json(path: Path, tree: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a file that is complete or absent."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a file of `write_json`. Raises ConfigError if it is none."""
    try:
        return json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"'{path}' cannot be read as JSON: {error}") from error
