r"""Methods whose potential is the distance to the goal in a learned embedding.

Start and goal frames of training demonstrations travel in the checkpoint. With d(z) the
distance of an embedding to the goals,

    Phi(s) = clip((far - d(phi(s))) / (far - near), 0, 1)

`far` is the mean distance of the start frames, `near` that of the goal frames, each measured to
the goals of the *other* demonstrations, so that a demonstration's own goal is not at distance 0.
A missing view is masked in the goals and starts as well: like is compared with like. Where the
starts are no farther than the goals the embedding has collapsed and the potential is NaN.
The uncertainty is the standard deviation of the potential over the single goals.
"""

import abc
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import device_of
from embodied_reward.rewards.frame_batches import FrameDataset
from embodied_reward.rewards.frame_model import FrameModel, FrameModelConfig
from embodied_reward.rewards.visual import read_by_views, split_presence
from embodied_reward.vision.encoders import Encoder


@dataclass(frozen=True)
class GoalModelConfig(FrameModelConfig):
    """Fields that the distance methods share."""

    embedding: int = 32
    """size of the embedding in which distances are measured"""
    references: int = 16
    """demonstrations whose start and goal frames the checkpoint keeps"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        if self.embedding < 1 or self.references < 1:
            raise ConfigError("need reward_model.embedding >= 1 and reward_model.references >= 1")


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances Tensor["n k"], the same however many rows there are."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


class Goals(NamedTuple):
    """What distances are measured to, for one set of present views.

    Attributes:
        embeddings: Tensor["k e"] of the goal frames.
        far: mean distance of the start frames.
        near: mean distance of the goal frames to the other goals.
    """

    embeddings: Tensor
    far: Tensor
    near: Tensor


class GoalModel(FrameModel, abc.ABC):
    """Base of the distance methods; see the module docstring."""

    config: GoalModelConfig
    reference_start: Tensor
    reference_goal: Tensor

    def __init__(self, config: Any, encoder: Encoder, *, task: str = "") -> None:
        super().__init__(config, encoder, task=task)
        self.projection = nn.Linear(config.dim, config.embedding)
        size = encoder.image_size
        empty = torch.zeros(0, len(config.views), size, size, 3, dtype=torch.uint8)
        self.register_buffer("reference_start", empty)
        self.register_buffer("reference_goal", empty.clone())
        self._goals: dict[tuple[bool, ...], Goals] = {}

    @abc.abstractmethod
    def distance(self, embedding: Tensor, goals: Tensor) -> Tensor:
        """Return the distance Tensor["n"] of Tensor["n e"] to goals Tensor["k e"]."""

    def set_references(self, data: FrameDataset) -> None:
        """Keep start and goal frames of the training demonstrations."""
        start, goal = data.references(self.config.references)
        device = device_of(self)
        self.reference_start, self.reference_goal = start.to(device), goal.to(device)
        self._goals.clear()

    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class."""
        return read_by_views(self._read, features, present)

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return minus the distance to the goals; see the base class."""
        seen, present = split_presence(features)
        found = seen.new_zeros(len(seen))
        for views in present.unique(dim=0):
            rows = (present == views).all(-1)
            # A copy: goals that were embedded without any graph may not enter one.
            goals = self._goals_seen_by(views).embeddings.clone()
            found[rows] = -self.distance(self._embed(seen[rows], present[rows]), goals)
        return found

    def _read(self, features: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        goals = self._goals_seen_by(views)
        now = self._embed(features, views.expand(features.shape[:2]))
        span = goals.far - goals.near
        span = torch.where(span > 0, span, torch.nan)
        potential = ((goals.far - self.distance(now, goals.embeddings)) / span).clamp(0, 1)
        single = distances(now, goals.embeddings).std(-1, correction=0)
        return potential, single / span

    def _goals_seen_by(self, views: Tensor) -> Goals:
        key = tuple(views.tolist())
        if key not in self._goals or self.training:
            start, goal = (
                self._embed(found, present & views)
                for found, present in (
                    split_presence(self.features(frames))
                    for frames in (self.reference_start, self.reference_goal)
                )
            )
            far, near = self._to_others(start, goal), self._to_others(goal, goal)
            self._goals[key] = Goals(goal, far, near)
        return self._goals[key]

    def _to_others(self, embedding: Tensor, goals: Tensor) -> Tensor:
        """Return the mean distance of row i to the goals other than i (its own if alone)."""
        count = len(goals)
        others = [goals[[j for j in range(count) if j != i or count == 1]] for i in range(count)]
        rows = embedding.split(1)
        return torch.cat([self.distance(z, g) for z, g in zip(rows, others, strict=True)]).mean()

    def _embed(self, features: Tensor, present: Tensor) -> Tensor:
        return self.projection(self.network.fuse(features, present))

    def train(self, mode: bool = True) -> "GoalModel":
        """Forget the goals' embeddings whenever the weights may change."""
        self._goals.clear()
        super().train(mode)
        return self
