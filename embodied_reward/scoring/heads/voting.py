"""K preference heads that vote: "Secrets of RLHF in Large Language Models Part II".

From the source: models on bootstrap samples, preference strength (mean and deviation of the
difference over the models), flipping of the pairs that the vote contradicts, soft labels for the
ambiguous ones, and the adaptive margin -log sigma(d - mu). Ours: the K models are heads on one
frozen trunk, run together as one matrix product per layer; bootstrap by Poisson(1) weights; the
contrastive term and MetaRM are left out.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.errors import ConfigError
from embodied_reward.math.preference import soft_bradley_terry, strength, voted_targets
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, Pairs, difference
from embodied_reward.scoring.heads.inputs import complete
from embodied_reward.scoring.scorer import Items, Output
from embodied_reward.types import Float64, Int64

REVIEWS = ("none", "labels", "margin")


@HeadConfig.register_subclass("voting")
@dataclass(frozen=True, kw_only=True)
class VotingConfig(HeadConfig):
    """Configuration of `VotingHead`."""

    hidden: int = 64
    """units of the hidden layer of each member; 0 makes them linear"""
    members: int = 10
    """number K of heads"""
    bootstrap_seed: int = 0
    """seed of the bootstrap weights"""
    review: str = "none"
    """what the vote does halfway, before training starts afresh: none, labels (flip and soften)
    or margin (adaptive margin)"""
    flip: float = 0.2
    """largest share of pairs that may be flipped"""
    soften: float = 0.2
    """share of pairs, above those, that get a soft label"""
    smoothing: float = 0.2
    """distance of a soft label from 1"""


class VotingHead(PreferenceHead):
    """The score is the mean over members, `epistemic` their standard deviation."""

    config: VotingConfig
    source: ClassVar[str] = "Secrets of RLHF in Large Language Models Part II"

    def __init__(self, config: VotingConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if config.members < 2 or config.review not in REVIEWS:
            raise ConfigError(
                f"--head.members={config.members} must be at least 2 and --head.review="
                f"{config.review} one of {', '.join(REVIEWS)}"
            )
        members, k, wide = config.members, len(self.dim_names), config.hidden or len(self.dim_names)
        self.first = nn.Linear(self.input.dim, members * wide)
        if config.hidden:
            self.last = nn.Parameter(torch.empty(members, wide, k))
            self.bias = nn.Parameter(torch.zeros(members, 1, k))
        self.register_buffer("member_mean", torch.zeros(members, 1, k))
        self.reviews = config.review != "none"
        self._weights = np.zeros((0, members))
        self._seen: Float64 | None = None
        self._start = np.zeros(0, np.int64)
        self.reset()

    def reset(self) -> None:
        """Draw new weights from torch's generator."""
        self.first.reset_parameters()
        if self.config.hidden:
            bound = 1 / math.sqrt(self.config.hidden)
            nn.init.uniform_(self.last, -bound, bound)
            nn.init.zeros_(self.bias)

    def members(self, items: Items) -> Tensor:
        """Return raw scores of every member, Tensor["members n k"]."""
        first = self.first(self.input(items)).unflatten(1, (self.config.members, -1))
        first = first.transpose(0, 1)
        if not self.config.hidden:
            return first
        return torch.baddbmm(self.bias, F.silu(first), self.last)

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        return (self.members(items) - self.member_mean).mean(0)

    def forward(self, items: Items) -> Output:
        """See the base class."""
        each = self.normalised(self.members(items) - self.member_mean)
        spread = each.mean(2).std(0, correction=0)
        dims = each.mean(0)
        return self.output(items, dims, present=complete(dims), epistemic=spread)

    @torch.no_grad()
    def fit_output(self, items: Items) -> None:
        """Centre every member, since Bradley-Terry fixes no offset, then scale their mean."""
        self.member_mean = self.members(items).nanmean(1, keepdim=True)
        super().fit_output(items)

    def differences(self, choices: Choices, pairs: Pairs) -> Tensor:
        """Return winner minus loser for every member, Tensor["members p"]."""
        return torch.stack([difference(values, pairs) for values in self.members(choices.items)])

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the sum over members of their bootstrap-weighted mean losses."""
        pairs = choices.pairs()
        d = self.differences(choices, pairs)
        seen = torch.from_numpy(self._reviewed(pairs)).to(d)
        tie = torch.from_numpy(pairs.tie).to(d.device)
        labels = self.config.review == "labels"
        shifted = d if labels else d - torch.where(tie, torch.zeros_like(seen), seen)
        target = torch.where(tie, torch.full_like(seen, 0.5), seen if labels else 1.0)
        weight = torch.from_numpy(self._bootstrap(pairs.row).T).to(d)
        loss = (weight * soft_bradley_terry(shifted, target)).mean(1).sum()
        mean = d.detach().mean(0)
        return loss, {
            "loss": float(loss.detach()) / self.config.members,
            "accuracy": float((mean > 0).float().mean()),
            "disagreement": float(d.detach().std(0, correction=0).mean()),
        }

    @torch.no_grad()
    def review(self, batches: list[Choices]) -> None:
        """Judge all training pairs by vote, then start afresh with what the vote says."""
        everything = [(c.pairs(), c) for c in batches]
        rows = np.concatenate([p.row for p, _ in everything])
        margins = [self.differences(c, p).double().cpu().numpy() for p, c in everything]
        mean, _ = strength(np.concatenate(margins, 1))
        if self.config.review == "labels":
            options = {k: getattr(self.config, k) for k in ("flip", "soften", "smoothing")}
            mean = voted_targets(mean, **options)
        self._start = np.cumsum(count := np.bincount(rows)) - count
        self._seen = np.empty(len(rows))
        self._seen[self._start[rows] + _place(rows)] = mean
        self.reset()

    def _reviewed(self, pairs: Pairs) -> Float64:
        """Return target (or margin) of every pair; 1 (or 0) before the review."""
        if self._seen is None:
            return np.full(len(pairs), 1.0 if self.config.review == "labels" else 0.0)
        return self._seen[self._start[pairs.row] + _place(pairs.row)]

    def _bootstrap(self, rows: np.ndarray) -> Float64:
        """Return Poisson(1) weights Float64["p members"], fixed by the row of the data."""
        need = int(rows.max(initial=0)) + 1
        if need > len(self._weights):
            rng = np.random.default_rng(self.config.bootstrap_seed)
            shape = (2 * need, self.config.members)
            self._weights = rng.poisson(1.0, shape).astype(np.float64)
        return self._weights[rows]


def _place(rows: Int64) -> Int64:
    """Return the number of every entry among those of its row."""
    order = np.argsort(rows, kind="stable")
    sorted_rows = rows[order]
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - np.searchsorted(sorted_rows, sorted_rows)
    return place
