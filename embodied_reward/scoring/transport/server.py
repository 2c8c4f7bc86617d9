"""The scoring core over HTTP: routes, what they refuse, and how they answer.

    POST /v1/score     a request message (`wire`) -> a reply message
    GET  /v1/scorers   cards of the scorers and the server's limits, JSON
    GET  /healthz      200 while the process lives
    GET  /readyz       200 once every scorer is warm and scores its canary, else 503
    GET  /metrics      Prometheus

What is refused before that, and how, stands in `app`. Nothing here computes: the core's threads
do, and a large request is checked in a thread of a small pool.
"""

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor

from aiohttp import web

from embodied_reward.errors import ScoringError
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.transport.app import OCTETS, GuardedApp, Refused
from embodied_reward.scoring.transport.canary import Canary
from embodied_reward.scoring.transport.core import Core, Reply
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.metrics import Metrics
from embodied_reward.scoring.transport.wire import decode_request, encode_reply

SMALL = 256 << 10
"""Bytes of a request that is checked in the event loop's own thread."""


class ScoringApp(GuardedApp):
    """Answers requests; lives in one event loop. `listen.HttpServer` runs it.

    Args:
        core: the scoring core.
        config: limits and token.
        limits: of one request, as the core's.
        canary: decides on readiness.
    """

    def __init__(self, core: Core, config: HttpConfig, limits: Limits, canary: Canary) -> None:
        super().__init__(config)
        self.canary, self.metrics = canary, Metrics(core)
        self._core, self._limits = core, limits
        self._pool = ThreadPoolExecutor(4, thread_name_prefix="er-http")
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

    def counted(self, route: str, status: int, seconds: float) -> None:
        """See the base class."""
        self.metrics.count(route, status, seconds)

    async def _score(self, request: web.Request) -> web.Response:
        reserved = [0]
        try:
            body = await self.receive(request, reserved)
            self.metrics.received(len(body))
            future, timeout = await self._submitted(body)
            reply = future.result() if future.done() else await self._result(future, timeout)
        finally:
            self.release(reserved)
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

    async def _scorers(self, _: web.Request) -> web.Response:
        cards = [self._core.card(name).to_dict() for name in self._core.names]
        return web.json_response({"scorers": cards, "max_body": self.config.max_body})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _ready(self, request: web.Request) -> web.Response:
        problems = self.canary.problems()
        ready = not problems and not self.draining
        tree = {"ready": ready, "problems": problems if self.allowed(request) else {}}
        return web.json_response(tree, status=200 if ready else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics.page(), content_type="text/plain", charset="utf-8")
