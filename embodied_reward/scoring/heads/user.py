"""One taste per user, on top of what everybody likes: a small user-conditioned head.

score(x, u) = f(x) + <A x, e_u>, Bradley-Terry on pairs of one user. An unknown user has e_u = 0
and gets the population's score. In the spirit of user-conditioned raters such as "Personalizing
Text-to-Image Generation to Individual Taste"; the factorisation is ours.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.math.preference import soft_bradley_terry
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, difference, ties
from embodied_reward.scoring.heads.inputs import two_layer
from embodied_reward.scoring.scorer import Items


@HeadConfig.register_subclass("user")
@dataclass(frozen=True, kw_only=True)
class UserConfig(HeadConfig):
    """Configuration of `UserHead`."""

    users: int = 64
    """number of users known by the table; users are the numbers 0..users-1"""
    factors: int = 8
    """size of a user's vector"""
    shrink: float = 0.01
    """weight of the users' mean squared vectors in the loss"""


class UserHead(PreferenceHead):
    """Score of an item for its user; `user = -1`, or one never seen, gets the population's."""

    config: UserConfig
    source: ClassVar[str] = "user-conditioned, own factorisation"

    def __init__(self, config: UserConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if config.users < 1 or config.factors < 1:
            raise ConfigError("--head.users and --head.factors must be at least 1")
        k = len(self.dim_names)
        self.net = two_layer(self.input.dim, config.hidden, k)
        self.taste = nn.Linear(self.input.dim, config.factors * k, bias=False)
        self.table = nn.Parameter(torch.zeros(config.users, config.factors))

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        inputs = self.input(items)
        known = (items.user >= 0) & (items.user < self.config.users)
        row = torch.from_numpy(np.where(known, items.user, 0)).to(inputs.device)
        mask = torch.from_numpy(known).to(inputs)
        user = self.table[row] * mask[:, None]
        factors = self.taste(inputs).unflatten(1, (len(self.dim_names), -1))
        return self.net(inputs) + (factors * user[:, None]).sum(2)

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the Bradley-Terry loss of the pairs and the shrinkage of the table."""
        pairs = choices.pairs()
        d = difference(self.raw(choices.items), pairs)
        each = soft_bradley_terry(d, 1 - 0.5 * ties(pairs, d).to(d.dtype)).mean()
        loss = each + self.config.shrink * self.table.square().mean()
        return loss, {"loss": float(each.detach()), "accuracy": float((d > 0).float().mean())}
