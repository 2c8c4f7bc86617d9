"""A preference head that knows how much its answer wobbles: Ctrl-U-style.

Ctrl-U compares two stochastic predictions of one sample, U = u_scale KL, and minimises
exp(-U) L + U. There the two predictions come from two steps of a diffusion; reconstructed here as
passes with dropout, whose masks are fixed by an item's content and the seed, so that U is the same
in any batch.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.errors import ConfigError
from embodied_reward.math.preference import attenuated, bernoulli_kl, soft_bradley_terry
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, difference, ties
from embodied_reward.scoring.heads.inputs import complete
from embodied_reward.scoring.scorer import Items, Output


@HeadConfig.register_subclass("uncertainty")
@dataclass(frozen=True, kw_only=True)
class UncertaintyConfig(HeadConfig):
    """Configuration of `UncertaintyHead`."""

    dropout: float = 0.1
    """share of hidden units dropped in a stochastic pass"""
    passes: int = 2
    """stochastic passes of the training loss"""
    u_scale: float = 1.0
    """factor of the divergence between passes in the training loss"""


class UncertaintyHead(PreferenceHead):
    """Deterministic with `passes=0`; else the mean over passes, and their deviation `epistemic`.

    A consumer weighs the score by `uncertainty_weight(epistemic ** 2, tau)`.
    """

    config: UncertaintyConfig
    source: ClassVar[str] = "Ctrl-U-style"

    def __init__(self, config: UncertaintyConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if not 0 <= config.dropout < 1 or config.passes < 2 or config.hidden < 1:
            raise ConfigError(
                f"--head.dropout={config.dropout} must be in [0, 1), --head.passes="
                f"{config.passes} at least 2, --head.hidden={config.hidden} positive"
            )
        self.first = nn.Linear(self.input.dim, config.hidden)
        self.last = nn.Linear(config.hidden, len(self.dim_names))

    def raw(self, items: Items) -> Tensor:
        """See the base class; no dropout."""
        return self.last(F.silu(self.first(self.input(items))))

    def stochastic(self, items: Items, passes: int) -> Tensor:
        """Return raw scores of several passes, Tensor["passes n k"]."""
        hidden = F.silu(self.first(self.input(items)))
        return self.last(hidden * self._masks(items, passes).to(hidden.device))

    def forward(self, items: Items) -> Output:
        """See the base class."""
        if not items.passes:
            return super().forward(items)
        dims = self.normalised(self.stochastic(items, items.passes))
        spread = dims.mean(2).std(0, correction=0)
        return self.output(items, dims.mean(0), present=complete(dims[0]), epistemic=spread)

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the mean of exp(-U) L + U over pairs; a tie is a label of one half."""
        pairs = choices.pairs()
        passes = self.stochastic(choices.items, self.config.passes)
        d = torch.stack([difference(values, pairs) for values in passes])
        target = 1 - 0.5 * ties(pairs, d).to(d.dtype)
        each = soft_bradley_terry(d, target).mean(0)
        u = self.config.u_scale * bernoulli_kl(d[1:], d[:-1]).mean(0)
        loss = attenuated(each, u).mean()
        logs = {"loss": float(loss.detach()), "u": float(u.detach().mean())}
        return loss, {**logs, "accuracy": float((d.mean(0) > 0).float().mean())}

    def _masks(self, items: Items, passes: int) -> Tensor:
        """Return Tensor["passes n hidden"], 0 or 1 / (1 - dropout)."""
        keep = 1 - self.config.dropout
        masks = np.empty((passes, len(items), self.config.hidden), np.float32)
        for p in range(passes):
            for i in range(len(items)):
                masks[p, i] = items.generator(i, p).random(self.config.hidden) < keep
        return torch.from_numpy(masks / keep)
