"""Run the HTTP server: sockets, the number of connections, start and stop."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

from aiohttp import web

from embodied_reward.errors import ScoringError
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport.app import GuardedApp
from embodied_reward.scoring.transport.canary import Canary
from embodied_reward.scoring.transport.core import Core
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.server import ScoringApp

log = logging.getLogger(__name__)
CANARY_EVERY = 1.0
"""Seconds between two looks at scorers that are not ready."""
LINGER = 2.0
"""Seconds that the rest of a refused body is read for, so that the client sees the answer."""
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json\r\nContent-Length: 80\r\n\r\n"
    + b'{"type": "QueueFullError", "message": "too many connections", "retry_after": 1}'.ljust(80)
)


class AppServer:
    """Serve an app from a thread of its own, until `close`.

    Args:
        config: address, token, limits.
        make: builds the app, in the thread of the event loop.

    Raises:
        ScoringError: it cannot listen at the address.
    """

    def __init__(self, config: HttpConfig, make: Callable[[], GuardedApp]) -> None:
        self.config, self._make = config, make
        self._socket = _bind(self.config)
        self.port = int(self._socket.getsockname()[1])
        self._loop = asyncio.new_event_loop()
        self._stop, self._up = asyncio.Event(), threading.Event()
        self._stopping = threading.Event()
        self._running = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="er-http", daemon=True)
        self._thread.start()
        self._up.wait(30.0)
        if not self._running:
            self._stopping.set()
            self._socket.close()
            raise ScoringError(f"the HTTP server did not start: {self._failure!r}")

    @property
    def url(self) -> str:
        """Where clients of this machine find the server."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.host, self.config.host)  # noqa: S104
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def close(self) -> None:
        """Finish what is under way, refuse what comes, then stop."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except Exception as error:
            log.exception("the HTTP server ended")
            self._failure = error
        finally:
            self._running = False
            self._up.set()

    async def _serve(self) -> None:
        app = self._make()
        runner = web.AppRunner(
            app.app,
            access_log=None,
            keepalive_timeout=self.config.read_timeout,
            lingering_time=LINGER,
            auto_decompress=False,
            shutdown_timeout=1.0,
        )
        await runner.setup()
        listener = await self._loop.create_server(
            self._gate(runner.server), sock=self._socket, backlog=128
        )
        self._running = True
        self._up.set()
        try:
            await self._stop.wait()
            await self._drain(app)
        finally:
            listener.close()
            await runner.cleanup()
            app.close()

    def _gate(self, server: Any) -> Any:
        """Return the factory of connections, which turns away what is too many."""
        opening = 0

        def opened() -> None:
            nonlocal opening
            opening -= 1

        def connection() -> asyncio.Protocol:
            nonlocal opening
            if len(server.connections) + opening >= self.config.max_connections:
                return _TurnedAway()
            # The server counts it from the loop's next turn on; many may come in one turn.
            opening += 1
            self._loop.call_soon(opened)
            return server()

        return connection

    async def _drain(self, app: GuardedApp) -> None:
        app.draining = True
        end = self._loop.time() + self.config.drain
        while app.active and self._loop.time() < end:
            await asyncio.sleep(0.01)


class HttpServer(AppServer):
    """Serve a core over HTTP from a thread of its own, until `close`.

    Args:
        core: the scoring core; must outlive the server.
        config: address, token, limits.
        limits: of one request, as the core's.
        canaries: scorer -> request for readiness, see `Canary`.

    Raises:
        ScoringError: it cannot listen at the address.
    """

    def __init__(
        self,
        core: Core,
        config: HttpConfig | None = None,
        *,
        limits: Limits | None = None,
        canaries: Mapping[str, ScoreRequest] | None = None,
    ) -> None:
        settings, asked = config or HttpConfig(), limits or Limits()
        self.canary = Canary(core, canaries)
        super().__init__(settings, lambda: ScoringApp(core, settings, asked, self.canary))
        self._watching = threading.Thread(target=self._watch, name="er-canary", daemon=True)
        self._watching.start()

    def wait_ready(self, timeout: float, stop: threading.Event | None = None) -> dict[str, str]:
        """Wait until every scorer has scored its canary.

        Args:
            timeout: most seconds to wait [s].
            stop: ends the wait early.

        Returns:
            What is not ready, and why.
        """
        end = time.monotonic() + timeout
        stop = stop or self._stopping
        while self.canary.problems() and time.monotonic() < end:
            if stop.wait(0.02):
                break
        return self.canary.problems()

    def close(self) -> None:
        """Finish what is under way, refuse what comes, then stop."""
        super().close()
        self._watching.join(1.0)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            try:
                self.canary.check()
            except Exception:  # a scorer may raise anything; it stays not ready
                log.exception("a canary failed")
            self._stopping.wait(CANARY_EVERY)


class _TurnedAway(asyncio.Protocol):
    """A connection that is told to come back later."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before anything is asked."""
        transport.write(FULL)  # type: ignore[attr-defined]
        transport.close()


def _bind(config: HttpConfig) -> socket.socket:
    try:
        info = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(info[0], socket.SOCK_STREAM)
    except OSError as error:
        raise ScoringError(f"'{config.host}' is no address of this machine: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
    except OSError as error:
        listener.close()
        raise ScoringError(
            f"cannot listen at {config.host}:{config.port}: {error}. Take another port (0 for any)"
        ) from error
    return listener
