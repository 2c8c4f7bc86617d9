"""Pointwise preference head with ties: Bradley-Terry, SoliReward, Rao-Kupper.

Follows the sources: the two-layer SiLU head on frozen features and the plain loss are BaseReward's
("A Strong Baseline for Multimodal Reward Model"), the win-tie margin loss with m = 3 is
SoliReward's, the Rao-Kupper likelihood with k = 5 VideoAlign's. Ours: the features come from an
image trunk instead of a 7B language model, and clips are pooled over frames.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.math.preference import rao_kupper, soft_bradley_terry, win_tie
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.choices import Choices, difference, ties
from embodied_reward.scoring.heads.inputs import two_layer
from embodied_reward.scoring.scorer import Items

LOSSES = ("plain", "win_tie", "rao_kupper")


@HeadConfig.register_subclass("bradley_terry")
@dataclass(frozen=True, kw_only=True)
class BradleyTerryConfig(HeadConfig):
    """Configuration of `BradleyTerryHead`."""

    ties: str = "win_tie"
    """loss where the data has ties: win_tie (SoliReward), rao_kupper (VideoAlign), or plain, for
    which a tie is a label of one half"""
    margin: float = 3.0
    """margin m of win_tie, by which a win must exceed and a tie may differ"""
    k: float = 5.0
    """parameter k > 1 of rao_kupper"""


class BradleyTerryHead(PreferenceHead):
    """One score per dimension.

    With `ties=plain`, P(a is better) = sigma(raw_a - raw_b); the card's normaliser leads back from
    scores to raw values.
    """

    config: BradleyTerryConfig
    source: ClassVar[str] = "BaseReward; SoliReward; VideoAlign"

    def __init__(self, config: BradleyTerryConfig, dim: int, **more) -> None:  # noqa: ANN003
        super().__init__(config, dim, **more)
        if config.ties not in LOSSES:
            raise ConfigError(f"--head.ties={config.ties}; accepted: {', '.join(LOSSES)}")
        if config.k <= 1 or config.margin < 0:
            raise ConfigError(
                f"--head.k={config.k}, --head.margin={config.margin}: need k > 1, m >= 0"
            )
        self.net = two_layer(self.input.dim, config.hidden, len(self.dim_names))

    def raw(self, items: Items) -> Tensor:
        """See the base class."""
        return self.net(self.input(items))

    def loss(self, choices: Choices) -> tuple[Tensor, dict[str, float]]:
        """Return the mean loss over pairs."""
        pairs = choices.pairs()
        d = difference(self.raw(choices.items), pairs)
        tie = ties(pairs, d)
        if self.config.ties == "win_tie":
            each = win_tie(d, tie, self.config.margin)
        elif self.config.ties == "rao_kupper":
            each = rao_kupper(d, tie, self.config.k)
        else:
            each = soft_bradley_terry(d, 1 - 0.5 * tie.to(d.dtype))
        loss = each.mean()
        return loss, {"loss": float(loss.detach()), "accuracy": _share(d, tie)}


def _share(d: Tensor, tie: Tensor) -> float:
    decided = d[~tie]
    return float((decided > 0).float().mean()) if len(decided) else float("nan")
