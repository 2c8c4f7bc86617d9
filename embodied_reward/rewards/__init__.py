"""Reward models: one file per method behind the contract of `base.py`."""

import json
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from pathlib import Path

from embodied_reward import weights
from embodied_reward.errors import CheckpointError, ConfigError, did_you_mean
from embodied_reward.rewards.base import Card, RewardModel, RewardModelConfig
from embodied_reward.rewards.dopamine import DopamineModel
from embodied_reward.rewards.dopamine_config import DopamineConfig
from embodied_reward.rewards.ensemble import EnsembleConfig, EnsembleModel
from embodied_reward.rewards.goal_distance import GoalDistanceConfig, GoalDistanceModel
from embodied_reward.rewards.perceptual import PerceptualModel
from embodied_reward.rewards.perceptual_config import PerceptualConfig
from embodied_reward.rewards.rapl import RaplConfig, RaplModel
from embodied_reward.rewards.remaining_time import RemainingTimeConfig, RemainingTimeModel
from embodied_reward.rewards.rlhf import RlhfConfig, RlhfModel
from embodied_reward.rewards.success import SuccessModel
from embodied_reward.rewards.success_config import SuccessConfig
from embodied_reward.rewards.tcc import TccConfig, TccModel

# config class -> model class; third parties add theirs by entry point.
REWARDS: dict[str, type[RewardModel]] = {
    "dopamine": DopamineModel,
    "remaining_time": RemainingTimeModel,
    "goal_distance": GoalDistanceModel,
    "tcc": TccModel,
    "perceptual": PerceptualModel,
    "rapl": RaplModel,
    "rlhf": RlhfModel,
    "ensemble": EnsembleModel,
    "success": SuccessModel,
}

__all__ = [
    "REWARDS",
    "Card",
    "DopamineConfig",
    "DopamineModel",
    "EnsembleConfig",
    "EnsembleModel",
    "GoalDistanceConfig",
    "GoalDistanceModel",
    "PerceptualConfig",
    "PerceptualModel",
    "RaplConfig",
    "RaplModel",
    "RemainingTimeConfig",
    "RemainingTimeModel",
    "RewardModel",
    "RewardModelConfig",
    "RlhfConfig",
    "RlhfModel",
    "SuccessConfig",
    "SuccessModel",
    "TccConfig",
    "TccModel",
    "load",
    "load_progress",
    "pretrained_folder",
    "registry",
]


class Methods(Mapping[str, type[RewardModel]]):
    """Every known method by name: ours, and third parties', imported when they are asked for."""

    def __init__(self) -> None:
        points = entry_points(group="embodied_reward.rewards")
        self._foreign = {e.name: e for e in points if e.name not in REWARDS}

    def __getitem__(self, name: str) -> type[RewardModel]:
        return REWARDS[name] if name in REWARDS else self._foreign[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter({**REWARDS, **self._foreign})

    def __len__(self) -> int:
        return len(REWARDS) + len(self._foreign)

    def __contains__(self, name: object) -> bool:
        return name in REWARDS or name in self._foreign


def registry() -> Methods:
    """Return every known method: ours and those of the `embodied_reward.rewards` entry points."""
    return Methods()


def load(path: Path | str, *, device: str = "cpu") -> RewardModel:
    """Load a trained reward model in eval mode.

    Args:
        path: a run folder, a checkpoint, or its `pretrained_model` folder.
        device: torch device.

    Raises:
        CheckpointError: nothing there, damaged files, or an unknown type.
    """
    folder = pretrained_folder(Path(path))
    config = json.loads((folder / "config.json").read_text())
    methods = registry()
    if config.get("type") not in methods:
        raise CheckpointError(
            f"'{folder}' holds a reward model of type '{config.get('type')}'; "
            f"{did_you_mean(str(config.get('type')), methods)}"
        )
    return methods[config["type"]].load(folder).to(device).eval()


def load_progress(path: Path | str, *, device: str = "cpu") -> RewardModel:
    """Load a reward model whose potential is going to be used.

    Raises:
        ConfigError: it is a success detector, whose potential is NaN.
        CheckpointError: see `load`.
    """
    model = load(path, device=device)
    if not model.card.progress:
        raise ConfigError(
            f"'{path}' is a success detector and estimates no progress; give it with "
            "--success.path, and a model of progress (such as dopamine) here"
        )
    return model


def pretrained_folder(path: Path) -> Path:
    """Find the `pretrained_model` folder: best checkpoint of a run, else its last, else `path`."""
    return weights.find(path, "reward model", "er train-reward")
