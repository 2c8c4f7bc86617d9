"""Answers from what the simulator knows, with a chosen share of mistakes: experiments, no person.

With the utility u of an episode (its true final progress, say), the oracle prefers the left of a
pair where u(left) - u(right) exceeds a margin, and in a triplet the side whose utility is nearer
to the anchor's. Within the margin it says "same". Each other answer is turned round with
probability `noise`, independently: the `mistake` teacher of B-Pref (Lee et al. 2021,
arXiv:2111.03026, section 3), whose "equal" and margin are also these.
"""

from collections.abc import Mapping

import numpy as np

from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError, DatasetError, did_you_mean
from embodied_reward.labelling.queries import Query
from embodied_reward.labelling.session import Session
from embodied_reward.types import Episode

MEASURES = ("progress", "mean_progress", "success")
"""Final true progress, its mean over the episode (faster is better), success at any time."""


class Oracle:
    """Answers queries from utilities; a function of (seed, query) alone, so a resumed run agrees.

    Args:
        utility: episode index -> how good it is.
        noise: probability of turning an answer round, in [0, 1].
        margin: differences up to this are "same".
        seed: of the mistakes.
    """

    def __init__(
        self,
        utility: Mapping[int, float],
        *,
        noise: float = 0.0,
        margin: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= noise <= 1 or not margin >= 0:
            raise ConfigError(f"need 0 <= noise <= 1 and margin >= 0, got {noise} and {margin}")
        self._utility, self._noise, self._margin, self._seed = utility, noise, margin, seed

    def answer(self, query: Query) -> str:
        """Return `left`, `right` or `same`."""
        lead = self.lead(query)
        if abs(lead) <= self._margin:
            return "same"
        wrong = np.random.default_rng([self._seed, *query.key]).random() < self._noise
        return "left" if (lead > 0) != wrong else "right"

    def lead(self, query: Query) -> float:
        """Return by how much left is better (a pair) or nearer to the anchor (a triplet)."""
        left, right = self._utility[query.left], self._utility[query.right]
        if query.anchor is None:
            return left - right
        anchor = self._utility[query.anchor]
        return abs(right - anchor) - abs(left - anchor)


def utilities(episodes: EpisodeSequence, measure: str) -> dict[int, float]:
    """Return the utility of every episode by its index; decodes no pictures.

    Raises:
        ConfigError: an unknown measure.
        DatasetError: the dataset does not hold the truth that the measure needs.
    """
    if measure not in MEASURES:
        raise ConfigError(f"unknown --oracle={measure}; {did_you_mean(measure, MEASURES)}")
    return {episode.index: _utility(episode, measure) for episode in episodes}


def answer_all(session: Session, oracle: Oracle) -> None:
    """Answer questions until the session has no more."""
    while query := session.current:
        session.answer(query.id, oracle.answer(query))


def _utility(episode: Episode, measure: str) -> float:
    if measure == "success":
        value = None if episode.success is None else float(episode.success)
    elif episode.progress is None or not len(episode):
        value = None
    else:
        value = float(episode.progress[-1] if measure == "progress" else episode.progress.mean())
    if value is None or not np.isfinite(value):
        column = "next.success" if measure == "success" else "progress"
        raise DatasetError(
            f"the oracle needs the column '{column}' in every episode, and {episode.source} has "
            "none or it is not finite; record with 'er collect', or choose another --oracle="
            f"{'|'.join(MEASURES)}"
        )
    return value
