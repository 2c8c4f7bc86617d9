"""How much better is `after` than `before`, given a reference: a head on differences of features.

In the family of Robo-Dopamine's before/after/reference judge and RewardDance's candidate against
reference, reconstructed on frozen features. The debiasing of the latter, the average over both
orders, is built in: score(a, b) = f(a, b) - f(b, a), so the score is antisymmetric by
construction and no order is preferred.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from embodied_reward.math.preference import soft_bradley_terry
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, Pairs, ties
from embodied_reward.scoring.heads.inputs import two_layer
from embodied_reward.scoring.scorer import Items
from embodied_reward.scoring.status import Role


@HeadConfig.register_subclass("reference")
@dataclass(frozen=True, kw_only=True)
class ReferenceConfig(HeadConfig):
    """Configuration of `ReferenceHead`."""

    needs_reference: bool = False
    """an item without a frame of role REFERENCE is an error instead of being judged without"""


class ReferenceHead(PreferenceHead):
    """Items with frames of roles BEFORE, AFTER and perhaps REFERENCE.

    sigma(score) is P(after is better than before). Exchanging the two negates the score.
    """

    config: ReferenceConfig
    source: ClassVar[str] = "Robo-Dopamine-style, RewardDance-style"

    def __init__(self, config: ReferenceConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        self.net = two_layer(3 * dim, config.hidden, len(self.dim_names))

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        before, after = (self.input.pooled(items, role) for role in (Role.BEFORE, Role.AFTER))
        return self.compare(before, after, self._reference(items))

    def compare(self, before: Tensor, after: Tensor, reference: Tensor) -> Tensor:
        """Return Tensor["n k"] of pooled features Tensor["n d"]; a reference of NaN is absent."""
        absent = reference.isnan().all(1, keepdim=True)
        if not self.config.needs_reference:
            reference = torch.where(absent, torch.zeros_like(reference), reference)
        forth = torch.cat([after - before, after - reference, before - reference], 1)
        back = torch.cat([before - after, before - reference, after - reference], 1)
        return self.net(forth) - self.net(back)

    def margins(self, choices: Choices, pairs: Pairs) -> Tensor:
        """See the base class: the loser is `before`, the winner `after`."""
        pooled = self.input.pooled(choices.items, Role.CURRENT)
        winner, loser, dim = (
            torch.from_numpy(column).to(pooled.device)
            for column in (pairs.winner, pairs.loser, pairs.dim)
        )
        reference = self._reference(choices.items)[winner]
        scores = self.compare(pooled[loser], pooled[winner], reference)
        return scores[torch.arange(len(dim), device=dim.device), dim]

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the mean Bradley-Terry loss of the pairs; a tie is a label of one half."""
        pairs = choices.pairs()
        d = self.margins(choices, pairs)
        loss = soft_bradley_terry(d, 1 - 0.5 * ties(pairs, d).to(d.dtype)).mean()
        return loss, {"loss": float(loss.detach()), "accuracy": float((d > 0).float().mean())}

    def fit_output(self, items: Items) -> None:
        """Leave the scores as they are: an offset would break the antisymmetry."""

    def missing(self, items: Items, item: int) -> str:
        """See the base class."""
        rows = slice(int(items.offsets[item]), int(items.offsets[item + 1]))
        roles = (Role.BEFORE, Role.AFTER, *[Role.REFERENCE] * self.config.needs_reference)
        absent = [r.name for r in roles if not (items.role[rows] == r).any()]
        return f"the item has no frame with role {' and '.join(absent)}"

    def _reference(self, items: Items) -> Tensor:
        return self.input.pooled(items, Role.REFERENCE)
