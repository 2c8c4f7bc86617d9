"""The probability that a model says yes: one pass per question, no decoding, no parser.

m = log P(yes) - log P(no), p = sigma(m); P(yes) + P(no) must hold `min_mass` of the probability,
or the answer was something else (LOW_MASS).

VQAScore (Lin et al. 2024) asks whether a picture shows a text and takes P(yes); RewardDance (Wu et
al. 2025) asks whether a candidate beats a reference. Reconstructed, since the papers do not say or
do otherwise: the margin instead of P(yes) alone, the mass as validity, and the debiasing by asking
in both orders and halving the difference of margins, which makes P(a, b) + P(b, a) = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.language.base import (
    LanguageConfig,
    LanguageScorer,
    filled,
    split_roles,
)
from embodied_reward.scoring.language.reader import Reader, Turn
from embodied_reward.scoring.scorer import Output, RawItems
from embodied_reward.scoring.status import Status
from embodied_reward.types import UInt8

YES = ("yes", "Yes", "YES", " yes", " Yes", " YES")
NO = ("no", "No", "NO", " no", " No", " NO")


@dataclass(frozen=True, kw_only=True)
class YesTokenConfig(LanguageConfig):
    """How the question is asked and read."""

    prompt: str = 'Does this image show "{text}"? Answer yes or no.'
    """question about a candidate alone; {text} is the item's text"""
    comparison: str = (
        'Does the second image show "{text}" better than the first image? Answer yes or no.'
    )
    """question about an item with reference frames, which come first"""
    yes: tuple[str, ...] = YES
    """ways to say yes; those that are one token of the model count"""
    no: tuple[str, ...] = NO
    """ways to say no"""
    min_mass: float = 0.5
    """least P(yes) + P(no) of a valid answer"""
    debias: bool = True
    """ask a comparison in both orders; twice the work"""
    score: Literal["margin", "probability"] = "margin"
    """what the score is: m, unbounded, or p in [0, 1]; the columns hold both"""


class YesTokenScorer(LanguageScorer):
    """See the module docstring. Columns: probability, mass, margin."""

    type = "yes_token"
    source = "Lin et al. 2024 (VQAScore); Wu et al. 2025 (RewardDance)"
    dim_names = ("probability", "mass", "margin")
    config: YesTokenConfig

    def __init__(self, reader: Reader, config: YesTokenConfig) -> None:
        if not 0 <= config.min_mass <= 1:
            raise ConfigError(f"min_mass={config.min_mass}: need a probability, 0 to 1")
        if config.score not in ("margin", "probability"):
            raise ConfigError(f"score={config.score!r}; accepted: margin, probability")
        self.score_range = (0.0, 1.0) if config.score == "probability" else self.score_range
        super().__init__(reader, config)
        self._yes, self._no = _tokens(reader, config.yes), _tokens(reader, config.no)
        if set(self._yes) & set(self._no):
            raise ConfigError("some words mean yes and no; give distinct `yes` and `no`")

    def missing(self, frames: Sequence[UInt8], role: Sequence[int], text: str | None) -> str:
        """See the base class."""
        reference, own = split_roles(frames, role)
        prompt = self.config.comparison if reference else self.config.prompt
        if not own:
            return "no frame of the candidate"
        return "the prompt needs a text and the item has none" if _lacks(prompt, text) else ""

    def ask(self, items: RawItems) -> Output:
        """See the base class."""
        turns, back = self._turns(items)
        log_yes, log_no = self._answers([*turns, *back.values()])
        margin, n = log_yes - log_no, len(turns)
        mass = log_yes.exp() + log_no.exp()
        for k, i in enumerate(back, start=n):
            margin[i] = (margin[i] - margin[k]) / 2
            mass[i] = torch.minimum(mass[i], mass[k])
        margin, mass = margin[:n], mass[:n]
        probability = margin.sigmoid()
        low = (~(mass >= self.config.min_mass)).numpy()
        why = f"P(yes) + P(no) = {{}} is under min_mass={self.config.min_mass}"
        return Output(
            score=margin if self.config.score == "margin" else probability,
            dims=torch.stack([probability, mass, margin], 1),
            status=np.where(low, Status.LOW_MASS, Status.OK).astype(np.uint8),
            detail={int(i): why.format(f"{float(mass[i]):.3g}") for i in np.flatnonzero(low)},
        )

    def _turns(self, items: RawItems) -> tuple[list[Turn], dict[int, Turn]]:
        """Return every item's question, and the reversed one of comparisons."""
        turns, back = [], {}
        for i, (frames, role, text) in enumerate(
            zip(items.frames, items.role, items.texts, strict=True)
        ):
            reference, own = split_roles(frames, role.tolist())
            prompt = filled(self.config.comparison if reference else self.config.prompt, text)
            turns.append(Turn((*reference, *own), prompt))
            if reference and self.config.debias:
                back[i] = Turn((*own, *reference), prompt)
        return turns, back

    def _answers(self, turns: list[Turn]) -> tuple[Tensor, Tensor]:
        """Return log P(yes) and log P(no) of the first token, float32 Tensor["n"] each."""
        log_probs = self.reader.first_token(turns)
        parts = [log_probs[:, ids].logsumexp(1).cpu() for ids in (self._yes, self._no)]
        return parts[0], parts[1]


def _tokens(reader: Reader, words: tuple[str, ...]) -> list[int]:
    ids = reader.token_ids(words).tolist()
    if not ids:
        raise ConfigError(
            f"none of {', '.join(map(repr, words))} is a single token of the model's vocabulary; "
            "name words that are, in `yes` and `no`"
        )
    return ids


def _lacks(prompt: str, text: str | None) -> bool:
    return "{text}" in prompt and not text
