"""What the methods share that learn from preferences over episodes.

A preference is used for training only if all its episodes are training episodes. Held-out
preferences are those that name a held-out *episode*; another episode of theirs may be known. The
best checkpoint is the one that orders most of them rightly, ties broken by the loss.

Besides the contract of `base.py` there is `episode_return`, by which whole episodes are ranked.
"""

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.data.preferences import Preference
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.alignment import alignment_loss, triplet_accuracy
from embodied_reward.rewards.frame_model import FrameModel, FrameModelConfig
from embodied_reward.rewards.preference_batches import (
    PreferenceBatch,
    PreferenceDataset,
    preference_dataset,
    refuse_undecided,
)
from embodied_reward.types import Episode

LOSS_WEIGHT = 1e-3
"""In the criterion that chooses a checkpoint: small beside one more preference ordered rightly."""


@dataclass(frozen=True)
class PreferenceModelConfig(FrameModelConfig):
    """Fields that these methods share."""

    frames: int = 16
    """frames per video and gradient step"""
    success_weight: float = 0.0
    """weight of a success head's loss; preferences are no success labels, so there is none"""


class PreferenceModel(FrameModel, abc.ABC):
    """Base of the methods; see the module docstring."""

    config: PreferenceModelConfig
    preferences: tuple[Preference, ...] = ()
    anchors: int = 0

    def learn_from(self, preferences: Sequence[Preference]) -> None:
        """See the base class. Raises DatasetError: none is of a kind that the method reads."""
        self.preferences = tuple(p for p in preferences if self.reads(p))
        if preferences and not self.preferences:
            raise DatasetError(
                f"'{self.name}' does not read these preferences: it learns from pairs, and the "
                "file holds triplets alone; compare pairs with "
                "`er label-preferences --mode=pair`, or train --reward_model.type=rapl"
            )

    @abc.abstractmethod
    def reads(self, preference: Preference) -> bool:
        """Return whether the method can learn from such a preference."""

    @abc.abstractmethod
    def episode_return(self, episode: Episode) -> float:
        """Return how good a whole episode is; larger is better, the scale is the method's own.

        Raises:
            DatasetError: the episode has none of the views.
        """

    @abc.abstractmethod
    def costs(self, fused: Tensor, batch: PreferenceBatch) -> tuple[Tensor, Tensor, float]:
        """Return the costs Tensor["p"] of the better and the worse videos, and the temperature.

        Args:
            fused: Tensor["m f d"], embedded frames of every video.
            batch: says which videos were judged.
        """

    # --- data ---

    def dataset(self, episodes: list[Episode]) -> PreferenceDataset:
        """Decode training episodes. Raises DatasetError: no preference tells anything."""
        data = self._decode(episodes)
        if self.preferences:
            refuse_undecided(data.judged, f"the {len(episodes)} training episodes")
        return data

    def validation_data(
        self, training: list[Episode], validation: list[Episode]
    ) -> PreferenceDataset | None:
        """See the base class."""
        if not validation:
            return None
        both = self._decode([*training, *validation], horizon=max(map(len, training)))
        known = len(training)
        named = np.stack([both.judged.anchor, both.judged.better, both.judged.worse])
        judged = both.judged.take(np.flatnonzero((named >= known).any(0)))
        if not judged.decided.any():
            return None
        return replace(both, judged=judged, references=self.reference_positions(both))

    def reference_positions(self, data: PreferenceDataset) -> np.ndarray:
        """Return where the model's references stand in a dataset, Int64["k"]."""
        return np.empty(0, np.int64)

    def _decode(self, episodes: list[Episode], *, horizon: int = 0) -> PreferenceDataset:
        return preference_dataset(
            episodes,
            self.preferences,
            views=self.config.views,
            size=self.image_size,
            frames=self.config.frames,
            horizon=horizon,
            anchors=self.anchors,
        )

    # --- training ---

    def objective(self, fused: Tensor, batch: PreferenceBatch) -> tuple[Tensor, dict[str, float]]:
        """Return Bradley-Terry's loss; its share of preferences ordered rightly is logged."""
        better, worse, temperature = self.costs(fused.unflatten(0, (batch.count, -1)), batch)
        same = torch.from_numpy(batch.judged.same).to(better.device)
        loss = alignment_loss(better, worse, temperature, same)
        accuracy = triplet_accuracy(better, worse, same)
        logs: dict[str, Any] = {"accuracy": accuracy}
        if not self.training:
            logs["selection"] = 1 - accuracy + LOSS_WEIGHT * loss.item()
        return loss, logs


def checked_positive(**values: float) -> None:
    """Raise ConfigError for a `--reward_model` number that is not above 0."""
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"--reward_model.{name}={value}: need > 0")
