r"""`success`: is the task done? A detector that knows nothing of progress.

    p(t) = sigmoid(head(z_t, z_t - z_0)),    z = fused views of a frame

trained with a balanced binary cross-entropy on the frames of `success_batches.py`. It fires where
p stays at or above a threshold for k frames; the threshold is fitted on held-out failures so that
at most `target_fpr` of failed episodes fire (`detector.py`).

It is apart from every potential on purpose: a potential near 1 says "nearly there", which a policy
can reach without being there, while the base reward must say "done". Its potential is NaN, and
whatever needs progress refuses it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import DatasetError
from embodied_reward.rewards.base import Card, Carry
from embodied_reward.rewards.detector import Calibration, Unit, fit_threshold
from embodied_reward.rewards.frame_network import balanced_bce, keep_views, without
from embodied_reward.rewards.success_batches import SuccessBatch, SuccessDataset, goal_frames
from embodied_reward.rewards.success_config import SuccessConfig
from embodied_reward.rewards.success_network import SuccessNetwork
from embodied_reward.rewards.visual import VisualModel, split_presence
from embodied_reward.types import Episode, EpisodeScores, Float64, Scores
from embodied_reward.vision.encoders import Encoder, build_encoder, rebuild

TRUNCATION = 0.7
"""Where successes are cut to stand in for failures: the latest cut of RoboReward's 10 to 70 %."""


class SuccessModel(VisualModel):
    """Multi-view success classifier with a fitted threshold; see the module docstring."""

    name: ClassVar[str] = "success"
    config: SuccessConfig

    def __init__(self, config: SuccessConfig, encoder: Encoder, *, task: str = "") -> None:
        """Wrap an encoder; use `create` to build one for a dataset, `load` for a saved one."""
        super().__init__()
        self.config, self.task, self._digest = config, task, ""
        self.network = SuccessNetwork(
            encoder, views=len(config.views), dim=config.dim, hidden=config.hidden
        )
        self.calibration: Calibration | None = None

    @classmethod
    def create(cls, config: SuccessConfig, *, task: str = "") -> "SuccessModel":
        """Build an untrained model; `config.views` must be set. Uses torch's global seed."""
        encoder = build_encoder(config.encoder, config.dim)
        return cls(config, encoder, task=config.task or task)

    @property
    def card(self) -> Card:
        """See the base class; `extra["calibration"]` holds the threshold and what it promises."""
        fitted = self.calibration.to_dict() if self.calibration else None
        return Card(
            type=self.name,
            views=self.config.views,
            image_size=self.image_size,
            progress=False,
            task=self.task,
            weights_sha256=self._digest,
            extra={"calibration": fitted},
        )

    # --- training ---

    def dataset(self, episodes: list[Episode]) -> SuccessDataset:
        """Decode training episodes.

        Raises:
            DatasetError: none is successful, one has no view, or the task is ambiguous.
        """
        tasks = sorted({e.task for e in episodes})
        if len(tasks) > 1 and not self.config.task:
            raise DatasetError(
                f"the episodes are of several tasks ({', '.join(map(repr, tasks[:5]))}); choose "
                "the one to detect with --reward_model.task=..., the others serve as failures"
            )
        return SuccessDataset(
            episodes,
            task=self.config.task,
            views=self.config.views,
            size=self.image_size,
            count=self.config.frames,
        )

    def set_references(self, data: SuccessDataset) -> None:
        """Do nothing: a detector keeps no reference frames."""

    def loss(self, batch: SuccessBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the balanced BCE and, as floats, the shares of both classes that are right.

        Augmentation and dropout act in training mode only and draw from `batch.seed`.
        """
        generator = torch.Generator().manual_seed(batch.seed)
        fused = self._fused_batch(batch, generator)
        start, target = fused[batch.start], batch.success.to(fused)
        if self.training:
            keep = torch.rand(len(start), generator=generator) >= self.config.start_dropout
            start = self.network.drop_start(start, keep.to(start.device))
        logits = self.network(fused, start)
        loss, fires = balanced_bce(logits, target), (logits > 0).float()
        return loss, {
            "loss": loss.item(),
            "hit_rate": _share(fires, target),
            "false_rate": _share(fires, 1 - target),
        }

    def _fused_batch(self, batch: SuccessBatch, generator: torch.Generator) -> Tensor:
        present = batch.present
        features = self.training_features(batch.frames, present, generator)
        if self.training:
            keep = keep_views(
                present.shape[0], present.shape[1], self.config.view_dropout, generator
            )
            present = without(present, keep)
        return self.network.fuse(features, present.to(features.device))

    # --- the threshold ---

    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Fit the threshold on the failed episodes, or on truncated successes without any."""
        scores, source = self.failure_scores(episodes)
        if scores:
            self.calibration = fit_threshold(
                scores,
                target_fpr=self.config.target_fpr,
                persistence=self.config.persistence,
                source=source,
            )

    def recalibrate(
        self,
        scores: Sequence[Float64],
        *,
        target_fpr: float,
        persistence: int,
        unit: Unit = "episode",
    ) -> Calibration:
        """Fit the threshold on given scores of failed episodes; see `fit_threshold`."""
        self.calibration = fit_threshold(
            scores, target_fpr=target_fpr, persistence=persistence, unit=unit
        )
        return self.calibration

    def failure_scores(self, episodes: Sequence[Episode]) -> tuple[list[Float64], str]:
        """Return the scores Float64["t"] of failed episodes, and what they are."""
        failed = [e for e in episodes if not len(goal_frames(e, self.config.task))]
        if failed:
            return [self.score_episode(e).success for e in failed], "failures"
        cuts = [(e, int(TRUNCATION * goal_frames(e, self.config.task)[0])) for e in episodes]
        scores = [self.score_episode(e).success[:cut] for e, cut in cuts if cut > 0]
        return scores, "truncated successes"

    # --- inference ---

    def start(self, features: Tensor) -> Carry:
        """See the base class; the carry is the embedding of the episode's first frame."""
        return {"start": self.network.fuse(*split_presence(features))}

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class; the potential is NaN, a detector knows no progress."""
        success = self._probability(features, carry["start"])
        unknown = np.full(len(success), np.nan)
        return Scores(unknown, success, unknown.copy(), np.isfinite(success)), carry

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; frames without any working camera are NaN."""
        features = self.episode_features(episode)
        success = self._probability(features, self.start(features[:1])["start"])
        unknown = np.full(len(success), np.nan)
        return EpisodeScores(unknown, success, unknown.copy())

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return the logit of success; see the base class."""
        now = self.network.fuse(*split_presence(features))
        return self.network(now, self.network.fuse(*split_presence(start)).expand_as(now))

    def _probability(self, features: Tensor, start: Tensor) -> Float64:
        seen, present = split_presence(features)
        now = self.network.fuse(seen, present)
        logits = torch.where(present.any(1), self.network(now, start.expand_as(now)), torch.nan)
        # In double precision, so that scores close to 1 keep their order.
        return logits.double().sigmoid().cpu().numpy()

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """See the base class; the threshold lies in `config.json`."""
        tree = {
            "type": self.name,
            "task": self.task,
            "encoder": self.network.encoder.description(),
            "config": configs.encode(self.config),
            "calibration": self.calibration.to_dict() if self.calibration else None,
        }
        weights.save(self, tree, folder)

    @classmethod
    def load(cls, folder: Path) -> "SuccessModel":
        """See the base class."""
        tree, state, digest = weights.load(folder)
        fields = {k: v for k, v in tree["config"].items() if k != "type"}
        config = configs.decode(SuccessConfig, fields)
        model = cls(config, rebuild(tree["encoder"]), task=tree["task"])
        model.load_state_dict(state)
        if tree["calibration"]:
            model.calibration = Calibration(**tree["calibration"])
        model._digest = digest
        return model.eval()


def _share(fires: Tensor, members: Tensor) -> float:
    return float((fires * members).sum() / members.sum().clamp(min=1))
