"""What every HTTP server of this package does before a request is looked at.

Who may come in (token, host name), how large a body may be and how long it may take, how many
bytes are held at once, and how errors are answered: JSON, `{"type", "message", "retry_after"}`,
with the status code that fits.
"""

import asyncio
import hmac
import json
import logging
import math
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, web

from embodied_reward.errors import (
    EmbodiedRewardError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.scoring.transport.http_config import HttpConfig, is_loopback
from embodied_reward.scoring.transport.wire import error_tree

log = logging.getLogger(__name__)
OCTETS = "application/octet-stream"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):  # noqa: N818 (an answer, not an error)
    """A status code with the error that the client raises; `close` ends the connection."""

    def __init__(self, code: int, error: EmbodiedRewardError, *, close: bool = False) -> None:
        super().__init__(str(error))
        self.code, self.error, self.close = code, error, close


class GuardedApp:
    """Answers requests; lives in one event loop, which `listen.AppServer` runs.

    `/healthz` and `/readyz` are answered without a token.

    Args:
        config: limits and token.
    """

    def __init__(self, config: HttpConfig) -> None:
        self.config = config
        self._pending_bytes = 0
        self.active = 0
        """requests under way"""
        self.draining = False
        self.app = web.Application(middlewares=[self._guard])

    def close(self) -> None:
        """Release what the app holds."""

    def counted(self, route: str, status: int, seconds: float) -> None:
        """Hear of every answer."""

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
        self.counted(route, response.status, loop.time() - start)
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
        if request.path != "/readyz" and not self.allowed(request):
            raise Refused(
                401, RequestError("the token is missing or wrong (Authorization: Bearer)")
            )
        if self.draining and request.method == "POST":
            raise Refused(503, ScoringError("the server is shutting down"), close=True)

    def allowed(self, request: web.Request) -> bool:
        """Return whether a request bears the token."""
        if not self.config.token:
            return True
        given = request.headers.get("Authorization", "").encode(errors="replace")
        return hmac.compare_digest(given, f"Bearer {self.config.token}".encode())

    async def receive(self, request: web.Request, reserved: list[int]) -> bytearray:
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

    def release(self, reserved: list[int]) -> None:
        """Forget the bytes of a body that `receive` accounted for."""
        self._pending_bytes -= reserved[0]


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
