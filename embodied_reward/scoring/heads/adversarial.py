"""A discriminator on frozen features, retrained against the current samples: Adv-GRPO-style.

As in "The Image as Its Own Reward": Linear(d, 512)-GELU-Linear(512, 1) on frozen features,
reference pictures positive, current samples negative, Adam with betas (0.5, 0.999). Reconstructed:
the schedule belongs to the caller, who calls `update` whenever the generator moved. Its code
replaces a missing reference by a default picture; here that is an error.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied_reward.errors import NonFiniteError, ScoringError
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices
from embodied_reward.scoring.heads.inputs import two_layer
from embodied_reward.scoring.scorer import Items


@HeadConfig.register_subclass("adversarial")
@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(HeadConfig):
    """Configuration of `AdversarialHead`."""

    hidden: int = 512
    """units of the hidden layer"""


class AdversarialHead(PreferenceHead):
    """The score is the logit of "a reference picture, not a sample"."""

    config: AdversarialConfig
    source: ClassVar[str] = "Adv-GRPO-style"

    def __init__(self, config: AdversarialConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        self.net = two_layer(self.input.dim, config.hidden, len(self.dim_names), nn.GELU)

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        return self.net(self.input(items))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits Tensor["n"] of features Tensor["n d"] of a trunk without text."""
        return self.net((features.float() - self.input.mean) / self.input.scale).mean(1)

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the logistic loss with the winners as references and the losers as samples."""
        pairs = choices.pairs()
        raw = self.raw(choices.items)
        decided = ~pairs.tie
        good, bad = (torch.from_numpy(np.unique(c[decided])) for c in (pairs.winner, pairs.loser))
        loss = 0.5 * (F.softplus(-raw[good]).mean() + F.softplus(raw[bad]).mean())
        right = 0.5 * ((raw[good] > 0).float().mean() + (raw[bad] < 0).float().mean())
        return loss, {"loss": float(loss.detach()), "accuracy": float(right)}

    def fit_output(self, items: Items) -> None:
        """Leave the logits as they are: zero is the decision."""


class OnlineDiscriminator:
    """Keep a discriminator up to date and hand out finished heads for `ScoringCore.swap_head`.

        head = discriminator.update(references, core.embed(trunk, samples))
        core.swap_head("adversarial", head)

    Args:
        head: where to start; copied.
        lr: learning rate of Adam.
        betas: of Adam.
        steps: gradient steps per update.
        batch_size: references, and samples, per step.
        seed: of the batches.

    Attributes:
        version: number of finished updates.
    """

    def __init__(
        self,
        head: AdversarialHead,
        *,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        steps: int = 10,
        batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        self._head = copy.deepcopy(head).train()
        self._optimizer = torch.optim.Adam(self._head.net.parameters(), lr=lr, betas=betas)
        self._steps, self._batch_size = steps, batch_size
        self._rng = np.random.default_rng(seed)
        self.version = 0

    def update(self, reference_features: Tensor, sample_features: Tensor) -> AdversarialHead:
        """Train on features Tensor["r d"] of references and Tensor["s d"] of current samples.

        Returns:
            A new head in eval mode, which later updates leave alone.

        Raises:
            ScoringError: no references, no samples, or features of another trunk.
            NonFiniteError: a feature or the loss is not finite; the discriminator is unchanged.
        """
        self._check("reference", reference_features)
        self._check("sample", sample_features)
        before = copy.deepcopy((self._head.state_dict(), self._optimizer.state_dict()))
        for _ in range(self._steps):
            loss = self._loss(self._draw(reference_features), self._draw(sample_features))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            if not bool(torch.isfinite(loss)):
                self._head.load_state_dict(before[0])
                self._optimizer.load_state_dict(before[1])
                raise NonFiniteError("the discriminator's loss is not finite; lower its lr")
        self.version += 1
        return copy.deepcopy(self._head).eval().requires_grad_(False)

    def _loss(self, references: Tensor, samples: Tensor) -> Tensor:
        positive, negative = self._head.logits(references), self._head.logits(samples)
        return F.softplus(-positive).mean() + F.softplus(negative).mean()

    def _draw(self, features: Tensor) -> Tensor:
        count = min(self._batch_size, len(features))
        chosen = self._rng.choice(len(features), count, replace=False)
        return features.detach()[torch.from_numpy(chosen).to(features.device)]

    def _check(self, what: str, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self._head.dim:
            raise ScoringError(
                f"{what}_features must be [n {self._head.dim}], got {list(features.shape)}: embed "
                "the pictures with the scorer's own trunk"
            )
        if not len(features):
            raise ScoringError(
                f"no {what} pictures: the discriminator needs both kinds, and a default picture "
                "in their place would become the goal"
            )
        if not bool(torch.isfinite(features).all()):
            raise NonFiniteError(f"{what}_features hold a number that is not finite")
