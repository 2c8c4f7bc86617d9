"""Mean and deviation of a preference score: HPSv3's head, without its sampling.

HPSv3 predicts (mu, log sigma) per picture; its released code minimises E[-log sigma(z)] for
z ~ N(mu_A - mu_B, sigma_A^2 + sigma_B^2) by 1000 half-precision samples. Here expectations are
Gauss-Hermite sums. That loss, `expected`, grows with sigma by convexity, so it drives the
deviation to zero; the default is the likelihood -log E[sigma(z)] (`marginal`), which learns where
people disagree. HPSv3's layers (1024, dropout 0.05, 16) are replaced by one hidden layer.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.preference import expected_bradley_terry, marginal_bradley_terry
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, difference, ties
from embodied_reward.scoring.heads.inputs import complete, two_layer
from embodied_reward.scoring.scorer import Items, Output

LOSSES = {"marginal": marginal_bradley_terry, "expected": expected_bradley_terry}


@HeadConfig.register_subclass("heteroscedastic")
@dataclass(frozen=True, kw_only=True)
class HeteroscedasticConfig(HeadConfig):
    """Configuration of `HeteroscedasticHead`."""

    likelihood: str = "marginal"
    """marginal, -log E[sigma(z)]; or expected, E[-log sigma(z)], the loss of HPSv3's code"""
    points: int = 16
    """nodes of the Gauss-Hermite sum; 16 err by 0.006 at the largest deviation of a pair"""
    max_log_std: float = 1.0
    """upper bound of log sigma; beyond it a picture is a coin flip anyway"""


class HeteroscedasticHead(PreferenceHead):
    """Score and its `aleatoric` deviation, in the units of the score."""

    config: HeteroscedasticConfig
    source: ClassVar[str] = "HPSv3"

    def __init__(self, config: HeteroscedasticConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if config.likelihood not in LOSSES:
            raise ConfigError(
                f"--head.likelihood={config.likelihood}; {did_you_mean(config.likelihood, LOSSES)}"
            )
        self.net = two_layer(self.input.dim, config.hidden, 2 * len(self.dim_names))

    def moments(self, items: Items) -> tuple[Tensor, Tensor]:
        """Return mu and sigma before the normaliser, two Tensor["n k"]."""
        mean, log_std = self.net(self.input(items)).chunk(2, 1)
        bound = self.config.max_log_std
        return mean, (bound - F.softplus(bound - log_std)).exp()

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        return self.moments(items)[0]

    def forward(self, items: Items) -> Output:
        """See the base class."""
        mean, std = self.moments(items)
        k = mean.shape[1]
        aleatoric = (std / self.out_std).square().sum(1).sqrt() / k
        return self.output(
            items, self.normalised(mean), present=complete(mean), aleatoric=aleatoric
        )

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss; a tie counts half for either side."""
        cost = LOSSES[self.config.likelihood]
        pairs = choices.pairs()
        mean, std = self.moments(choices.items)
        d, spread = difference(mean, pairs), self._spread(std, pairs)
        win = cost(d, spread, self.config.points)
        tie = ties(pairs, d)
        both = 0.5 * (win + cost(-d, spread, self.config.points))
        loss = torch.where(tie, both, win).mean()
        return loss, {"loss": float(loss.detach()), "sigma": float(std.detach().nanmean())}

    def _spread(self, std: Tensor, pairs) -> Tensor:  # noqa: ANN001
        winner = torch.from_numpy(pairs.winner).to(std.device)
        loser = torch.from_numpy(pairs.loser).to(std.device)
        dim = torch.from_numpy(pairs.dim).to(std.device)
        # The root of exactly zero has no gradient.
        return (std[winner, dim].square() + std[loser, dim].square() + 1e-12).sqrt()
