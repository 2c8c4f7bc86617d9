"""What the methods share that read a potential off the current frame alone.

A method brings its batches (`dataset`), its training objective (`objective`) and its reading
(`read`). Here are the encoding of several views, augmentation, view dropout, the success head,
streaming, scoring of episodes and persistence.

A view that is missing is NaN in the features and is read as the learned token; a row without
any view is NaN with `ok` False. The success head is trained beside the method with a balanced
binary cross-entropy; with `success_weight=0` there is none and success is NaN, because a
potential is no answer to whether the task is done.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.rewards.base import Card, Carry, RewardModel, RewardModelConfig, device_of
from embodied_reward.rewards.frame_batches import FrameBatch, FrameDataset
from embodied_reward.rewards.frame_network import FrameNetwork, balanced_bce, keep_views
from embodied_reward.types import Episode, EpisodeScores, Float64, Scores, UInt8
from embodied_reward.vision.augment import augment
from embodied_reward.vision.encoders import Encoder, EncoderConfig, build_encoder, rebuild
from embodied_reward.vision.frames import episode_frames
from embodied_reward.vision.preprocess import to_input


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


class FrameModel(RewardModel, abc.ABC):
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

    @property
    def image_size(self) -> int:
        """Side of the encoder's input [px]."""
        return self.network.encoder.image_size

    # --- what a method brings ---

    @abc.abstractmethod
    def dataset(self, episodes: list[Episode]) -> FrameDataset:
        """Decode training episodes. Raises DatasetError: none is successful, a view is missing."""

    @abc.abstractmethod
    def set_references(self, data: FrameDataset) -> None:
        """Keep of the training episodes what `read` needs."""

    @abc.abstractmethod
    def objective(self, fused: Tensor, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """Return the method's loss of fused Tensor["n d"], and its parts for the log."""

    @abc.abstractmethod
    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return potential in [0, 1] and its standard deviation, each Tensor["n"].

        Args:
            features: Tensor["n v d"] of single views.
            present: Bool["n v"]; what is False there must not matter.
        """

    # --- training ---

    def loss(self, batch: FrameBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the method's objective plus the success head's loss, and parts as floats.

        Augmentation and dropout act in training mode only and draw from `batch.seed`.
        """
        generator = torch.Generator().manual_seed(batch.seed)
        features, present = self._encode_batch(batch.frames, generator)
        fused = self.network.fuse(features, present)
        total, logs = self.objective(fused, batch)
        if self.config.success_weight:
            success = balanced_bce(self.network.success(fused), batch.success.to(fused))
            total = total + self.config.success_weight * success
            logs["success_loss"] = success.item()
        return total, {"loss": total.item(), **logs}

    def _encode_batch(self, frames: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        n, v = frames.shape[:2]
        images = to_input(frames.to(device_of(self)).flatten(0, 1), self.image_size)
        present = torch.ones(n, v, dtype=torch.bool)
        if self.training and self.network.encoder.trainable:
            c = self.config
            images = augment(images, generator, shift=c.shift, jitter=c.jitter, erase=c.erase)
        if self.training:
            present = keep_views(n, v, self.config.view_dropout, generator)
        return self.network.encode(images.unflatten(0, (n, v))), present.to(images.device)

    # --- inference ---

    def encode(self, frames: Mapping[str, UInt8]) -> Tensor:
        """See the base class; a view that `frames` lacks is NaN.

        Raises:
            DatasetError: none of the model's views is there.
        """
        views, device = self.config.views, device_of(self)
        given = [k for k, view in enumerate(views) if view in frames]
        if not given:
            raise DatasetError(
                f"the reward model needs the views {', '.join(views)}; "
                f"the frames have {', '.join(frames) or 'none'}"
            )
        shown = [torch.from_numpy(np.array(frames[views[k]])).to(device) for k in given]
        images = torch.stack([to_input(s, self.image_size) for s in shown], 1)
        found = self.network.encode(images)
        features = found.new_full((len(found), len(views), found.shape[-1]), torch.nan)
        features[:, given] = found
        return features

    def start(self, features: Tensor) -> Carry:
        """See the base class; the potential depends on the current frame alone."""
        return {}

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class."""
        present = torch.isfinite(features).all(-1)
        potential, success, spread = self._scores(features, present)
        ok = present.any(-1).cpu().numpy() & np.isfinite(potential)
        potential, success, spread = (
            np.where(ok, values, np.nan) for values in (potential, success, spread)
        )
        return Scores(potential, success, spread, ok), carry

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; gives the potential of every view on its own as well."""
        frames = episode_frames(episode, self.config.views, self.image_size)
        features = torch.cat([self.encode_frames(part) for part in frames.split(128)])
        present = torch.ones_like(features[..., 0], dtype=torch.bool)
        potential, success, spread = self._scores(features, present)
        alone = torch.eye(len(self.config.views), dtype=torch.bool, device=features.device)
        per_view = {
            view: _numbers(self.read(features, alone[k].expand_as(present))[0])
            for k, view in enumerate(self.config.views)
        }
        return EpisodeScores(potential, success, spread, {}, per_view)

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode uint8 Tensor["n v h w 3"], already of the model's size, to Tensor["n v d"]."""
        images = to_input(frames.to(device_of(self)).flatten(0, 1), self.image_size)
        return self.network.encode(images.unflatten(0, frames.shape[:2]))

    def _scores(self, features: Tensor, present: Tensor) -> tuple[Float64, Float64, Float64]:
        potential, spread = self.read(features, present)
        success = self.network.success(self.network.fuse(features, present)).sigmoid()
        return _numbers(potential), _numbers(success), _numbers(spread)

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


def _numbers(values: Tensor) -> Float64:
    return values.cpu().double().numpy()
