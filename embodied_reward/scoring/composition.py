"""One scorer made of several: a rule over the scores of its parts.

An item has a composed score only where every part has one, so a part that timed out can neither
pass as 0 nor be left out of a mean.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from embodied_reward.errors import ConfigError, ScoringError, did_you_mean
from embodied_reward.math.composition import (
    additive,
    base_and_bonus,
    lambda_harmonic,
    threshold_bonus,
)
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.status import Status
from embodied_reward.types import Float64, UInt8

type Rule = Callable[..., Float64]
"""Scores Float64["n"] of the parts, in order -> scores Float64["n"], NaN where undefined."""

RULES: dict[str, Rule] = {
    "base_and_bonus": base_and_bonus,
    "threshold_bonus": threshold_bonus,
    "lambda_harmonic": lambda_harmonic,
    "additive": additive,
}


def rule_named(name: str, **settings: float) -> Rule:
    """Return a rule of `RULES` with its settings bound. Raises ConfigError."""
    if name not in RULES:
        raise ConfigError(f"no composition rule '{name}'; {did_you_mean(name, RULES)}")
    rule = partial(RULES[name], **settings)
    try:
        rule(np.zeros(1), np.zeros(1))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"composition rule '{name}': {error}") from error
    return rule


def combine(
    rule: Rule, names: Sequence[str], scores: Sequence[Float64], status: Sequence[UInt8]
) -> tuple[Float64, UInt8, dict[int, str]]:
    """Apply a rule to columns.

    Args:
        rule: of as many scores as there are parts.
        names: of the k parts, for messages.
        scores: k columns Float64["n"].
        status: k columns UInt8["n"].

    Returns:
        Score Float64["n"], status UInt8["n"], and what went wrong by item. A failed item has the
        status of its first failed part; BAD_INPUT where a score is outside the rule's domain.
    """
    value = np.array(rule(*scores), np.float64)
    whole = np.zeros(len(value), np.uint8)
    detail: dict[int, str] = {}
    for name, part in zip(names, status, strict=True):
        fresh = (whole == Status.OK) & (part != Status.OK)
        whole[fresh] = part[fresh]
        detail |= dict.fromkeys(np.flatnonzero(fresh).tolist(), f"part '{name}' failed")
    outside = (whole == Status.OK) & ~np.isfinite(value)
    for item in np.flatnonzero(outside).tolist():
        given = ", ".join(f"{n}={s[item]:.4g}" for n, s in zip(names, scores, strict=True))
        detail[item] = f"outside the rule's domain: {given}"
    whole[outside] = Status.BAD_INPUT
    value[whole != Status.OK] = np.nan
    return value, whole, detail


class Scoring(Protocol):
    """Whoever answers requests: the core or a client of it."""

    def score(self, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Return one batch per scorer of the request."""
        ...


@dataclass(frozen=True)
class Composition:
    """A rule over scorers of any trunk, each of which stays a scorer of its own.

    Attributes:
        name: of the composed scorer.
        parts: scorer names, in the order of the rule's arguments.
        rule: see `rule_named`.
    """

    name: str
    parts: tuple[str, ...]
    rule: Rule

    def compose(self, replies: Mapping[str, ScoreBatch]) -> ScoreBatch:
        """Compose replies to one request.

        Returns:
            A batch whose `dims` are the parts' scores, named by them. `aleatoric`, `epistemic`,
            `per_frame` and `per_view` are not composed, as no rule says how.

        Raises:
            ScoringError: a part is missing, or the replies have different lengths.
        """
        missing = [p for p in self.parts if p not in replies]
        if missing:
            raise ScoringError(f"'{self.name}' needs the scorers {self.parts}; missing: {missing}")
        parts = [replies[p] for p in self.parts]
        if len({len(p) for p in parts}) != 1:
            raise ScoringError(f"'{self.name}': the replies of {self.parts} differ in length")
        score, status, detail = combine(
            self.rule,
            self.parts,
            [p.score.astype(np.float64) for p in parts],
            [p.status for p in parts],
        )
        for item in detail:
            causes = [p.detail[item] for p in parts if item in p.detail]
            detail[item] = ": ".join([detail[item], *causes[:1]])
        return ScoreBatch(
            score=score.astype(np.float32),
            status=status,
            scorer=self.name,
            weights_sha256="+".join(p.weights_sha256 for p in parts),
            head_version=sum(p.head_version for p in parts),
            preprocess="+".join(dict.fromkeys(p.preprocess for p in parts)),
            dims=np.stack([p.score for p in parts], axis=1),
            dim_names=self.parts,
            detail=detail,
            cached=np.minimum.reduce([p.cached for p in parts]),
            seconds=_sum_times([p.seconds for p in parts]),
        )

    def score(self, core: Scoring, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Ask for the parts as well, and add the composed batch under this name.

        `request.scorers` may hold this name among others; the parts are asked for once each.
        """
        others = [s for s in request.scorers if s != self.name]
        asked = tuple(dict.fromkeys([*others, *self.parts]))
        replies = core.score(replace(request, scorers=asked))
        return {**{s: replies[s] for s in others}, self.name: self.compose(replies)}


def _sum_times(times: Sequence[Mapping[str, float]]) -> dict[str, float]:
    stages = dict.fromkeys(stage for part in times for stage in part)
    return {stage: sum(part.get(stage, 0.0) for part in times) for stage in stages}
