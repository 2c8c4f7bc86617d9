"""A thin client of the HTTP server: needs numpy and the standard library, no torch.

with HttpClient("http://127.0.0.1:8765") as client:
    scores = client.score(ScoreRequest(scorers=("mine",), frames=pictures))["mine"]
"""

import http.client
import json
import os
import threading
import time
import urllib.parse
from typing import Any, Self

from embodied_reward.errors import (
    ConfigError,
    QueueFullError,
    RequestError,
    ScoringError,
    did_you_mean,
)
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport.envelope import Buffer, size_of
from embodied_reward.scoring.transport.wire import decode_reply, error_from, request_parts

GRACE = 5.0
"""Seconds that a reply may take on its way beyond the request's own timeout."""
MAX_REPLY = 1 << 30
WRITE = 1 << 20
"""Bytes that are handed to the socket at a time; smaller buffers are joined."""


class HttpClient:
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
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url={url!r}: give http://host:port")
        self.url, self.timeout = url.rstrip("/"), timeout
        self._parts, self._local = parts, threading.local()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
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
                reply = self._call("POST", "/v1/score", parts, deadline)
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

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fetch_cards(self) -> dict[str, ScorerCard]:
        body = self._call("GET", "/v1/scorers", [], time.monotonic() + self.timeout)
        try:
            cards = [ScorerCard.from_dict(tree) for tree in json.loads(body)["scorers"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ScoringError(f"{self.url} is no scoring server: {error!r}") from error
        return {card.name: card for card in cards}

    def _call(self, method: str, path: str, parts: list[Buffer], deadline: float) -> bytearray:
        """Return the body of a 200. Raises the error that another answer stands for."""
        if getattr(self._local, "pid", None) != os.getpid():
            # A forked child must not talk on its parent's connection.
            self._local.pid, self._local.connection = os.getpid(), None
        kept = self._local.connection is not None
        try:
            response, body = self._exchange(method, path, parts, deadline)
        except ConnectionError as error:
            self.close()
            # The server closes connections that were idle for long; scoring twice does no harm.
            if not kept:
                raise self._unreachable(error) from error
            return self._call(method, path, parts, deadline)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        if response.status == 200:
            return body
        raise _error_of(response.status, body)

    def _exchange(
        self, method: str, path: str, parts: list[Buffer], deadline: float
    ) -> tuple[http.client.HTTPResponse, bytearray]:
        connection = self._connection(deadline)
        connection.putrequest(
            method, self._parts.path.rstrip("/") + path, skip_accept_encoding=True
        )
        for name, value in self._headers.items():
            connection.putheader(name, value)
        if parts:
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(size_of(parts)))
        try:
            connection.endheaders()
            for block in _blocks(parts):
                connection.send(block)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it read everything: too large, no token
        response = connection.getresponse()
        body = self._read(response, connection, deadline)
        if response.will_close:
            self.close()
        return response, body

    def _connection(self, deadline: float) -> http.client.HTTPConnection:
        connection = self._local.connection
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time of the request is over")
        if connection is None:
            https = self._parts.scheme == "https"
            kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=left)
            connection.connect()
            self._local.connection = connection
        connection.sock.settimeout(left)
        return connection

    def _read(
        self,
        response: http.client.HTTPResponse,
        connection: http.client.HTTPConnection,
        deadline: float,
    ) -> bytearray:
        size = response.length
        if size is None or size > MAX_REPLY:
            raise http.client.HTTPException("the answer has no length, or is too long")
        body = bytearray(size)
        view, got = memoryview(body), 0
        while got < size:
            if connection.sock is not None:  # None once the server announced the end
                connection.sock.settimeout(max(0.001, deadline - time.monotonic()))
            count = response.readinto(view[got:])
            if not count:
                raise http.client.HTTPException("the answer broke off")
            got += count
        response.read()
        return body

    def _unreachable(self, error: Exception) -> ScoringError:
        return ScoringError(
            f"no answer from {self.url}: {error or type(error).__name__}. Is the server running "
            "(er serve), and is its address right?"
        )


def _blocks(parts: list[Buffer]) -> "list[Buffer]":
    """Join small buffers, so that a message is a few writes; large ones are not copied."""
    blocks: list[Buffer] = []
    small = bytearray()
    for part in parts:
        if len(part) < WRITE:
            small += part
            continue
        blocks += [bytes(small), part]
        small = bytearray()
    return [block for block in (*blocks, bytes(small)) if len(block)]


def _error_of(status: int, body: bytearray) -> Exception:
    try:
        tree: Any = json.loads(body)
    except ValueError:
        tree = {"message": f"HTTP status {status}"}
    return error_from(tree)
