"""What the methods share that read a potential off the current frame alone.

A method brings its batches (`dataset`), its training objective (`objective`) and its reading
(`read`). Here are view dropout, the success head, streaming, scoring of
episodes and persistence; the encoding of several views is in `visual.py`.

A view that is missing, black or flat is read as the learned token; a row without any view is NaN
with `ok` False. The success head is trained beside the method with a balanced
binary cross-entropy; with `success_weight=0` there is none and success is NaN, because a
potential is no answer to whether the task is done.
"""

import abc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import Card, Carry, RewardModelConfig, Weigh
from embodied_reward.rewards.frame_batches import FrameBatch
from embodied_reward.rewards.frame_network import FrameNetwork, balanced_bce, keep_views, without
from embodied_reward.rewards.visual import VisualModel, split_presence
from embodied_reward.types import Episode, EpisodeScores, Float64, Scores
from embodied_reward.vision.encoders import Encoder, EncoderConfig, build_encoder, rebuild


@dataclass(frozen=True)
class FrameModelConfig(RewardModelConfig):
    """Fields that these methods share."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    dim: int = 128
    """size of a frame's embedding"""
    hidden: int = 256
    """width of the heads"""
    frames: int = 24
    """frames per episode and batch"""
    view_dropout: float = 0.1
    """chance that a view of a frame is replaced by its token in training"""
    shift: int = 3
    """largest random image shift in training [px]"""
    jitter: float = 0.2
    """strength of the colour jitter in training"""
    erase: float = 0.3
    """largest side of the rectangle painted over each image, as a share of the image's side"""
    success_weight: float = 1.0
    """weight of the success head's loss; 0 trains no such head and success is NaN"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        if self.frames < 2:
            raise ConfigError(f"--reward_model.frames={self.frames}: need at least 2")
        if self.success_weight < 0:
            raise ConfigError(f"--reward_model.success_weight={self.success_weight}: need >= 0")


class FrameModel(VisualModel, abc.ABC):
    """Base of the methods; see the module docstring."""

    config: FrameModelConfig
    config_type: ClassVar[type[FrameModelConfig]]

    def __init__(self, config: Any, encoder: Encoder, *, task: str = "") -> None:
        """Wrap an encoder; use `create` to build one for a dataset, `load` for a saved one."""
        super().__init__()
        self.config, self.task, self._digest = config, task, ""
        hidden = config.hidden if config.success_weight else 0
        self.network = FrameNetwork(encoder, views=len(config.views), dim=config.dim, hidden=hidden)

    @classmethod
    def create(cls, config: Any, *, task: str = "") -> Self:
        """Build an untrained model; `config.views` must be set. Uses torch's global seed."""
        return cls(config, build_encoder(config.encoder, config.dim), task=task)

    @property
    def card(self) -> Card:
        """See the base class."""
        return Card(
            type=self.name,
            views=self.config.views,
            image_size=self.image_size,
            task=self.task,
            weights_sha256=self._digest,
            extra={"success": self.config.success_weight > 0},
        )

    # --- what a method brings ---

    @abc.abstractmethod
    def dataset(self, episodes: list[Episode]) -> Any:
        """Decode training episodes. Raises DatasetError: nothing to learn from, or no view."""

    @abc.abstractmethod
    def set_references(self, data: Any) -> None:
        """Keep of the training episodes what `read` needs."""

    @abc.abstractmethod
    def objective(self, fused: Tensor, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """Return the method's loss of fused Tensor["n d"], and its parts for the log.

        The loss is a Tensor["n"] of losses per frame where the method is `weighable`, else a
        scalar.
        """

    @abc.abstractmethod
    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return potential in [0, 1] and its standard deviation, each Tensor["n"].

        Args:
            features: Tensor["n v d"] of single views.
            present: Bool["n v"]; what is False there must not matter.
        """

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return the potential; methods that clip theirs return what they clip."""
        return self.read(*split_presence(features))[0]

    # --- training ---

    def loss(
        self, batch: FrameBatch, weigh: Weigh | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the method's objective plus the success head's loss, and parts as floats.

        Augmentation and dropout act in training mode only and draw from `batch.seed`. `weigh`
        gives the weight of every frame from its fused features, where the method is `weighable`.
        """
        features, present = self._encode_batch(batch)
        fused = self.network.fuse(features, present)
        weights = None if weigh is None else weigh(fused.detach(), batch.variant)
        losses, logs = self.objective(fused, batch)
        total = (losses if weights is None else weights * losses).mean()
        if self.config.success_weight:
            success = self.network.success(fused)
            success = balanced_bce(success, batch.success.to(fused), weights)
            total = total + self.config.success_weight * success
            logs["success_loss"] = success.item()
        return total, {"loss": total.item(), **logs}

    def _encode_batch(self, batch: FrameBatch) -> tuple[Tensor, Tensor]:
        generator, present = torch.Generator().manual_seed(batch.seed), batch.present
        features = self.training_features(batch.frames, present, generator)
        if self.training:
            n, v = present.shape
            keep = keep_views(n, v, self.config.view_dropout, generator)
            present = without(present, keep)
        return features, present.to(features.device)

    # --- inference ---

    def start(self, features: Tensor) -> Carry:
        """See the base class; the potential depends on the current frame alone."""
        return {}

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class."""
        seen, present = split_presence(features)
        potential, success, spread = self._scores(seen, present)
        return Scores(potential, success, spread, np.isfinite(potential)), carry

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; gives the potential of every view on its own as well.

        Frames without any working camera are NaN, and so is a view where it is masked.
        """
        return self.score_features(*split_presence(self.episode_features(episode)))

    def score_features(self, features: Tensor, present: Tensor) -> EpisodeScores:
        """Score an encoded episode, Tensor["t v d"] with bool Tensor["t v"]."""
        potential, success, spread = self._scores(features, present)
        alone = torch.eye(len(self.config.views), dtype=torch.bool, device=features.device)
        per_view = {
            view: self._scores(features, present & alone[k])[0]
            for k, view in enumerate(self.config.views)
        }
        return EpisodeScores(potential, success, spread, {}, per_view)

    def _scores(self, features: Tensor, present: Tensor) -> tuple[Float64, Float64, Float64]:
        """Return potential, success and spread; NaN where there is no view at all."""
        potential, spread = self.read(features, present)
        success = self.network.success(self.network.fuse(features, present)).sigmoid()
        seen = present.any(1)
        potential, success, spread = (
            torch.where(seen, values, torch.nan).cpu().double().numpy()
            for values in (potential, success, spread)
        )
        return potential, success, spread

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """See the base class; encoder architecture and references are included."""
        tree = {
            "type": self.name,
            "task": self.task,
            "config": configs.encode(self.config),
            "encoder": self.network.encoder.description(),
        }
        weights.save(self, tree, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load `config.json` and `model.safetensors`. Raises CheckpointError if altered."""
        tree, state, digest = weights.load(folder)
        fields = {k: v for k, v in tree["config"].items() if k != "type"}
        config = configs.decode(cls.config_type, fields)
        model = cls(config, rebuild(tree["encoder"]), task=tree["task"])
        for name, _ in list(model.named_buffers(recurse=False)):
            setattr(model, name, state[name])  # their sizes depend on the training episodes
        model.load_state_dict(state)
        model._digest = digest
        return model.eval()
