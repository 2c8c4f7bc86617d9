"""Scores of N candidates that see each other: YOJO-style, on features.

"You Only Judge Once" reads N responses in one context of a language model and minimises
-log softmax(s)_best; two candidates give Bradley-Terry. Reconstructed here at feature level, so
that each candidate is encoded once and cached: a two-layer set transformer on the candidates'
features, without positions, hence without order bias. The candidates are sorted by content first,
which makes the scores bit-equal under permutation as well.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.errors import ConfigError
from embodied_reward.math.preference import log_partition
from embodied_reward.math.statistics import finite_mean
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import TIE, UNJUDGED, Choices
from embodied_reward.scoring.heads.inputs import complete, two_layer
from embodied_reward.scoring.scorer import Items
from embodied_reward.types import Int64


@HeadConfig.register_subclass("n_way")
@dataclass(frozen=True, kw_only=True)
class NWayConfig(HeadConfig):
    """Configuration of `NWayHead`."""

    width: int = 64
    """width of the set transformer"""
    layers: int = 2
    """layers of the set transformer; 0 scores every candidate alone"""
    attention_heads: int = 4
    """heads of its attention"""


class SetLayer(nn.Module):
    """Pre-norm self-attention within a set, then a SiLU layer; no positions, no dropout."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = two_layer(width, 2 * width, width)

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Update Tensor["g m w"]; `there` Bool Tensor["g m"] marks what is no padding."""
        q, k, v = (
            self.qkv(self.norms[0](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class NWayHead(PreferenceHead):
    """One score per candidate, given its whole group; softmax within the group is P(best)."""

    groupwise = True
    config: NWayConfig
    source: ClassVar[str] = "YOJO-style, at feature level"

    def __init__(self, config: NWayConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if config.width % config.attention_heads:
            raise ConfigError(
                f"--head.attention_heads={config.attention_heads} must divide "
                f"--head.width={config.width}"
            )
        self.embed = nn.Linear(self.input.dim, config.width)
        layers = [SetLayer(config.width, config.attention_heads) for _ in range(config.layers)]
        self.layers = nn.ModuleList(layers)
        self.net = two_layer(config.width, config.hidden, len(self.dim_names))

    def raw(self, items: Items) -> Tensor:
        """See the base class; a candidate that lacks something is invisible to the others."""
        inputs = self.input(items)
        place = _places(items, complete(inputs))
        if not len(place):
            return inputs.new_full((len(items), len(self.dim_names)), torch.nan)
        item, group, slot = torch.from_numpy(place).to(inputs.device).T
        shape = int(group.max()) + 1, int(slot.max()) + 1
        x = inputs.new_zeros(*shape, self.config.width)
        x = x.index_put((group, slot), self.embed(inputs[item]))
        there = torch.zeros(shape, dtype=torch.bool, device=x.device)
        there[group, slot] = True
        for layer in self.layers:
            x = layer(x, there)
        found = inputs.new_full((len(items), len(self.dim_names)), torch.nan)
        return found.index_put((item,), self.net(x)[group, slot])

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the mean cross-entropy over sets; a tie has a uniform target."""
        scores = self.raw(choices.items)
        group = torch.from_numpy(np.repeat(np.arange(len(choices)), np.diff(choices.offsets)))
        parts, right = [], []
        for k in range(choices.best.shape[1]):
            each, correct = _one_dimension(scores[:, k], group.to(scores.device), choices, k)
            parts.append(each)
            right.append(correct)
        loss = torch.cat(parts).mean()
        return loss, {"loss": float(loss.detach()), "accuracy": finite_mean(np.concatenate(right))}


def _one_dimension(
    scores: Tensor, group: Tensor, choices: Choices, k: int
) -> tuple[Tensor, np.ndarray]:
    best = choices.best[:, k]
    total = log_partition(scores, group, len(choices))
    size = torch.from_numpy(np.diff(choices.offsets)).to(scores)
    mean = scores.new_zeros(len(choices)).index_add(0, group, scores) / size
    item = torch.from_numpy(choices.offsets[:-1] + np.maximum(best, 0)).to(scores.device)
    target = torch.where(torch.from_numpy(best == TIE).to(scores.device), mean, scores[item])
    top = scores.new_full((len(choices),), -torch.inf).scatter_reduce(0, group, scores, "amax")
    correct = (scores[item] == top).cpu().numpy()[best >= 0]
    return (total - target)[torch.from_numpy(best != UNJUDGED).to(scores.device)], correct


def _places(items: Items, there: np.ndarray) -> Int64:
    """Return rows (item, group number, slot), the candidates of a group in order of content."""
    keys = [items.keys[i] for i in range(len(items))]
    order = sorted(np.flatnonzero(there).tolist(), key=lambda i: (int(items.group[i]), keys[i]))
    groups = items.group[order]
    number = np.unique(groups, return_inverse=True)[1] if len(order) else groups
    first = np.searchsorted(number, number)
    return np.stack([order, number, np.arange(len(order)) - first], 1).astype(np.int64)
