r"""`tcc`: temporal cycle consistency, the reward of XIRL.

Embeddings of several demonstrations are trained so that going from a frame of video u to its
soft nearest neighbour in video v and back ends at the same time (TCC, arXiv:1904.07846;
`regression_mse` of XIRL, arXiv:2106.03911, as released):

    vtilde_i = sum_j softmax_j(-||u_i - v_j||^2 / (tau e)) v_j          e: embedding size
    beta_ik  = softmax_k(-||vtilde_i - u_k||^2 / (tau e))
    L = mean_i (sum_k beta_ik s_k - s_i)^2,   s_k = frame k / length,   all ordered pairs u != v

The reward is the distance to the mean goal embedding of the training demonstrations. As a
potential it is put on the scale of their starts and ends (`goal_model.py`), in place of XIRL's
kappa = 1 / largest distance.

Deviations: a small encoder from scratch instead of ResNet-18; 24 frames per video at jittered
instead of evenly spaced times; several cameras are fused. Failed episodes cannot be aligned and
teach the success head only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.rewards.frame_batches import FrameBatch, FrameDataset, Video, gather, some
from embodied_reward.rewards.goal_model import GoalModel, GoalModelConfig
from embodied_reward.types import Episode, Int64


@RewardModelConfig.register_subclass("tcc")
@dataclass(frozen=True)
class TccConfig(GoalModelConfig):
    """Configuration of `tcc`."""

    temperature: float = 0.1
    """tau of both soft nearest neighbours"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        if self.temperature <= 0:
            raise ConfigError(f"--reward_model.temperature={self.temperature}: need > 0")


@dataclass(frozen=True, kw_only=True)
class CycleBatch(FrameBatch):
    """Frames of m demonstrations, n each and in order of time, then frames of failures.

    Attributes:
        steps: float32 Tensor["m n"], time of each frame as a share of its demonstration.
    """

    steps: Tensor


def cycle_consistency(embeddings: Tensor, steps: Tensor, temperature: float) -> Tensor:
    """Return the loss of the module docstring.

    Args:
        embeddings: Tensor["m n e"], m >= 2 videos.
        steps: Tensor["m n"] in [0, 1].
        temperature: tau.
    """
    scale = temperature * embeddings.shape[-1]
    errors = [
        _cycle_back(u, v, steps[i], scale) - steps[i]
        for i, u in enumerate(embeddings)
        for j, v in enumerate(embeddings)
        if i != j
    ]
    return torch.stack(errors).square().mean()


def _cycle_back(u: Tensor, v: Tensor, steps: Tensor, scale: float) -> Tensor:
    """Return the time Tensor["n"] at which every frame of `u` arrives by way of `v`."""
    neighbour = _similarity(u, v, scale).softmax(-1) @ v
    return _similarity(neighbour, u, scale).softmax(-1) @ steps


def _similarity(a: Tensor, b: Tensor, scale: float) -> Tensor:
    # Written out: the gradient of `cdist` is undefined where two embeddings coincide.
    return -(a[:, None] - b[None]).square().sum(-1) / scale


class CycleDataset(FrameDataset):
    """Serves equally many frames of several demonstrations."""

    def __init__(
        self, episodes: Sequence[Episode], *, views: Sequence[str], size: int, frames: int
    ) -> None:
        super().__init__(episodes, views=views, size=size)
        self.frames = frames

    def batch(self, episodes: int, seed: int, step: int) -> CycleBatch:
        """See the base class; there are always two demonstrations at least."""
        rng = np.random.default_rng((seed, step))
        demos, failures = self.draw(max(episodes, 2), rng)
        aligned = [_jittered(v, self.frames, rng) for v in demos]
        chosen = aligned + [some(np.arange(len(v)), self.frames, rng) for v in failures]
        stacked = gather(demos + failures, chosen)
        steps = np.stack([at / (v.end + 1) for v, at in zip(demos, aligned, strict=True)])
        return CycleBatch(
            **stacked,
            seed=int(rng.integers(2**62)),
            steps=torch.from_numpy(steps).float(),
        )


class TccModel(GoalModel):
    """Temporal cycle consistency; see the module docstring."""

    name: ClassVar[str] = "tcc"
    config_type = TccConfig
    config: TccConfig

    def dataset(self, episodes: list[Episode]) -> CycleDataset:
        """See the base class."""
        return CycleDataset(
            episodes, views=self.config.views, size=self.image_size, frames=self.config.frames
        )

    def objective(self, fused: Tensor, batch: CycleBatch) -> tuple[Tensor, dict[str, float]]:
        """Return the cycle-consistency loss of the demonstrations in the batch."""
        steps = batch.steps.to(fused)
        embeddings = self.projection(fused[: steps.numel()]).unflatten(0, steps.shape)
        loss = cycle_consistency(embeddings, steps, self.config.temperature)
        return loss, {"cycle_loss": loss.item()}

    def distance(self, embedding: Tensor, goals: Tensor) -> Tensor:
        """Return the Euclidean distance to the mean goal."""
        return (embedding - goals.mean(0)).norm(dim=-1)


def _jittered(video: Video, count: int, rng: np.random.Generator) -> Int64:
    """Draw one frame in each of `count` equal spans up to the success, the success itself last."""
    at = ((np.arange(count) + rng.random(count)) / count * (video.end + 1)).astype(np.int64)
    at[-1] = video.end
    return at
