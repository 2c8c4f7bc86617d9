"""HTTP calls of a thin client: one kept connection per thread, deadlines, bounded answers.

Needs the standard library only.
"""

import http.client
import json
import os
import threading
import time
import urllib.parse
from collections.abc import Sequence
from typing import Any, Self

from embodied_reward.errors import ConfigError, ScoringError
from embodied_reward.scoring.transport.envelope import Buffer, size_of
from embodied_reward.scoring.transport.wire import error_from

MAX_REPLY = 1 << 30
WRITE = 1 << 20
"""Bytes that are handed to the socket at a time; smaller buffers are joined."""


class HttpCaller:
    """Calls one server. Safe to use from several threads, each with a connection of its own.

    Args:
        url: of the server, `http://host:port`.
        token: of the server, if it asks for one.
        timeout: default time of a call in all [s].
        hint: what to look at where nobody answers.

    Attributes:
        max_reply: longest answer that is read [bytes].

    Raises:
        ConfigError: no such URL.
    """

    max_reply = MAX_REPLY

    def __init__(
        self, url: str, token: str | None = None, timeout: float = 60.0, *, hint: str
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"url={url!r}: give http://host:port")
        self.url, self.timeout, self._hint = url.rstrip("/"), timeout, hint
        self._parts, self._local = parts, threading.local()
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

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

    def call(self, method: str, path: str, parts: Sequence[Buffer], deadline: float) -> bytearray:
        """Return the body of a 200.

        Args:
            method: GET or POST.
            path: of the route.
            parts: the body's buffers, octets; none sends no body.
            deadline: of the monotonic clock [s].

        Raises:
            RequestError, QueueFullError, ScoringError: what another answer stands for, no server,
                or no answer in time.
        """
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
            return self.call(method, path, parts, deadline)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._unreachable(error) from error
        if response.status == 200:
            return body
        raise _error_of(response.status, body)

    def _exchange(
        self, method: str, path: str, parts: Sequence[Buffer], deadline: float
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
        if size is None or size > self.max_reply:
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
            f"no answer from {self.url}: {error or type(error).__name__}. {self._hint}"
        )


def _blocks(parts: Sequence[Buffer]) -> "list[Buffer]":
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
