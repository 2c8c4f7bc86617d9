r"""`remaining_time`: how many seconds until the task is done?

A frame's remaining time R [s] is predicted as a two-hot distribution over bins that are even in
symlog space (`math/symlog.py`), and

    Phi(s) = clip(1 - E[R | s] / horizon, 0, 1),    uncertainty = std[R | s] / horizon

where `horizon` is the mean time from start to success of the training demonstrations unless the
configuration says otherwise; bins reach to twice the horizon, or the longest demonstration.
A frame of a demonstration teaches R = (first success - t) / fps, a solved frame R = 0. A failed
episode only bounds R from below, so it teaches -log P(R >= horizon): with failures in the data
E[R] is the demonstrators' cost to go, in which a failure costs the horizon or more.

After RynnValue (arXiv:2608.09853: two-hot over 256 symlog bins of the remaining seconds, Phi =
-seconds), with one frame and a small network in place of eight frames, text and a
vision-language model. Its relative head and language loss are left out. Rewinding (ReWiND) adds
nothing to a model of single frames, because a rewound frame keeps picture and label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.math import symlog
from embodied_reward.rewards.base import RewardModelConfig, device_of
from embodied_reward.rewards.frame_batches import FrameBatch, FrameDataset, Video, gather, some
from embodied_reward.rewards.frame_model import FrameModel, FrameModelConfig
from embodied_reward.rewards.frame_network import mlp
from embodied_reward.rewards.visual import split_presence
from embodied_reward.types import Episode, Float64, Int64
from embodied_reward.vision.encoders import Encoder


@RewardModelConfig.register_subclass("remaining_time")
@dataclass(frozen=True)
class RemainingTimeConfig(FrameModelConfig):
    """Configuration of `remaining_time`."""

    bins: int = 41
    """bins of the distribution over the remaining time"""
    horizon: float = 0.0
    """remaining time that reads as potential 0 [s]; 0 takes the demonstrations' mean duration"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        if self.bins < 3 or self.horizon < 0:
            raise ConfigError("need reward_model.bins >= 3 and reward_model.horizon >= 0")


@dataclass(frozen=True, kw_only=True)
class TimeBatch(FrameBatch):
    """Frames with their remaining time.

    Attributes:
        remaining: float32 Tensor["n"] [s]; NaN for frames of failures.
    """

    remaining: Tensor


class TimeDataset(FrameDataset):
    """Serves frames of demonstrations with known, and of failures with unknown remaining time."""

    def __init__(
        self, episodes: Sequence[Episode], *, views: Sequence[str], size: int, frames: int
    ) -> None:
        super().__init__(episodes, views=views, size=size)
        self.frames = frames

    def batch(self, episodes: int, seed: int, step: int) -> TimeBatch:
        """See the base class."""
        rng = np.random.default_rng((seed, step))
        demos, failures = self.draw(episodes, rng)
        # Between two successes nobody knows when the second one was due.
        chosen = [some(np.r_[np.arange(v.end), v.goals], self.frames, rng) for v in demos]
        chosen += [some(np.arange(len(v)), self.frames, rng) for v in failures]
        videos = demos + failures
        stacked = gather(videos, chosen)
        left = np.concatenate([_remaining(v, at) for v, at in zip(videos, chosen, strict=True)])
        return TimeBatch(
            **stacked,
            seed=int(rng.integers(2**62)),
            remaining=torch.from_numpy(left).float(),
        )

    def durations(self) -> Float64:
        """Return the time from start to success of every demonstration [s]."""
        return np.array([v.end / v.fps for v in self.demos])


class RemainingTimeModel(FrameModel):
    """Two-hot regression of the remaining time; see the module docstring."""

    name: ClassVar[str] = "remaining_time"
    weighable: ClassVar[bool] = True
    config_type = RemainingTimeConfig
    config: RemainingTimeConfig
    horizon: Tensor
    centres: Tensor

    def __init__(self, config: RemainingTimeConfig, encoder: Encoder, *, task: str = "") -> None:
        super().__init__(config, encoder, task=task)
        self.head = mlp(config.dim, config.hidden, config.bins)
        self.register_buffer("horizon", torch.tensor(torch.nan))
        self.register_buffer("centres", symlog.grid(config.bins, 1.0).float())

    def dataset(self, episodes: list[Episode]) -> TimeDataset:
        """See the base class."""
        return TimeDataset(
            episodes, views=self.config.views, size=self.image_size, frames=self.config.frames
        )

    def set_references(self, data: Any) -> None:
        """Set horizon and bins from the demonstrations' durations."""
        durations = data.durations()
        horizon = self.config.horizon or float(durations.mean())
        high = max(2 * horizon, float(durations.max()))
        device = device_of(self)
        self.horizon = torch.tensor(horizon, device=device)
        self.centres = symlog.grid(self.config.bins, high).float().to(device)

    def objective(self, fused: Tensor, batch: TimeBatch) -> tuple[Tensor, dict[str, float]]:
        """Return per frame the cross-entropy of known times, the one-sided loss of failures."""
        logits, remaining = self.head(fused), batch.remaining.to(fused.device)
        known = torch.isfinite(remaining)
        losses = torch.where(
            known,
            symlog.cross_entropy(logits, remaining.nan_to_num(), self.centres),
            symlog.at_least(logits, self.horizon.expand(len(logits)), self.centres),
        )
        mean, _ = symlog.expectation(logits.detach(), self.centres)
        error = (mean - remaining)[known].abs().mean()
        return losses, {"time_loss": losses.mean().item(), "time_mae_s": error.item()}

    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class."""
        mean, variance = self._remaining(features, present)
        return (1 - mean / self.horizon).clamp(0, 1), variance.sqrt() / self.horizon

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return minus the expected remaining time [s]; see the base class."""
        return -self._remaining(*split_presence(features))[0]

    def _remaining(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean [s] and variance of the remaining time, each Tensor["n"]."""
        logits = self.head(self.network.fuse(features, present))
        return symlog.expectation(logits, self.centres)


def _remaining(video: Video, at: Int64) -> Float64:
    if not len(video.goals):
        return np.full(len(at), np.nan)
    return np.maximum(video.end - at, 0) / video.fps
