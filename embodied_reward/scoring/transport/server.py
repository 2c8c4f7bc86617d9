"""The scoring core over HTTP: routes, what they refuse, and how they answer.

    POST /v1/score     a request message (`wire`) -> a reply message
    GET  /v1/scorers   cards of the scorers and the server's limits, JSON
    GET  /healthz      200 while the process lives
    GET  /readyz       200 once every scorer is warm and scores its canary, else 503
    GET  /metrics      Prometheus

Errors are JSON, `{"type", "message", "retry_after"}`, with the status code that fits. Nothing
here computes: the core's threads do, and a large request is checked in a thread of a small pool.
"""

import asyncio
import hmac
import json
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor

from aiohttp import ClientError, web

from embodied_reward.errors import (
    EmbodiedRewardError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.transport.canary import Canary
from embodied_reward.scoring.transport.core import Core, Reply
from embodied_reward.scoring.transport.http_config import HttpConfig, is_loopback
from embodied_reward.scoring.transport.metrics import Metrics
from embodied_reward.scoring.transport.wire import decode_request, encode_reply, error_tree

log = logging.getLogger(__name__)
OCTETS = "application/octet-stream"
SMALL = 256 << 10
"""Bytes of a request that is checked in the event loop's own thread."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):  # noqa: N818 (an answer, not an error)
    """A status code with the error that the client raises; `close` ends the connection."""

    def __init__(self, code: int, error: EmbodiedRewardError, *, close: bool = False) -> None:
        super().__init__(str(error))
        self.code, self.error, self.close = code, error, close


class ScoringApp:
    """Answers requests; lives in one event loop. `listen.HttpServer` runs it.

    Args:
        core: the scoring core.
        config: limits and token.
        limits: of one request, as the core's.
        canary: decides on readiness.
    """

    def __init__(self, core: Core, config: HttpConfig, limits: Limits, canary: Canary) -> None:
        self.config, self.canary, self.metrics = config, canary, Metrics(core)
        self._core, self._limits = core, limits
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="er-http")
        self._pending_bytes = 0
        self.active = 0
        """requests under way"""
        self.draining = False
        self.app = web.Application(middlewares=[self._guard])
        self.app.add_routes(
            [
                web.post("/v1/score", self._score),
                web.get("/v1/scorers", self._scorers),
                web.get("/healthz", self._health),
                web.get("/readyz", self._ready),
                web.get("/metrics", self._metrics),
            ]
        )

    def close(self) -> None:
        """Stop the pool."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    # --- around every route ---

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        start = loop.time()
        self.active += 1
        try:
            response = await self._answer(request, handler)
        finally:
            self.active -= 1
        resource = request.match_info.route.resource
        route = resource.canonical if resource else "other"
        self.metrics.count(route, response.status, loop.time() - start)
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._admit(request)
            return await handler(request)
        except Refused as refused:
            return _error(refused.code, refused.error, close=refused.close)
        except QueueFullError as error:
            return _error(429, error)
        except RequestError as error:
            return _error(400, error)
        except EmbodiedRewardError as error:
            return _error(503, error)
        except web.HTTPException as error:
            return _error(error.status, RequestError(f"{request.method} {request.path}: {error}"))
        except Exception as error:  # whatever it is, the client gets an answer and we go on
            log.exception("a request failed")
            return _error(500, error)

    def _admit(self, request: web.Request) -> None:
        if request.path == "/healthz":
            return
        # A page in a browser on this machine could otherwise reach us under a name of its own.
        if not self.config.token and not is_loopback(_host_of(request)):
            raise Refused(
                403, RequestError(f"this server answers to localhost, not {_host_of(request):.80}")
            )
        if request.path != "/readyz" and not self._allowed(request):
            raise Refused(
                401, RequestError("the token is missing or wrong (Authorization: Bearer)")
            )
        if self.draining and request.path == "/v1/score":
            raise Refused(503, ScoringError("the server is shutting down"), close=True)

    def _allowed(self, request: web.Request) -> bool:
        if not self.config.token:
            return True
        given = request.headers.get("Authorization", "").encode(errors="replace")
        return hmac.compare_digest(given, f"Bearer {self.config.token}".encode())

    # --- routes ---

    async def _score(self, request: web.Request) -> web.Response:
        reserved = [0]
        try:
            body = await self._receive(request, reserved)
            self.metrics.received(len(body))
            future, timeout = await self._submitted(body)
            reply = future.result() if future.done() else await self._result(future, timeout)
        finally:
            self._pending_bytes -= reserved[0]
        self.metrics.scored(reply)
        return web.Response(body=encode_reply(reply), content_type=OCTETS)

    async def _submitted(self, body: bytearray) -> "tuple[Future[Reply], float]":
        if len(body) <= SMALL:  # checking and hashing it takes less than handing it over
            return self._submit(body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._submit, body)

    def _submit(self, body: bytearray) -> "tuple[Future[Reply], float]":
        request = decode_request(body, self._limits)
        timeout = self._limits.max_wait if request.timeout is None else request.timeout
        return self._core.submit(request), timeout

    async def _result(self, future: "Future[Reply]", timeout: float) -> Reply:
        # Shielded: a client that leaves must not cancel what other clients may be waiting for.
        waiting = asyncio.shield(asyncio.wrap_future(future))
        try:
            return await asyncio.wait_for(waiting, timeout + self.config.deadline)
        except TimeoutError:
            late = ScoringError("the scorers did not answer in time")
            raise Refused(504, late) from None

    async def _receive(self, request: web.Request, reserved: list[int]) -> bytearray:
        """Read a body within the limits of size and time. Raises Refused."""
        if request.content_type != OCTETS or "Content-Encoding" in request.headers:
            raise Refused(
                415, RequestError(f"send {OCTETS} without a content encoding"), close=True
            )
        length = request.content_length
        if length is not None:
            self._reserve(length, reserved)
        body = bytearray()
        try:
            async with asyncio.timeout(self.config.read_timeout):
                while chunk := await request.content.readany():
                    body += chunk
                    if len(body) > reserved[0]:
                        self._reserve(len(body), reserved)
        except TimeoutError:
            raise Refused(
                408,
                RequestError(f"the request did not arrive within {self.config.read_timeout:g} s"),
                close=True,
            ) from None
        except (ClientError, web.RequestPayloadError, OSError) as error:
            raise Refused(400, RequestError(f"the body broke off: {error}"), close=True) from None
        return body

    def _reserve(self, size: int, reserved: list[int]) -> None:
        """Account for `size` bytes of one body before they are held. Raises Refused."""
        if size > self.config.max_body:
            raise Refused(
                413,
                RequestError(
                    f"the request has {size} bytes or more; this server takes at most "
                    f"max_body={self.config.max_body}: split it"
                ),
                close=True,
            )
        if self._pending_bytes + size - reserved[0] > self.config.max_pending:
            full = QueueFullError("too many bytes of other requests are pending", retry_after=0.5)
            raise Refused(429, full, close=True)
        self._pending_bytes += size - reserved[0]
        reserved[0] = size

    async def _scorers(self, _: web.Request) -> web.Response:
        cards = [self._core.card(name).to_dict() for name in self._core.names]
        return web.json_response({"scorers": cards, "max_body": self.config.max_body})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, request: web.Request) -> web.Response:
        problems = self.canary.problems()
        ready = not problems and not self.draining
        tree = {"ready": ready, "problems": problems if self._allowed(request) else {}}
        return web.json_response(tree, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.page(), content_type="text/plain", charset="utf-8")


def _error(code: int, error: Exception, *, close: bool = False) -> web.Response:
    headers = {}
    if isinstance(error, QueueFullError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    text = json.dumps(error_tree(error))
    response = web.Response(
        text=text, status=code, headers=headers, content_type="application/json"
    )
    if close:
        response.force_close()
    return response


def _host_of(request: web.Request) -> str:
    """Return the host that the client thinks it talks to, without its port."""
    host = request.headers.get("Host", "")
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
