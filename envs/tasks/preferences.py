"""Preference oracles: which of two episodes a person would prefer, from the true reward.

A teacher compares true returns and answers with the faults of people, after B-Pref (Lee et al.
2021, arXiv:2111.03026, section 3): mistakes at a fixed rate, limited rationality
(Bradley-Terry), near-ties called the same, and attention to the end of a clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit

from embodied_reward.errors import EnvError
from embodied_reward.types import Episode, Float64

from .catalogue import rules_class

Answer = Literal["first", "second", "same"]
_OTHER: dict[Answer, Answer] = {"first": "second", "second": "first", "same": "same"}


@dataclass(frozen=True)
class Teacher:
    """Somebody who answers comparisons; the default is perfect.

    Attributes:
        noise: chance in [0, 1] that an answer other than "same" comes out as its opposite.
        rationality: None answers by the larger return; beta > 0 prefers the first with
            probability 1 / (1 + exp(-beta (R1 - R2))).
        same_within: returns that differ by no more than this are "same" (0: exact ties only).
        discount: in (0, 1]; a frame k before the end weighs discount^k (below 1: myopic).

    Raises:
        EnvError: a number out of range.
    """

    noise: float = 0.0
    rationality: float | None = None
    same_within: float = 0.0
    discount: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise <= 1.0:
            raise EnvError(f"a teacher's noise must lie in [0, 1], got {self.noise}")
        if self.rationality is not None and not self.rationality > 0.0:
            raise EnvError(f"a teacher's rationality must be above 0, got {self.rationality}")
        if not self.same_within >= 0.0:
            raise EnvError(f"a teacher's same_within must be at least 0, got {self.same_within}")
        if not 0.0 < self.discount <= 1.0:
            raise EnvError(f"a teacher's discount must lie in (0, 1], got {self.discount}")

    def prefer(self, first: Float64, second: Float64, rng: np.random.Generator) -> Answer:
        """Compare two episodes by their true rewards.

        Args:
            first: Float64["t"], true reward per frame.
            second: Float64["u"]; the shorter one is continued with its last reward.
            rng: of mistakes and of limited rationality; two draws per call, whatever comes
                out, so that teachers are comparable question by question.

        Raises:
            EnvError: no frames, or a reward that is not finite.
        """
        gap = _gap(first, second, self.discount)
        luck, slip = rng.random(2)
        if abs(gap) <= self.same_within:
            return "same"
        sure = gap > 0.0 if self.rationality is None else luck < expit(self.rationality * gap)
        answer: Answer = "first" if sure else "second"
        return _OTHER[answer] if slip < self.noise else answer


def prefer(
    first: Episode, second: Episode, rng: np.random.Generator, teacher: Teacher | None = None
) -> Answer:
    """Compare two recorded episodes of one task of the suite; see `Teacher.prefer`.

    Raises:
        EnvError: episodes of different tasks, of another suite, or without true progress.
    """
    if first.task != second.task:
        raise EnvError(
            f"'{first.source}' and '{second.source}' are episodes of different tasks "
            f"('{first.task}', '{second.task}'); compare two of the same"
        )
    return (teacher or Teacher()).prefer(true_rewards(first), true_rewards(second), rng)


def true_rewards(episode: Episode) -> Float64:
    """Return the true reward of every frame, `progress - 1 - disliked`, Float64["t"] in [-2, 0].

    It is what `reward="dense"` pays for being in that state.

    Raises:
        EnvError: not an episode of the suite, or one without `progress` or states.
    """
    rules = rules_class(episode.task)
    if episode.progress is None or episode.environment_state is None:
        raise EnvError(
            f"'{episode.source}' holds no true progress or no environment state; record it with "
            "`er collect --env.id=embodied_reward/...`"
        )
    disliked = rules.disliked_in(episode.environment_state)
    return episode.progress.astype(np.float64) - 1.0 - disliked


def true_return(rewards: Sequence[float] | Float64, frames: int) -> float:
    """Return the sum over `frames` frames; an episode that ended goes on as it ended.

    A solved one so adds zeros, and a failed one gains nothing by being cut off early.

    Raises:
        EnvError: no frames, or a reward that is not finite.
    """
    return float(_continued(np.asarray(rewards, np.float64), frames).sum())


def _gap(first: Float64, second: Float64, discount: float) -> float:
    frames = max(len(first), len(second))
    weight = discount ** np.arange(frames - 1, -1, -1)
    both = [_continued(np.asarray(r, np.float64), frames) for r in (first, second)]
    return float(weight @ both[0] - weight @ both[1])


def _continued(rewards: Float64, frames: int) -> Float64:
    if rewards.ndim != 1 or not len(rewards) or not np.isfinite(rewards).all():
        raise EnvError(f"true rewards must be one or more finite numbers, got {rewards}")
    return np.pad(rewards[:frames], (0, max(frames - len(rewards), 0)), mode="edge")
