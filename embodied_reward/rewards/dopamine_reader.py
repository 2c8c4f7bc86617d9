"""Reading progress off a trained hop network, averaged over stored references."""

import numpy as np
import torch
from torch import Tensor

from embodied_reward.math import two_hot
from embodied_reward.math.fusion import Anchors
from embodied_reward.rewards.dopamine_network import HopNetwork
from embodied_reward.types import Float64


class HopReader:
    """Hops, anchored progress and success of embedded frames.

    Args:
        network: a trained network in eval mode.
        starts: Tensor["k d"], embeddings of reference start frames.
        goals: Tensor["k d"], embeddings of reference goal frames, in the same order.
    """

    def __init__(self, network: HopNetwork, starts: Tensor, goals: Tensor) -> None:
        self.network, self.starts, self.goals = network, starts, goals

    def hop(self, before: Tensor, after: Tensor) -> tuple[Float64, Float64]:
        """Return mean and variance of H for embeddings Tensor["p d"], each Float64["p"]."""
        results = [
            self._one(before, after, start.expand_as(before), goal.expand_as(before))
            for start, goal in zip(self.starts, self.goals, strict=True)
        ]
        mean, variance = (np.mean(part, axis=0) for part in zip(*results, strict=True))
        return mean, variance

    def anchored(self, first: Tensor, now: Tensor) -> Anchors:
        """Read progress of frames Tensor["n d"] against their starts and the stored goals."""
        forward, forward_var = self.hop(first, now)
        results = [
            self._one(goal.expand_as(now), now, start.expand_as(now), goal.expand_as(now))
            for start, goal in zip(self.starts, self.goals, strict=True)
        ]
        back, back_var = (np.mean(part, axis=0) for part in zip(*results, strict=True))
        forward, backward = np.clip(forward, 0, 1), np.clip(1 + back, 0, 1)
        spread = np.sqrt((forward_var + back_var) / 4 + np.square(forward - backward) / 4)
        return Anchors(forward, backward, spread)

    def success(self, now: Tensor) -> Float64:
        """Return the probability that frames Tensor["n d"] satisfy the task, Float64["n"]."""
        logits = [self.network.success(now, goal.expand_as(now)) for goal in self.goals]
        return torch.stack(logits).double().sigmoid().mean(0).cpu().numpy()

    def _one(
        self, before: Tensor, after: Tensor, start: Tensor, goal: Tensor
    ) -> tuple[Float64, Float64]:
        logits = self.network.hop(before, after, start, goal).double()
        mean, variance = two_hot.expectation(logits)
        return mean.cpu().numpy(), variance.cpu().numpy()
