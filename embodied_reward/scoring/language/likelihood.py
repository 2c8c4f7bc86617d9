"""How likely a model finds the prompt as a description of the picture: one pass, no decoding.

R = (1/T) sum_t log p(text_t | pictures, query, text_<t), after PromptEcho. The published
description gives a cross-entropy without saying whether it is averaged over tokens or summed;
`reduction` offers both, `mean` is the default. A batch never mixes items: every item has its own
sum over its own tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.language.base import LanguageConfig, LanguageScorer
from embodied_reward.scoring.language.reader import Reader, Turn
from embodied_reward.scoring.scorer import Output, RawItems
from embodied_reward.types import UInt8


@dataclass(frozen=True, kw_only=True)
class LikelihoodConfig(LanguageConfig):
    """How the text is read."""

    query: str = "Describe this image in detail."
    """what the model is asked; the item's text is the forced answer"""
    reduction: Literal["mean", "sum"] = "mean"
    """mean or sum of log p over the tokens; a sum prefers short texts"""


class LikelihoodScorer(LanguageScorer):
    """See the module docstring. Columns: mean and sum of log p over the text's tokens."""

    type = "likelihood"
    source = "PromptEcho; reduction reconstructed"
    dim_names = ("mean_log_p", "sum_log_p")
    score_range = (float("-inf"), 0.0)
    config: LikelihoodConfig

    def __init__(self, reader: Reader, config: LikelihoodConfig) -> None:
        if config.reduction not in ("mean", "sum"):
            raise ConfigError(f"reduction={config.reduction!r}; accepted: mean, sum")
        super().__init__(reader, config)

    def missing(self, frames: Sequence[UInt8], role: Sequence[int], text: str | None) -> str:
        """See the base class."""
        if not frames:
            return "no frame"
        return "" if text and text.strip() else "no text whose likelihood could be asked for"

    def ask(self, items: RawItems) -> Output:
        """See the base class."""
        pairs = zip(items.frames, items.texts, strict=True)
        turns = [Turn(f, self.config.query, text or "") for f, text in pairs]
        log_p = self.reader.answer_log_probs(turns)
        dims = torch.stack([torch.stack([row.mean(), row.sum()]) for row in log_p])
        return Output(score=dims[:, 0 if self.config.reduction == "mean" else 1], dims=dims)
