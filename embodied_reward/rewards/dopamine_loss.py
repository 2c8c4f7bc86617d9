"""The training loss of `dopamine`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_reward.math import two_hot
from embodied_reward.rewards.base import Weigh
from embodied_reward.rewards.dopamine_assembly import HopBatch, HopPairs
from embodied_reward.rewards.dopamine_config import DopamineConfig
from embodied_reward.rewards.dopamine_network import HopNetwork
from embodied_reward.rewards.frame_network import balanced_bce, without

Encode = Callable[[Tensor, Tensor, torch.Generator], Tensor]


class HopLoss:
    """Two-hot cross-entropy of hops, a bound on failures, balanced BCE of success.

    Augmentation and dropout act in training mode only and draw from `batch.seed`.

    Args:
        network: in training or eval mode.
        config: strengths and weights.
        batch: one batch, on the network's device or not.
        encode: frames uint8 Tensor["n v h w 3"], bool Tensor["n v"] and a generator to features
            Tensor["n v d"].
        weigh: gives the weight of every frame from its fused features; a pair weighs the mean of
            its two frames. None weighs all alike.
    """

    weights: Tensor | None = None

    def __init__(
        self,
        network: HopNetwork,
        config: DopamineConfig,
        batch: HopBatch,
        encode: Encode,
        weigh: Weigh | None = None,
    ) -> None:
        self.network, self.config, self.batch, self.encode = network, config, batch, encode
        self.training, self.weigh = network.training, weigh
        self.generator = torch.Generator().manual_seed(batch.seed)

    def __call__(self) -> tuple[Tensor, dict[str, float]]:
        """Return the scalar loss and its parts as floats."""
        embedding = self.network.fuse(self._encode())
        if self.weigh is not None:
            self.weights = self.weigh(embedding.detach(), self.batch.variant)
        hop_loss, mae = self._hops(embedding)
        success_loss = self._success(embedding)
        failure_loss = self._failures(embedding)
        total = hop_loss + self.config.success_weight * success_loss
        total = total + self.config.failure_weight * failure_loss
        return total, {
            "loss": total.item(),
            "hop_loss": hop_loss.item(),
            "hop_mae": mae,
            "success_loss": success_loss.item(),
            "failure_loss": failure_loss.item(),
            "selection": mae,
        }

    def _encode(self) -> Tensor:
        batch, present = self.batch, self.batch.present
        features = self.encode(batch.frames, present, self.generator)
        if self.training:
            views = present.shape[1]
            keep = keep_views(batch.part, views, self.config.view_dropout, self.generator)
            present = without(present, keep)
        return self.network.mask(features, present.to(features.device))

    def _logits(self, embedding: Tensor, pairs: HopPairs) -> Tensor:
        start = self._reference(embedding[pairs.start], 0)
        goal = self._reference(embedding[pairs.goal], 1)
        return self.network.hop(embedding[pairs.before], embedding[pairs.after], start, goal)

    def _reference(self, embedding: Tensor, which: int) -> Tensor:
        if not self.training:
            return embedding
        keep = torch.rand(len(embedding), generator=self.generator) >= self.config.context_dropout
        return self.network.drop_reference(embedding, keep.to(embedding.device), which)

    def _hops(self, embedding: Tensor) -> tuple[Tensor, float]:
        pairs = self.batch.pairs
        logits = self._logits(embedding, pairs)
        label = pairs.hop.to(embedding.device)
        loss = two_hot.cross_entropy(logits, label.expand(logits.shape[:2]))
        mean, _ = two_hot.expectation(two_hot.mixture(logits.detach()))
        weight = pairs.weight.to(loss.device) if self.training else torch.ones_like(loss)
        weight = self._paired(weight, pairs)
        weighted = (loss * weight).sum(1) / weight.sum(1).clamp(min=1e-6)
        return weighted.mean(), (mean - label).abs().mean().item()

    def _failures(self, embedding: Tensor) -> Tensor:
        bounds = self.batch.bounds
        if len(bounds.hop) == 0:
            return embedding.new_zeros(())
        mean, _ = two_hot.expectation(self._logits(embedding, bounds))
        excess = F.relu(mean - bounds.hop.to(mean.device))
        return self._paired(excess, bounds).mean()

    def _paired(self, values: Tensor, pairs: HopPairs) -> Tensor:
        """Multiply Tensor["... p"] by the weights of the pairs."""
        if self.weights is None:
            return values
        return values * (self.weights[pairs.before] + self.weights[pairs.after]) / 2

    def _success(self, embedding: Tensor) -> Tensor:
        goal = self._reference(embedding[self.batch.success_goal], 1)
        logits = self.network.success(embedding[self.batch.success_frame], goal)
        weights = None if self.weights is None else self.weights[self.batch.success_frame]
        return balanced_bce(logits, self.batch.success.to(logits.device), weights)


def keep_views(part: Tensor, views: int, rate: float, generator: torch.Generator) -> Tensor:
    """Draw which views stay, bool Tensor["n v"]; every row keeps at least one.

    Half of the dropped views are missing for a whole episode, as a dead camera is, the other
    half for single frames.

    Args:
        part: int64 Tensor["n"], the episode of each frame.
        views: number of views v.
        rate: chance that a view of a frame is dropped.
        generator: source of randomness.
    """
    once = 1 - (1 - rate) ** 0.5
    episodes = int(part.max()) + 1
    of_episode = torch.rand(episodes, views, generator=generator) >= once
    keep = of_episode[part] & (torch.rand(len(part), views, generator=generator) >= once)
    spared = torch.randint(0, views, (episodes,), generator=generator)[part]
    empty = ~keep.any(1)
    keep[empty, spared[empty]] = True
    return keep
