"""What a transport needs of the scoring core."""

from concurrent.futures import Future
from typing import Protocol

from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.request import ScoreRequest

Reply = dict[str, ScoreBatch]


class Core(Protocol):
    """What a transport needs of the scoring core."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scorers."""
        ...

    def card(self, name: str) -> ScorerCard:
        """Return a scorer's card."""
        ...

    def ready(self, name: str) -> bool:
        """Return False for a scorer that has stopped answering."""
        ...

    def stats(self) -> dict[str, float]:
        """Return counters since the start, and what is queued now."""
        ...

    def submit(self, request: ScoreRequest) -> "Future[Reply]":
        """Queue a request."""
        ...
