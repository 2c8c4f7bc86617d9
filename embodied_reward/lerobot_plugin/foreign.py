"""LeRobot's own reward models behind our `RewardModel` contract, so that one table compares them.

    er eval-reward --reward_model.path=OURS --compare=LEROBOT_CHECKPOINT --dataset.root=UNSEEN

They are found by the entry points `embodied_reward.rewards`, which map LeRobot's `type` to a class
here. All of them score whole episodes: SARM looks ahead, the language models look at what came
before. They are trained by LeRobot, not by `er train-reward`.

LeRobot loads what a checkpoint names (`model_name`, `vlm_name`, `base_model_id`) with
`trust_remote_code=True`. Here only LeRobot's own defaults are loaded by name; anything else must
be a local folder without code in it.
"""

import abc
import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_reward.data.schema import view_name
from embodied_reward.errors import CheckpointError, DatasetError
from embodied_reward.files import sha256
from embodied_reward.rewards.base import Card, RewardModel, RewardModelConfig, device_of
from embodied_reward.types import Episode, EpisodeScores, Float64

CHUNK = 64
"""Frames of one forward pass."""

SIDE = 224
"""What cards say of the input's side [px]; each model resizes as its own processor does."""

DEFAULTS = (
    "lerobot/resnet10",
    "Qwen/Qwen3-VL-4B-Instruct",
    "Qwen/Qwen3-VL-8B-Instruct",
)
"""What LeRobot's types load unless told otherwise."""


class LeRobotModel(RewardModel):
    """Base of the adapters.

    Args:
        model: LeRobot's model, in eval mode.
        folder: its checkpoint.
    """

    name: ClassVar[str]

    def __init__(self, model: Any, folder: Path) -> None:
        super().__init__()
        self.model, self.folder = model, folder
        self.config = RewardModelConfig(views=tuple(view_name(key) for key in self.image_keys))

    @property
    @abc.abstractmethod
    def image_keys(self) -> tuple[str, ...]:
        """LeRobot's keys of the pictures it looks at."""

    @property
    def card(self) -> Card:
        """See the base class; the digest is that of the weights, or of the config without any."""
        weights = self.folder / "model.safetensors"
        return Card(
            type=self.name,
            views=self.config.views,
            image_size=SIDE,
            markov=False,
            streaming=False,
            weights_sha256=sha256(weights if weights.is_file() else self.folder / "config.json"),
            extra={"trained_by": "lerobot"},
        )

    @torch.no_grad()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; what the model does not estimate is NaN."""
        missing = [view for view in self.config.views if view not in episode.views]
        if missing:
            raise DatasetError(
                f"LeRobot's '{self.name}' needs the views {', '.join(self.config.views)}; "
                f"{episode.source} has {', '.join(episode.views) or 'none'}. The checkpoint's "
                "config.json names them (image_key, input_features)"
            )
        potential, success = self.read(episode)
        return EpisodeScores(potential, success, np.full(len(episode), np.nan))

    @abc.abstractmethod
    def read(self, episode: Episode) -> tuple[Float64, Float64]:
        """Return potential in [0, 1] and success probability of every frame, Float64["t"]."""

    def save(self, folder: Path) -> None:
        """Write LeRobot's checkpoint."""
        self.model.save_pretrained(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load LeRobot's checkpoint. Raises CheckpointError."""
        from lerobot.configs.rewards import RewardModelConfig as LeRobotConfig
        from lerobot.rewards import make_reward_model

        tree = json.loads((folder / "config.json").read_text())
        for key in ("model_name", "vlm_name", "base_model_id"):
            if key in tree:
                check_source(str(tree[key]), folder)
        config = LeRobotConfig.from_pretrained(folder, cli_overrides=["--device=cpu"])
        config.pretrained_path = str(folder)
        try:
            return cls(make_reward_model(config).eval(), folder)
        except OSError as error:
            raise CheckpointError(
                f"LeRobot cannot load '{folder}': {' '.join(str(error).split())[:300]}"
            ) from error

    def pictures(self, episode: Episode, key: str) -> Tensor:
        """Return one view's frames as LeRobot gives them, float Tensor["t 3 h w"] in [0, 1]."""
        frames = torch.from_numpy(np.array(episode.views[view_name(key)]))
        return frames.permute(0, 3, 1, 2).float() / 255

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return device_of(self)


def check_source(name: str, folder: Path) -> None:
    """Refuse to let LeRobot run code that a checkpoint points at. Raises CheckpointError."""
    if name in DEFAULTS:
        return
    if not Path(name).is_dir():
        raise CheckpointError(
            f"'{folder}' is built on '{name}', which LeRobot would load with the code that lies "
            "beside it; download it, look at it, and write the local folder into config.json"
        )
    coded = [f for f in Path(name).glob("*.json") if "auto_map" in f.read_text(errors="replace")]
    if coded or any(Path(name).glob("*.py")):
        raise CheckpointError(
            f"'{name}', on which '{folder}' is built, brings code of its own "
            f"({coded[0].name if coded else '*.py'}: auto_map); it is not run"
        )


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """Return float Tensor["t 3 h w"] at another size, antialiased."""
    if images.shape[-2:] == (height, width):
        return images
    found = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return found.clamp(0, 1)
