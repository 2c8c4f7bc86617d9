"""The learner's end of the network: takes the body and episodes, gives terms and policies.

Tokens, host names, sizes and times are the scoring server's (`scoring/transport/app.py`).
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from embodied_reward.cli.pair.inbox import Inbox
from embodied_reward.cli.pair.messages import Body, Terms
from embodied_reward.errors import QueueFullError, RequestError
from embodied_reward.files import replacing
from embodied_reward.scoring.transport.app import OCTETS, GuardedApp
from embodied_reward.scoring.transport.http_config import HttpConfig


class Desk:
    """What the learner's thread and its server share.

    Args:
        folder: run folder; remembers the body and the episodes.
        reward: digest of the learner's reward model, empty without one.
    """

    def __init__(self, folder: Path, reward: str) -> None:
        self._folder, self._reward, self._lock = folder, reward, threading.Lock()
        self.body: Body | None = None
        self.inbox: Inbox | None = None
        self.terms: Callable[[], Terms] | None = None
        self.policy = ("", b"")  # version and message, exchanged together
        self.fetched = threading.Event()
        """set when somebody has taken the newest policy"""
        self.met = threading.Event()
        known = folder / "body.json"
        if known.is_file():
            self._meet(Body.decode(known.read_bytes()))

    def meet(self, data: bytes | bytearray) -> None:
        """Take a robot's description. Raises RequestError where it is not this run's."""
        body = Body.decode(data)
        if body.reward != self._reward:
            raise RequestError(
                "actor and learner have different reward models: give both the same --reward.path "
                f"(the actor's weights have sha256 {body.reward[:12] or 'none'}, the learner's "
                f"{self._reward[:12] or 'none'})"
            )
        with self._lock:
            if self.body is None:
                with replacing(self._folder / "body.json") as temporary:
                    temporary.write_bytes(body.encode())
                self._meet(body)
        if body != self.body:
            names = [n for n, v in vars(body).items() if v != getattr(self.body, n)]
            raise RequestError(f"this learner's run is of another robot: {', '.join(names)} differ")

    def publish(self, policy: bytes, version: str) -> None:
        """Offer another policy."""
        self.fetched.clear()
        self.policy = (version, policy)

    def _meet(self, body: Body) -> None:
        self.inbox, self.body = Inbox(self._folder / "received", **body.sizes), body
        self.met.set()


class LearnerApp(GuardedApp):
    """Answers an actor; lives in one event loop.

    Args:
        desk: shared with the learner.
        config: limits and token.
    """

    def __init__(self, desk: Desk, config: HttpConfig) -> None:
        super().__init__(config)
        self._desk = desk
        self.app.add_routes(
            [
                web.post("/v1/body", self._body),
                web.get("/v1/terms", self._terms),
                web.post("/v1/episode", self._episode),
                web.get("/v1/policy", self._policy),
                web.get("/healthz", self._health),
            ]
        )

    async def _body(self, request: web.Request) -> web.Response:
        data = await self._received(request)
        await asyncio.to_thread(self._desk.meet, data)
        return web.json_response({})

    async def _terms(self, _: web.Request) -> web.Response:
        if self._desk.terms is None or not self._desk.policy[1]:
            raise QueueFullError("the learner is preparing its first policy", retry_after=0.5)
        return web.json_response(self._desk.terms().encode())

    async def _episode(self, request: web.Request) -> web.Response:
        data = await self._received(request)
        if self._desk.inbox is None:
            raise RequestError("say first what robot it is: POST /v1/body")
        new = await asyncio.to_thread(self._desk.inbox.add, data)
        return web.json_response({"new": new})

    async def _policy(self, request: web.Request) -> web.Response:
        version, policy = self._desk.policy
        if not policy:
            raise QueueFullError("the learner is preparing its first policy", retry_after=0.5)
        if request.query.get("known") == version:
            self._desk.fetched.set()  # asked again: it arrived
            policy = b""
        return web.Response(body=policy, content_type=OCTETS)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _received(self, request: web.Request) -> bytearray:
        reserved = [0]
        try:
            return await self.receive(request, reserved)
        finally:
            self.release(reserved)
