"""One POST to an OpenAI-compatible endpoint: a deadline that holds, retries, a bounded reply."""

import contextlib
import http.client
import json
import random
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from embodied_reward.errors import ConfigError

MAX_REPLY = 16 << 20
"""Bytes of a reply that are read at most."""
CHUNK = 1 << 16
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class ReplyError(Exception):
    """The endpoint answered with something that is no answer, or not at all."""


class DeadlineError(Exception):
    """The deadline passed."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        url: base URL, e.g. http://127.0.0.1:8000/v1; `/chat/completions` is appended.
        headers: sent with every request.
        retries: further tries after 429, 5xx and broken connections.
        backoff: first pause between tries [s]; doubles, with jitter.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    retries: int = 4
    backoff: float = 0.25

    def __post_init__(self) -> None:
        """Refuse what is no URL."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"url='{self.url}': write the base URL of an OpenAI-compatible server, such as "
                "http://127.0.0.1:8000/v1"
            )

    def post(self, body: Mapping[str, Any], deadline: float, jitter: random.Random) -> Any:
        """Send a chat completion request and return the decoded JSON.

        Args:
            body: of the request.
            deadline: `time.monotonic()` by which the reply must be there [s].
            jitter: draws the pauses between tries.

        Raises:
            DeadlineError: it was not there in time. ReplyError: an HTTP error, or not JSON.
        """
        data = json.dumps(body).encode()
        for attempt in range(self.retries + 1):
            try:
                status, wait, reply = self._once(data, deadline)
            except ConnectionError as error:
                status, wait, reply = 0, None, str(error).encode()
            if status == 200:
                return _decoded(reply)
            said = f"HTTP {status}: " if status else ""
            said += reply[:300].decode("utf-8", "replace")
            if (status and status not in RETRIED) or attempt == self.retries:
                raise ReplyError(f"{said} (after {attempt + 1} tries)")
            pause = self.backoff * 2**attempt * jitter.uniform(0.5, 1.0) if wait is None else wait
            if time.monotonic() + pause >= deadline:
                raise DeadlineError(f"no time to try again after {said}")
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _once(self, data: bytes, deadline: float) -> tuple[int, float | None, bytes]:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_left(deadline))
        headers = {"Content-Type": "application/json", "Connection": "close", **self.headers}
        path = parts.path.rstrip("/") + "/chat/completions"
        try:
            connection.connect()
            with _cut_off(connection.sock, deadline):
                connection.request("POST", path, data, headers)
                reply = connection.getresponse()
                found = reply.status, _retry_after(reply), _read(reply)
            _left(deadline)  # what was cut off can look complete
            return found
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) or time.monotonic() >= deadline:
                raise DeadlineError("no complete reply within the deadline") from error
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        finally:
            connection.close()


@contextlib.contextmanager
def _cut_off(sock: socket.socket, deadline: float) -> Iterator[None]:
    """Close a connection at the deadline.

    A socket's own timeout does not do: a server that drips, be it headers, resets it.
    """

    def cut() -> None:
        with contextlib.suppress(OSError):  # closed already
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(_left(deadline), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read(reply: http.client.HTTPResponse) -> bytes:
    pieces, size = [], 0
    while piece := reply.read1(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_REPLY:
            raise ReplyError(f"the reply exceeds {MAX_REPLY >> 20} MiB")
    if reply.length:
        raise http.client.IncompleteRead(b"", reply.length)
    return b"".join(pieces)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise DeadlineError("the deadline passed")
    return left


def _retry_after(reply: http.client.HTTPResponse) -> float | None:
    try:
        seconds = float(reply.getheader("Retry-After") or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _decoded(reply: bytes) -> Any:
    try:
        return json.loads(reply)
    except (ValueError, RecursionError) as error:
        shown = reply[:200].decode("utf-8", "replace")
        raise ReplyError(f"the reply is not JSON ({error}): {shown!r}") from error
