r"""`rlhf`: a reward of single frames, fitted to preferences over whole episodes.

    R(o) = sum_t r(o_t),     P(o better than o') = sigmoid(R(o) - R(o'))

Christiano et al. 2017 (arXiv:1706.03741, section 2.2.3), the rival of RAPL at the same budget. A
tie has the target 1/2. The sum runs over equally many frames of both videos; a shorter one goes
on with its last frame (`preference_batches.py`).

As in the source, rewards have an arbitrary zero and scale. The potential puts them between the
rewards seen in training, by their running mean and standard deviation:

    Phi(s) = sigmoid((r(s) - mean) / std)

Deviations: one network, not an ensemble (`--reward_model.type=ensemble` makes one); weight decay
in place of an adaptive l2 penalty; no 10 % of random answers in the likelihood.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from embodied_reward.data.preferences import Pair, Preference
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.rewards.frame_network import mlp
from embodied_reward.rewards.preference_batches import PreferenceBatch, PreferenceDataset
from embodied_reward.rewards.preference_model import PreferenceModel, PreferenceModelConfig
from embodied_reward.rewards.visual import split_presence
from embodied_reward.types import Episode, Float64
from embodied_reward.vision.encoders import Encoder

MOMENTUM = 0.05
"""Share of a batch in the running mean and variance of rewards."""


@RewardModelConfig.register_subclass("rlhf")
@dataclass(frozen=True)
class RlhfConfig(PreferenceModelConfig):
    """Configuration of `rlhf`."""


class RlhfModel(PreferenceModel):
    """A frame-sum reward network; see the module docstring."""

    name: ClassVar[str] = "rlhf"
    config_type = RlhfConfig
    config: RlhfConfig
    reward_mean: Tensor
    reward_variance: Tensor
    horizon: Tensor

    def __init__(self, config: Any, encoder: Encoder, *, task: str = "") -> None:
        super().__init__(config, encoder, task=task)
        self.reward_head = mlp(config.dim, config.hidden, 1)
        self.register_buffer("reward_mean", torch.zeros(()))
        self.register_buffer("reward_variance", torch.ones(()))
        self.register_buffer("horizon", torch.ones((), dtype=torch.int64))

    def reads(self, preference: Preference) -> bool:
        """See the base class; a sum of rewards has no notion of likeness."""
        return isinstance(preference, Pair)

    def set_references(self, data: PreferenceDataset) -> None:
        """Keep the number of frames over which episodes are compared."""
        self.horizon = torch.tensor(data.horizon, device=self.horizon.device)

    def costs(self, fused: Tensor, batch: PreferenceBatch) -> tuple[Tensor, Tensor, float]:
        """See the base class; the cost of a video is minus the sum of its rewards."""
        rewards = self.reward_head(fused).squeeze(-1)
        if self.training:
            self._follow(rewards.detach())
        cost = -rewards.sum(1)
        return cost[batch.judged.better], cost[batch.judged.worse], 1.0

    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class; there is no estimate of its error, so the spread is 0."""
        rewards = self._rewards(features, present)
        scaled = (rewards - self.reward_mean) / self.reward_variance.sqrt()
        return scaled.sigmoid(), torch.zeros_like(scaled)

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return the reward itself; see the base class."""
        return self._rewards(*split_presence(features))

    @torch.inference_mode()
    def step_rewards(self, episode: Episode) -> Float64:
        """Return the network's reward of every frame, Float64["t"]; NaN where no camera works."""
        features, present = split_presence(self.episode_features(episode))
        rewards = self._rewards(features, present)
        seen = torch.where(present.any(1), rewards, torch.nan)
        return seen.cpu().double().numpy()

    def episode_return(self, episode: Episode) -> float:
        """Return the mean reward, the last one continued up to the longest training episode.

        Frames without a working camera are passed over; NaN if there is no other.
        """
        rewards = self.step_rewards(episode)
        rewards = rewards[np.isfinite(rewards)]
        if not len(rewards):
            return float("nan")
        missing = max(int(self.horizon) - len(rewards), 0)
        return float(np.pad(rewards, (0, missing), mode="edge").mean())

    def _rewards(self, features: Tensor, present: Tensor) -> Tensor:
        return self.reward_head(self.network.fuse(features, present)).squeeze(-1)

    def _follow(self, rewards: Tensor) -> None:
        self.reward_mean.lerp_(rewards.mean(), MOMENTUM)
        self.reward_variance.lerp_(rewards.var(), MOMENTUM)
