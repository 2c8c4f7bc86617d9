"""Reading progress off a trained hop network, averaged over stored references and heads."""

import numpy as np
import torch
from torch import Tensor

from embodied_reward.math import two_hot
from embodied_reward.math.fusion import Anchors, Reading
from embodied_reward.rewards.dopamine_network import HopNetwork
from embodied_reward.types import Float64


class HopReader:
    """Hops, anchored progress and success of embedded frames.

    Every reading is the mean of the mixture over k references and all heads; its variance
    holds their disagreement as well as the spread of each distribution.

    Args:
        network: a trained network in eval mode.
        starts: Tensor["k d"], embeddings of reference start frames.
        goals: Tensor["k d"], embeddings of reference goal frames, in the same order.
    """

    def __init__(self, network: HopNetwork, starts: Tensor, goals: Tensor) -> None:
        self.network, self.starts, self.goals = network, starts, goals

    def hop(self, before: Tensor, after: Tensor) -> Reading:
        """Read H in [-1, 1] between embeddings Tensor["p d"]."""
        return self._read(before[None], after)

    def anchored(self, first: Tensor, now: Tensor) -> Anchors:
        """Read progress of frames Tensor["n d"] against their starts and the stored goals."""
        forward = self.hop(first, now)
        backward = self._read(self.goals[:, None], now)
        return Anchors(
            Reading(np.clip(forward.mean, 0, 1), forward.variance),
            Reading(np.clip(1 + backward.mean, 0, 1), backward.variance),
        )

    def level(self, first: Tensor, now: Tensor) -> Tensor:
        """Return (H(s_init, s) + 1 + H(s_goal, s)) / 2 unclipped, with its graph, Tensor["n"]."""
        # Copies: references that were embedded without any graph may not enter one.
        again = HopReader(self.network, self.starts.clone(), self.goals.clone())
        forward, _ = again._expect(first[None], now)
        backward, _ = again._expect(again.goals[:, None], now)
        return (forward + 1 + backward) / 2

    def along(self, embedding: Tensor) -> tuple[Reading, Anchors]:
        """Read one episode Tensor["t d"]: hops between adjacent frames, anchors of every frame."""
        anchors = self.anchored(embedding[:1].expand_as(embedding), embedding)
        return self.hop(embedding[:-1], embedding[1:]), anchors

    def joint(self, first: Tensor, now: Tensor, present: Tensor) -> tuple[Anchors, Float64]:
        """Read frames with all their views, and how far hops, anchors and views disagree.

        Args:
            first: Tensor["n 1+v d"], first frames as `subsets` embeds them.
            now: Tensor["n 1+v d"], the frames.
            present: bool Tensor["n v"].

        Returns:
            Anchors of n frames, and the joint standard deviation Float64["n"].
        """
        every = self.anchored(first.flatten(0, 1), now.flatten(0, 1))
        alone = every.mean.reshape(len(now), -1)[:, 1:]
        whole = every.take(slice(None, None, now.shape[1]))
        return whole, np.sqrt(whole.variance + view_spread(alone, present))

    def success(self, now: Tensor) -> Float64:
        """Return the probability that frames Tensor["n d"] satisfy the task, Float64["n"]."""
        shape = (len(self.goals), len(now), -1)
        frames, goals = now.expand(shape), self.goals[:, None].expand(shape)
        logits = self.network.success(frames.flatten(0, 1), goals.flatten(0, 1))
        return logits.unflatten(0, shape[:2]).double().sigmoid().mean(0).cpu().numpy()

    def _read(self, before: Tensor, after: Tensor) -> Reading:
        """Read pairs whose before-frames Tensor["#k #p d"] may differ between references."""
        mean, variance = self._expect(before, after)
        return Reading(mean.cpu().numpy(), variance.cpu().numpy())

    def _expect(self, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        references = (self.starts[:, None], self.goals[:, None])
        logits = self.network.hop_of_each(before, after[None], *references).double()
        # [m k p bins] -> [m*k p bins]: one mixture over heads and references.
        apart = logits.flatten(0, 1)
        return two_hot.expectation(two_hot.mixture(apart))


def view_spread(potential: Float64, present: Tensor) -> Float64:
    """Return the variance of per-view potentials over the views that are there.

    Args:
        potential: Float64["n v"].
        present: bool Tensor["n v"].

    Returns:
        Float64["n"], 0 where fewer than two views are there.
    """
    there = present.cpu().numpy()
    count = np.maximum(there.sum(1), 1)
    mean = np.where(there, potential, 0).sum(1) / count
    return np.where(there, np.square(potential - mean[:, None]), 0).sum(1) / count


def subsets(network: HopNetwork, features: Tensor, present: Tensor) -> Tensor:
    """Embed frames with all their views, then with each view alone.

    Args:
        network: the network that fuses.
        features: Tensor["n v d"].
        present: bool Tensor["n v"].

    Returns:
        Tensor["n 1+v d"].
    """
    views = features.shape[1]
    alone = torch.eye(views, dtype=torch.bool, device=features.device)
    masks = [present, *(present & only for only in alone)]
    return torch.stack([network.fuse(network.mask(features, mask)) for mask in masks], 1)
