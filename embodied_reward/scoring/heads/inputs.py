"""From the features of an item's frames to one vector: pooling, standardising, text."""

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.scoring.scorer import Items, segment_sum
from embodied_reward.scoring.status import Role
from embodied_reward.types import Bool

POOLS = ("mean", "attention")


class ItemInput(nn.Module):
    """One vector per item, of the frames with a given role and the item's text.

    Features are standardised by the training set's mean and deviation, which travel with the
    weights. Pooling works on ragged rows, so there is no padding that could leak into a score.

    Args:
        dim: size d of the trunk's features.
        text_dim: size of the text's features; 0 uses no text.
        pool: `mean`, or `attention` with one learned query per head (the pooling of SoliReward's
            query attention at one layer; the original reads four layers of a language model).
        heads: heads of the attention; must divide d.
    """

    def __init__(self, dim: int, text_dim: int = 0, pool: str = "mean", heads: int = 1) -> None:
        super().__init__()
        if pool not in POOLS:
            raise ConfigError(f"pool={pool!r}; {did_you_mean(pool, POOLS)}")
        if pool == "attention" and dim % heads:
            raise ConfigError(f"{heads} attention heads do not divide the trunk's {dim} features")
        self.feature_dim, self.text_dim, self.pool, self.heads = dim, text_dim, pool, heads
        # Where both towers share a space, their product is the alignment of picture and text.
        self.dim = dim + text_dim + (dim if text_dim == dim else 0)
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        if pool == "attention":
            self.query = nn.Parameter(torch.randn(heads, dim // heads) / (dim // heads) ** 0.5)
            self.key = nn.Linear(dim, dim, bias=False)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Standardise by these features, Tensor["n ... d"], from now on."""
        rows = features.reshape(-1, features.shape[-1])
        self.mean = rows.mean(0)
        self.scale = rows.std(0, correction=0).clamp_min(1e-6)

    def forward(self, items: Items, role: Role = Role.CURRENT) -> Tensor:
        """Return Tensor["n dim"]; NaN for an item without such a frame, or without its text."""
        pooled = self.pooled(items, role)
        if not self.text_dim:
            return pooled
        text = self._text(items)
        both = (
            [pooled, text, pooled * text] if self.text_dim == self.feature_dim else [pooled, text]
        )
        return torch.cat(both, 1)

    def pooled(self, items: Items, role: Role) -> Tensor:
        """Return Tensor["n d"] of the frames with this role; NaN for an item without one."""
        rows = items.role == role
        features = items.features.float()
        if features.shape[-1] != self.feature_dim:
            raise ConfigError(
                f"the head reads {self.feature_dim} features per picture, this trunk gives "
                f"{features.shape[-1]}: use the trunk that the head was trained on"
            )
        owner = torch.from_numpy(items.owner[rows]).to(features.device)
        chosen = (features[torch.from_numpy(rows).to(features.device)] - self.mean) / self.scale
        if chosen.ndim == 3:
            owner = owner.repeat_interleave(chosen.shape[1])
            chosen = chosen.flatten(0, 1)
        if self.pool == "attention":
            return self._attend(chosen, owner, len(items))
        total = segment_sum(chosen, owner, len(items))
        return total / torch.bincount(owner, minlength=len(items)).to(total)[:, None]

    def _attend(self, rows: Tensor, owner: Tensor, count: int) -> Tensor:
        """Softmax over the rows of each item, never over a padded axis."""
        keys = self.key(rows).unflatten(1, (self.heads, -1))
        logit = (keys * self.query).sum(2) / keys.shape[2] ** 0.5
        index = owner[:, None].expand_as(logit)
        top = logit.new_full((count, self.heads), -torch.inf)
        top = top.scatter_reduce(0, index, logit.detach(), "amax")
        weight = (logit - top[owner]).exp()
        total = segment_sum(weight, owner, count)
        value = rows.unflatten(1, (self.heads, -1)) * weight[..., None]
        summed = segment_sum(value, owner, count)
        return (summed / total[..., None]).flatten(1)

    def _text(self, items: Items) -> Tensor:
        missing = torch.full((len(items), self.text_dim), torch.nan, device=items.features.device)
        if items.text_features is None:
            return missing
        has = torch.from_numpy(items.text >= 0).to(missing.device)
        row = torch.from_numpy(np.maximum(items.text, 0)).to(missing.device)
        return torch.where(has[:, None], items.text_features.float()[row], missing)


def complete(inputs: Tensor) -> Bool:
    """Return which items have everything they need, Bool["n"]."""
    return (~inputs.isnan().all(1)).cpu().numpy()


def two_layer(dim: int, hidden: int, out: int, activation: type[nn.Module] = nn.SiLU) -> nn.Module:
    """Return Linear-activation-Linear in fp32; hidden 0 is one linear layer."""
    if not hidden:
        return nn.Linear(dim, out)
    return nn.Sequential(nn.Linear(dim, hidden), activation(), nn.Linear(hidden, out))
