"""The contract of a trainable head: `Head` plus a loss on preferences."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import draccus
import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.heads.choices import Choices, Pairs, difference
from embodied_reward.scoring.heads.inputs import ItemInput, complete
from embodied_reward.scoring.scorer import Head, Items, Output
from embodied_reward.scoring.status import Role, Status
from embodied_reward.types import Bool

DEFAULT_DIM = "preference"


@dataclass(frozen=True, kw_only=True)
class HeadConfig(draccus.ChoiceRegistry):
    """Base of every head's configuration; `--head.type` chooses the head."""

    hidden: int = 256
    """units of the hidden layer; 0 makes the head linear"""
    pool: str = "mean"
    """how the frames of a clip become one vector: mean or attention"""
    pool_heads: int = 1
    """heads of the attention pooling"""


class PreferenceHead(Head, abc.ABC):
    """A head that learns from `Choices`.

    Args:
        config: of the head's own class.
        dim: size of the trunk's features.
        text_dim: size of the trunk's text features; 0 ignores texts.
        dims: names of what is judged; the score is their mean.

    Attributes:
        reviews: `review` wants to be called halfway through the training.
        score_range: closed range of the score.
    """

    config: HeadConfig
    reviews: bool = False
    score_range: tuple[float, float] = (float("-inf"), float("inf"))
    source: ClassVar[str] = ""

    def __init__(
        self,
        config: HeadConfig,
        dim: int,
        text_dim: int = 0,
        dims: tuple[str, ...] = (DEFAULT_DIM,),
    ) -> None:
        super().__init__()
        self.config, self.dim, self.text_dim = config, dim, text_dim
        self.dim_names = tuple(dims)
        self.input = ItemInput(dim, text_dim, config.pool, config.pool_heads)
        self.register_buffer("out_mean", torch.zeros(len(dims)))
        self.register_buffer("out_std", torch.ones(len(dims)))

    @abc.abstractmethod
    def raw(self, items: Items) -> Tensor:
        """Return scores before the normaliser, Tensor["n k"]; NaN where an item lacks something."""

    @abc.abstractmethod
    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the loss to minimise and what to log."""

    def forward(self, items: Items) -> Output:
        """See the base class."""
        raw = self.raw(items)
        return self.output(items, self.normalised(raw), present=complete(raw))

    def margins(self, choices: Choices, pairs: Pairs) -> Tensor:
        """Return by how much the head prefers the winner of every pair, Tensor["p"]."""
        return difference(self.raw(choices.items), pairs)

    def normalised(self, raw: Tensor) -> Tensor:
        """Return raw scores Tensor["n k"] in the units of the training items."""
        return (raw - self.out_mean) / self.out_std

    def output(self, items: Items, dims: Tensor, present: Bool, **columns: Any) -> Output:
        """Make the reply; an item that lacks its frames or its text is BAD_INPUT."""
        status = np.where(present, Status.OK, Status.BAD_INPUT).astype(np.uint8)
        detail = {int(i): self.missing(items, int(i)) for i in np.flatnonzero(~present)}
        return Output(score=dims.mean(1), dims=dims, status=status, detail=detail, **columns)

    def missing(self, items: Items, item: int) -> str:
        """Say what an incomplete item lacks."""
        rows = slice(int(items.offsets[item]), int(items.offsets[item + 1]))
        if not (items.role[rows] == Role.CURRENT).any():
            return "the item has no frame with role CURRENT"
        return "the scorer reads a text and the item has none"

    def fit_input(self, features: Tensor) -> None:
        """Standardise by the features Tensor["n ... d"] of the training pictures."""
        self.input.fit(features)

    @torch.no_grad()
    def fit_output(self, items: Items) -> None:
        """Make the scores of these items zero-mean with unit deviation, per dimension.

        Order and sign of differences stay; the constants are part of the weights.
        """
        raw = self.raw(items)
        self.out_mean = raw.nanmean(0)
        spread = (raw - self.out_mean).square().nanmean(0).sqrt()
        self.out_std = torch.where(spread > 0, spread, torch.ones_like(spread))

    def review(self, batches: list[Choices]) -> None:
        """Look at all training data once, halfway; called where `reviews` is set."""

    @classmethod
    def create(cls, config: Any, dim: int, **more: Any) -> Self:
        """Make a head of this class."""
        return cls(config, dim, **more)
