r"""`dopamine`: a multi-view process reward from step-discretised hops.

After Robo-Dopamine (arXiv:2512.23703, sections 3.1-3.2), with a small network in place of the
vision-language model. A pair of moments is compared by the hop head, which predicts the signed
relative progress H in [-1, 1] (`math/hops.py`). Three readings of an episode follow:

    incremental  Phi_I(t) = apply_hop(Phi*(t-1), H(s_{t-1}, s_t)),  Phi*(0) = 0      (Eq. 5)
    forward      Phi_F(t) = H(s_init, s_t)                                           (Eq. 6)
    backward     Phi_B(t) = 1 + H(s_goal, s_t)                                       (Eq. 7)
    mean         Phi*     = (Phi_I + Phi_F + Phi_B) / 3                              (Eq. 8)

and `anchored` = (Phi_F + Phi_B) / 2, which depends on the current frame and the episode's first
frame only and therefore is the Markov potential to shape a policy's reward with.

Deviations: references show every camera, not the front one only; the goal frames come from
training demonstrations and are stored in the checkpoint, and all hops are averaged over them;
the head is a two-hot distribution, so its spread gives an uncertainty; a success head is
trained beside it, because success must not be read off progress.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_reward import config as configs
from embodied_reward.errors import DatasetError
from embodied_reward.math import two_hot
from embodied_reward.math.fusion import fuse, incremental, read_modes
from embodied_reward.rewards import weights
from embodied_reward.rewards.base import Card, Carry, RewardModel, device_of
from embodied_reward.rewards.dopamine_batches import HopBatch, HopDataset, auto_chunk
from embodied_reward.rewards.dopamine_config import DopamineConfig
from embodied_reward.rewards.dopamine_network import HopNetwork
from embodied_reward.rewards.dopamine_reader import HopReader
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64, Scores, UInt8
from embodied_reward.vision.augment import colour_jitter, random_erase, random_shift
from embodied_reward.vision.encoders import build_encoder, rebuild
from embodied_reward.vision.frames import episode_frames
from embodied_reward.vision.preprocess import to_input


class DopamineModel(RewardModel):
    """Multi-view pairwise hop model; see the module docstring for the equations."""

    name: ClassVar[str] = "dopamine"
    config: DopamineConfig

    def __init__(self, config: DopamineConfig, network: HopNetwork, *, task: str = "") -> None:
        """Wrap a network; use `create` to build one for a dataset, `load` for a saved one."""
        super().__init__()
        self.config, self.network, self.task = config, network, task
        size = network.encoder.image_size
        empty = torch.zeros(0, len(config.views), size, size, 3, dtype=torch.uint8)
        self.register_buffer("reference_start", empty)
        self.register_buffer("reference_goal", empty.clone())
        self._cached_reader: HopReader | None = None
        self._digest = ""

    @classmethod
    def create(cls, config: DopamineConfig, *, task: str = "") -> "DopamineModel":
        """Build an untrained model; `config.views` must be set. Uses torch's global seed."""
        encoder = build_encoder(config.encoder, config.dim)
        return cls(config, _network(config, encoder), task=task)

    @property
    def card(self) -> Card:
        """See the base class."""
        return Card(
            type=self.name,
            views=self.config.views,
            image_size=self.network.encoder.image_size,
            markov=self.config.inference not in ("incremental", "mean"),
            task=self.task,
            weights_sha256=self._digest,
            extra={"inference": self.config.inference, "references": len(self.reference_goal)},
        )

    # --- training ---

    def dataset(self, episodes: list[Episode]) -> HopDataset:
        """Decode training episodes. Raises DatasetError: none is successful, a view is missing."""
        return HopDataset(
            episodes,
            views=self.config.views,
            size=self.network.encoder.image_size,
            chunk=self.config.chunk or auto_chunk(episodes),
            sampler=self.config.sampler(),
            reference_swap=self.config.reference_swap,
        )

    def set_references(self, data: HopDataset) -> None:
        """Keep start and goal frames of the training demonstrations for inference."""
        start, goal = data.references(self.config.references)
        device = device_of(self)
        self.reference_start, self.reference_goal = start.to(device), goal.to(device)
        self._cached_reader = None

    def loss(self, batch: HopBatch) -> tuple[Tensor, dict[str, float]]:
        """Two-hot cross-entropy of the hops plus balanced BCE of success.

        Augmentation and dropout act in training mode only and draw from `batch.seed`.

        Returns:
            Scalar loss and its parts as floats.
        """
        net, generator = self.network, torch.Generator().manual_seed(batch.seed)
        embedding = net.fuse(self._encode_batch(batch, generator))
        start = self._reference(embedding[batch.start], 0, generator)
        goal = self._reference(embedding[batch.goal], 1, generator)
        logits = net.hop(embedding[batch.before], embedding[batch.after], start, goal)
        hop_loss = two_hot.cross_entropy(logits, batch.hop).mean()
        frame_goal = self._reference(embedding[batch.frame_goal], 1, generator)
        success_loss = _balanced_bce(net.success(embedding, frame_goal), batch.success)
        total = hop_loss + self.config.success_weight * success_loss
        mean, _ = two_hot.expectation(logits.detach())
        return total, {
            "loss": total.item(),
            "hop_loss": hop_loss.item(),
            "hop_mae": (mean - batch.hop).abs().mean().item(),
            "success_loss": success_loss.item(),
        }

    def _encode_batch(self, batch: HopBatch, generator: torch.Generator) -> Tensor:
        n, v = batch.frames.shape[:2]
        images = to_input(batch.frames.flatten(0, 1), self.network.encoder.image_size)
        present = torch.ones(n, v, dtype=torch.bool, device=images.device)
        if self.training and self.network.encoder.trainable:
            images = random_shift(images, self.config.shift, generator)
            images = colour_jitter(images, self.config.jitter, generator)
            images = random_erase(images, self.config.erase, generator)
        if self.training:
            present = _view_dropout(n, v, self.config.view_dropout, generator).to(images.device)
        return self.network.encode(images.unflatten(0, (n, v)), present)

    def _reference(self, embedding: Tensor, which: int, generator: torch.Generator) -> Tensor:
        if not self.training:
            return embedding
        keep = torch.rand(len(embedding), generator=generator) >= self.config.context_dropout
        return self.network.drop_reference(embedding, keep.to(embedding.device), which)

    # --- inference ---

    def encode(self, frames: Mapping[str, UInt8]) -> Tensor:
        """See the base class; a view that `frames` lacks is masked.

        Raises:
            DatasetError: none of the model's views is there.
        """
        given = [v for v in self.config.views if v in frames]
        if not given:
            raise DatasetError(
                f"the reward model needs the views {', '.join(self.config.views)}; "
                f"the frames have {', '.join(frames) or 'none'}"
            )
        size, device = self.network.encoder.image_size, device_of(self)
        n = len(frames[given[0]])
        images = torch.zeros(n, len(self.config.views), 3, size, size, device=device)
        present = torch.zeros(n, len(self.config.views), dtype=torch.bool, device=device)
        for k, view in enumerate(self.config.views):
            if view in frames:
                images[:, k] = to_input(torch.from_numpy(np.array(frames[view])).to(device), size)
                present[:, k] = True
        return self.network.encode(images, present)

    def start(self, features: Tensor) -> Carry:
        """See the base class."""
        first = self.network.fuse(features)
        fused = torch.zeros(len(first), dtype=torch.float64, device=first.device)
        begun = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        return {"first": first, "previous": first, "fused": fused, "begun": begun}

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class; Phi*(t-1) of the carry enters the incremental reading only."""
        now, reader = self.network.fuse(features), self._reader()
        anchors = reader.anchored(carry["first"], now)
        hop, _ = reader.hop(carry["previous"], now)
        step = incremental(carry["fused"].cpu().numpy(), hop)
        step = np.where(carry["begun"].cpu().numpy(), step, 0.0)
        potential = fuse(step, anchors, self.config.inference)
        after = {
            "first": carry["first"],
            "previous": now,
            "fused": torch.from_numpy(fuse(step, anchors, "mean")).to(now.device),
            "begun": torch.ones_like(carry["begun"]),
        }
        scores = Scores(potential, reader.success(now), anchors.spread, np.isfinite(potential))
        return scores, after

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; gives every mode and every view on its own as well."""
        features = self._episode_features(episode)
        embedding = self.network.fuse(features)
        modes, spread = self._modes(embedding)
        per_view = {}
        for k, view in enumerate(self.config.views):
            present = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
            present[:, k] = True
            alone, _ = self._modes(self.network.fuse(self.network.mask(features, present)))
            per_view[view] = alone[self.config.inference]
        return EpisodeScores(
            potential=modes[self.config.inference],
            success=self._reader().success(embedding),
            uncertainty=spread,
            modes=modes,
            per_view=per_view,
        )

    @torch.inference_mode()
    def hops(self, episode: Episode, before: Int64, after: Int64) -> Float64:
        """Predict hops in [-1, 1] between frames of one episode, Int64["p"] -> Float64["p"]."""
        embedding = self.network.fuse(self._episode_features(episode))
        hop, _ = self._reader().hop(embedding[before], embedding[after])
        return hop

    def _episode_features(self, episode: Episode) -> Tensor:
        size, device = self.network.encoder.image_size, device_of(self)
        frames = episode_frames(episode, self.config.views, size)
        parts = [self._encode_frames(chunk.to(device)) for chunk in frames.split(128)]
        return torch.cat(parts)

    def _encode_frames(self, frames: Tensor) -> Tensor:
        n, v = frames.shape[:2]
        images = to_input(frames.flatten(0, 1), self.network.encoder.image_size)
        return self.network.encode(images.unflatten(0, (n, v)))

    def _reader(self) -> HopReader:
        if self._cached_reader is None or self.training:
            start = self.network.fuse(self._encode_frames(self.reference_start))
            goal = self.network.fuse(self._encode_frames(self.reference_goal))
            self._cached_reader = HopReader(self.network, start, goal)
        return self._cached_reader

    def _modes(self, embedding: Tensor) -> tuple[dict[str, Float64], Float64]:
        """Return every mode's potential Float64["t"] and the spread of the anchored one."""
        reader = self._reader()
        anchors = reader.anchored(embedding[:1].expand_as(embedding), embedding)
        hops, _ = reader.hop(embedding[:-1], embedding[1:])
        return read_modes(hops, anchors), anchors.spread

    def train(self, mode: bool = True) -> "DopamineModel":
        """Forget cached reference embeddings whenever the weights may change."""
        self._cached_reader = None
        super().train(mode)
        return self

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """See the base class; encoder architecture and reference frames are included."""
        tree: dict[str, Any] = {
            "type": self.name,
            "task": self.task,
            "config": configs.encode(self.config),
            "encoder": self.network.encoder.description(),
        }
        weights.save(self, tree, folder)

    @classmethod
    def load(cls, folder: Path) -> "DopamineModel":
        """Load `config.json` and `model.safetensors`. Raises CheckpointError if altered."""
        tree, state, digest = weights.load(folder)
        fields = {k: v for k, v in tree["config"].items() if k != "type"}
        config = configs.decode(DopamineConfig, fields)
        model = cls(config, _network(config, rebuild(tree["encoder"])), task=tree["task"])
        model.reference_start = state["reference_start"]
        model.reference_goal = state["reference_goal"]
        model.load_state_dict(state)
        model._digest = digest
        return model.eval()


def _network(config: DopamineConfig, encoder: Any) -> HopNetwork:
    return HopNetwork(
        encoder, views=len(config.views), dim=config.dim, hidden=config.hidden, bins=config.bins
    )


def _view_dropout(n: int, v: int, rate: float, generator: torch.Generator) -> Tensor:
    """Return Bool["n v"] with every row keeping at least one view."""
    keep = torch.rand(n, v, generator=generator) >= rate
    keep[torch.arange(n), torch.randint(0, v, (n,), generator=generator)] = True
    return keep


def _balanced_bce(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy in which both classes weigh the same, however rare one is."""
    positive = target.sum().clamp(min=1)
    negative = (len(target) - target.sum()).clamp(min=1)
    weight = torch.where(target > 0.5, 0.5 / positive, 0.5 / negative)
    return F.binary_cross_entropy_with_logits(logits, target, weight=weight, reduction="sum")
