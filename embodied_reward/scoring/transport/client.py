"""A thin client of the HTTP server: needs numpy and the standard library, no torch.

with HttpClient("http://127.0.0.1:8765") as client:
    scores = client.score(ScoreRequest(scorers=("mine",), frames=pictures))["mine"]
"""

import json
import time

from embodied_reward.errors import QueueFullError, RequestError, ScoringError, did_you_mean
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport.caller import HttpCaller
from embodied_reward.scoring.transport.wire import decode_reply, request_parts

GRACE = 5.0
"""Seconds that a reply may take on its way beyond the request's own timeout."""
HINT = "Is the server running (er serve), and is its address right?"


class HttpClient(HttpCaller):
    """Score with a core on another machine; has the methods of `ScoringCore` that can be remote.

    Safe to use from several threads, each with a connection of its own. The connection is kept. A
    request is sent again only when the queue was full, after the wait that the server asks for, and
    only while its time lasts.

    Args:
        url: of the server, `http://host:port`.
        token: of the server, if it asks for one.
        timeout: seconds that a request without a timeout of its own may take in all [s].

    Raises:
        ConfigError: no such URL.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 60.0) -> None:
        super().__init__(url, token, timeout, hint=HINT)
        self._cards: dict[str, ScorerCard] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the server's scorers now."""
        return tuple(self._fetch_cards())

    def card(self, name: str) -> ScorerCard:
        """Return a scorer's card. Raises RequestError for an unknown name."""
        cards = self._fetch_cards()
        if name not in cards:
            raise RequestError(f"no scorer '{name}'; {did_you_mean(name, cards)}")
        return cards[name]

    def score(self, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Score and wait; one `ScoreBatch` per scorer.

        Raises:
            RequestError: malformed, over a limit, or a wrong token.
            QueueFullError: the queue stayed full for as long as the request may take.
            ScoringError: no server, no answer in time, or a damaged one.
        """
        seconds = self.timeout if request.timeout is None else request.timeout
        deadline = time.monotonic() + seconds + GRACE
        parts = request_parts(request, self.timeout)
        while True:
            try:
                reply = self.call("POST", "/v1/score", parts, deadline)
                break
            except QueueFullError as full:
                wait = max(full.retry_after, 0.001)
                if time.monotonic() + wait + GRACE > deadline:
                    raise
                time.sleep(wait)
        try:
            return decode_reply(reply)
        except RequestError as error:
            raise ScoringError(f"the reply of {self.url} is damaged: {error}") from error

    def _fetch_cards(self) -> dict[str, ScorerCard]:
        body = self.call("GET", "/v1/scorers", [], time.monotonic() + self.timeout)
        try:
            cards = [ScorerCard.from_dict(tree) for tree in json.loads(body)["scorers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ScoringError(f"{self.url} is no scoring server: {error!r}") from error
        return {card.name: card for card in cards}
