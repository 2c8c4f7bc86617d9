r"""`dopamine`: a multi-view process reward from step-discretised hops.

After Robo-Dopamine (arXiv:2512.23703, sections 3.1-3.2), with a small network in place of the
vision-language model. A pair of moments is compared by the hop head, which predicts the signed
relative progress H in [-1, 1] (`math/hops.py`). Progress along an episode is read from hops in
three ways and fused (`math/fusion.py`). The default fusion depends on the current frame and the
episode's first frame only and therefore is a Markov potential to shape a policy's reward with.

A camera that is missing, black or flat is masked; any subset of the views can be read.

Uncertainty is the standard deviation that joins the spread of the hop distributions (over
references and heads), the disagreement of the two anchors and that of the views.

Deviations: references show every camera, not the front one only; the goal frames come from
training demonstrations and are stored in the checkpoint, and all hops are averaged over them;
the heads are two-hot distributions; a success head is trained beside them, because success must
not be read off progress.
"""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import DatasetError
from embodied_reward.math.fusion import (
    MARKOV,
    Anchors,
    Reading,
    advance,
    begin,
    read_mode,
    read_modes,
)
from embodied_reward.rewards.base import Card, Carry, Weigh, device_of
from embodied_reward.rewards.dopamine_assembly import BatchSettings, HopBatch
from embodied_reward.rewards.dopamine_batches import HopDataset
from embodied_reward.rewards.dopamine_config import DopamineConfig
from embodied_reward.rewards.dopamine_demos import decode_demos
from embodied_reward.rewards.dopamine_loss import HopLoss
from embodied_reward.rewards.dopamine_network import HopNetwork
from embodied_reward.rewards.dopamine_reader import HopReader, subsets
from embodied_reward.rewards.visual import VisualModel, split_presence
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64, Scores
from embodied_reward.vision.encoders import build_encoder, rebuild


class DopamineModel(VisualModel):
    """Multi-view pairwise hop model; see the module docstring."""

    name: ClassVar[str] = "dopamine"
    weighable: ClassVar[bool] = True
    config: DopamineConfig

    def __init__(self, config: DopamineConfig, network: HopNetwork, *, task: str = "") -> None:
        """Wrap a network; use `create` to build one for a dataset, `load` for a saved one."""
        super().__init__()
        self.config, self.network, self.task = config, network, task
        size = network.encoder.image_size
        empty = torch.zeros(0, len(config.views), size, size, 3, dtype=torch.uint8)
        self.register_buffer("reference_start", empty)
        self.register_buffer("reference_goal", empty.clone())
        self.reference_tasks: tuple[str, ...] = ()
        self._readers: dict[str, HopReader] = {}
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
            image_size=self.image_size,
            markov=self.config.inference in MARKOV,
            task=self.task,
            weights_sha256=self._digest,
            extra={
                "inference": self.config.inference,
                "references": len(self.reference_goal),
                "tasks": sorted(set(self.reference_tasks)),
            },
        )

    # --- training ---

    def dataset(self, episodes: list[Episode]) -> HopDataset:
        """Decode training episodes. Raises DatasetError: none is successful, no view is there."""
        config = self.config
        demos = decode_demos(
            episodes,
            views=config.views,
            size=self.image_size,
            chunk=config.chunk,
            subtasks=config.subtasks,
            n_subtasks=config.n_subtasks,
        )
        settings = BatchSettings(
            sampler=config.sampler(),
            reference_swap=config.reference_swap,
            mismatch=config.mismatch,
            reverse=config.reverse,
            failure_margin=config.failure_margin,
            heads=config.heads,
        )
        return HopDataset(demos, settings)

    def set_references(self, data: HopDataset) -> None:
        """Keep start and goal frames of the training demonstrations for inference."""
        start, goal, tasks = data.references(self.config.references)
        device = device_of(self)
        self.reference_start, self.reference_goal = start.to(device), goal.to(device)
        self.reference_tasks = tuple(tasks)
        self._readers = {}

    def loss(self, batch: HopBatch, weigh: Weigh | None = None) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of a batch and its parts; see `HopLoss`."""
        return HopLoss(self.network, self.config, batch, self.training_features, weigh)()

    # --- inference ---

    def start(self, features: Tensor) -> Carry:
        """See the base class."""
        first = self._subsets(features)
        unknown = torch.zeros(len(first), dtype=torch.float64, device=first.device)
        begun = torch.zeros(len(first), dtype=torch.bool, device=first.device)
        return {
            "first": first,
            "previous": first[:, 0],
            "potential": unknown,
            "variance": unknown.clone(),
            "begun": begun,
        }

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class. A row without any working camera is NaN and not `ok`."""
        now, reader = self._subsets(features), self._reader(self.task)
        _, present = split_presence(features)
        ok = present.any(1).cpu().numpy()
        anchors, spread = reader.joint(carry["first"], now, present)
        fused = self._advance(reader, now[:, 0], anchors, carry)
        after = {
            "first": carry["first"],
            "previous": now[:, 0],
            "potential": torch.from_numpy(fused.mean).to(now.device),
            "variance": torch.from_numpy(fused.variance).to(now.device),
            "begun": torch.ones_like(carry["begun"]),
        }
        values = (fused.mean, reader.success(now[:, 0]), spread)
        return Scores(*(np.where(ok, value, np.nan) for value in values), ok=ok), after

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; gives every mode and every view on its own as well.

        Frames without any working camera are NaN, and so is a view where it is masked.
        """
        features, reader = self.episode_features(episode), self._reader(episode.task)
        embedding, (_, present) = self._subsets(features), split_presence(features)
        hops, anchors = reader.along(embedding[:, 0])
        _, spread = reader.joint(embedding[:1].expand_as(embedding), embedding, present)
        ok = present.any(1).cpu().numpy()
        modes = read_modes(hops, anchors, self.config.gate())
        modes = {mode: np.where(ok, values, np.nan) for mode, values in modes.items()}
        return EpisodeScores(
            potential=modes[self.config.inference],
            success=np.where(ok, reader.success(embedding[:, 0]), np.nan),
            uncertainty=np.where(ok, spread, np.nan),
            modes=modes,
            per_view=self._per_view(reader, embedding, present),
        )

    @torch.inference_mode()
    def readings(self, episode: Episode) -> tuple[Reading, Anchors]:
        """Return the hops between adjacent frames and the anchored readings of every frame."""
        features = self.episode_features(episode)
        return self._reader(episode.task).along(self._subsets(features)[:, 0])

    @torch.inference_mode()
    def hops(self, episode: Episode, before: Int64, after: Int64) -> Float64:
        """Predict hops in [-1, 1] between frames of one episode, Int64["p"] -> Float64["p"]."""
        embedding = self._subsets(self.episode_features(episode))[:, 0]
        return self._reader(episode.task).hop(embedding[before], embedding[after]).mean

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return the mean of both anchors, unclipped, whatever the mode; see the base class."""
        now, first = (self._all_views(found) for found in (features, start))
        return self._reader(task or self.task).level(first.expand_as(now), now)

    def _all_views(self, features: Tensor) -> Tensor:
        return self.network.fuse(self.network.mask(*split_presence(features)))

    def _subsets(self, features: Tensor) -> Tensor:
        return subsets(self.network, *split_presence(features))

    def _advance(self, reader: HopReader, now: Tensor, anchors: Anchors, carry: Carry) -> Reading:
        mode, gate = self.config.inference, self.config.gate()
        if mode in MARKOV:
            return begin(anchors, mode, gate)
        before = Reading(carry["potential"].cpu().numpy(), carry["variance"].cpu().numpy())
        hop = reader.hop(carry["previous"], now)
        first, later = begin(anchors, mode, gate), advance(before, hop, anchors, mode, gate)
        begun = carry["begun"].cpu().numpy()
        return Reading(
            np.where(begun, later.mean, first.mean), np.where(begun, later.variance, first.variance)
        )

    def _per_view(
        self, reader: HopReader, embedding: Tensor, present: Tensor
    ) -> dict[str, Float64]:
        found = {}
        for k, view in enumerate(self.config.views):
            hops, anchors = reader.along(embedding[:, 1 + k])
            alone = read_mode(hops, anchors, self.config.inference, self.config.gate()).mean
            found[view] = np.where(present[:, k].cpu().numpy(), alone, np.nan)
        return found

    def _reader(self, task: str) -> HopReader:
        """Return the reader with the references of `task`; of the only task, whatever its name.

        Raises:
            DatasetError: the model knows several tasks and this is none of them.
        """
        known = sorted(set(self.reference_tasks))
        if len(known) == 1:
            task = known[0]
        elif task not in known:
            raise DatasetError(
                f"the reward model was trained on {len(known)} tasks ({'; '.join(known)}) and has "
                f"no goal pictures of '{task}'; adapt it with er train-reward "
                "--reward_model.path=MODEL --dataset.root=ONE_DEMONSTRATION"
            )
        if task not in self._readers or self.training:
            rows = [i for i, name in enumerate(self.reference_tasks) if name == task]
            frames = (self.reference_start[rows], self.reference_goal[rows])
            encoded = [self.features(f) for f in frames]
            self._readers[task] = HopReader(
                self.network, *(self._subsets(features)[:, 0] for features in encoded)
            )
        return self._readers[task]

    def train(self, mode: bool = True) -> "DopamineModel":
        """Forget cached reference embeddings whenever the weights may change."""
        self._readers = {}
        super().train(mode)
        return self

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """See the base class; encoder architecture and reference frames are included."""
        tree: dict[str, Any] = {
            "type": self.name,
            "task": self.task,
            "reference_tasks": list(self.reference_tasks),
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
        model.reference_tasks = tuple(tree["reference_tasks"])
        model.load_state_dict(state)
        model._digest = digest
        return model.eval()


def _network(config: DopamineConfig, encoder: Any) -> HopNetwork:
    return HopNetwork(
        encoder,
        views=len(config.views),
        dim=config.dim,
        hidden=config.hidden,
        bins=config.bins,
        heads=config.heads,
    )
