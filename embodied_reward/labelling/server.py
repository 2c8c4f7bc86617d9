"""Serve the page to this machine alone.

Three things stand between the answers and the rest of the world: the server listens on the
loopback address only; every address starts with a random token; and the `Host` header must name
the loopback address, so that a foreign site that lets its name point here (DNS rebinding) is
refused. Answers must also be JSON that this page sent: `Content-Type` and `Origin` are checked.
"""

import functools
import hmac
import json
import re
import secrets
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from embodied_reward.errors import ConfigError, EmbodiedRewardError
from embodied_reward.labelling.clips import ClipStore
from embodied_reward.labelling.page import POLICY, page_file
from embodied_reward.labelling.session import Session, StaleAnswerError

LOOPBACK = "127.0.0.1"
MAX_BODY = 4096
"""Bytes that an answer may have."""
PATIENCE = 60.0
"""Seconds after which a connection that says nothing is closed."""


class RefusedError(Exception):
    """A request that is not answered; the status says why."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class LabelServer:
    """Runs the page in threads of its own; a context manager.

    Attributes:
        url: the address to open; it holds the token.
        finished: set when the person presses the page's finish button.

    Args:
        session: what to ask.
        clips: what to show.
        port: 0 takes any free one.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(self, session: Session, clips: ClipStore, *, port: int = 0) -> None:
        self.session, self.clips = session, clips
        self.token = secrets.token_urlsafe(24)
        self.finished = threading.Event()
        try:
            self._http = _Server((LOOPBACK, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on port {port}: {error.strerror}; --port=0 takes a free one"
            ) from error
        self._http.label = self
        self.port = int(self._http.server_address[1])
        self.hosts = {f"{name}:{self.port}" for name in (LOOPBACK, "localhost")}
        self.url = f"http://{LOOPBACK}:{self.port}/{self.token}/"
        # How often it looks whether it should end [s]; requests do not wait for that.
        work = functools.partial(self._http.serve_forever, poll_interval=0.05)
        self._thread = threading.Thread(target=work, daemon=True)

    def __enter__(self) -> "LabelServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # an idle browser connection must not hold the program up
    label: LabelServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error of ours; a browser that hangs up in the middle of a reply is none."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "er", ""
    timeout = PATIENCE
    disable_nagle_algorithm = True  # head and body are two writes; waiting costs 40 ms a reply
    server: _Server

    def do_GET(self) -> None:  # noqa: N802
        """Answer with the page, the state or a clip."""
        self._guarded(self._get)

    def do_POST(self) -> None:  # noqa: N802
        """Take an answer, an undo or the end."""
        self._ends = False
        self._guarded(self._post)
        if self._ends:  # only now, so that the page gets its reply
            self.server.label.finished.set()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the terminal shows progress, and addresses hold the token."""

    def _guarded(self, answer: Any) -> None:
        try:
            kind, body = answer(self._path())
            status = HTTPStatus.OK
        except RefusedError as error:
            status, kind, body = error.status, *_json({"error": str(error)})
            self.close_connection = True  # its body may be unread
        except StaleAnswerError:
            status, (kind, body) = HTTPStatus.CONFLICT, _json(self._session.state())
        except EmbodiedRewardError as error:
            status, (kind, body) = HTTPStatus.INTERNAL_SERVER_ERROR, _json({"error": str(error)})
        self._send(status, kind, body)

    @property
    def _session(self) -> Session:
        return self.server.label.session

    def _path(self) -> str:
        """Return what stands behind the token. Raises RefusedError."""
        label = self.server.label
        if self.headers.get("Host", "").lower() not in label.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "this server answers to its own address only")
        _, _, rest = urlsplit(self.path).path.partition("/")
        token, slash, path = rest.partition("/")
        if not hmac.compare_digest(token.encode(), label.token.encode()) or not slash:
            raise RefusedError(HTTPStatus.FORBIDDEN, "open the address that the terminal shows")
        return path

    def _get(self, path: str) -> tuple[str, bytes]:
        if path == "state":
            return _json(self._session.state())
        if found := re.fullmatch(r"clip/(\d{1,9})", path):
            return _json(self._clip(int(found[1])).facts())
        if found := re.fullmatch(r"sheet/(\d{1,9})/(\d{1,3})/(\d{1,5})", path):
            return self._sheet(*map(int, found.groups()))
        file = page_file(path or "page.html")
        if file is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no '{path}' here")
        return file

    def _clip(self, index: int) -> Any:
        try:
            return self.server.label.clips[index]
        except KeyError as error:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no episode {index}") from error

    def _sheet(self, index: int, view: int, part: int) -> tuple[str, bytes]:
        views = self._clip(index).views
        if view >= len(views) or part >= len(views[view].sheets):
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such sheet")
        data = views[view].sheets[part]
        return ("image/png" if data.startswith(b"\x89PNG") else "image/jpeg"), data

    def _post(self, path: str) -> tuple[str, bytes]:
        message = self._message()
        if path == "answer":
            self._session.answer(
                _text(message, "id"), _text(message, "choice"), _seconds(message.get("seconds"))
            )
        elif path == "undo":
            self._session.undo()
        elif path == "finish":
            self._ends = True
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no '{path}' here")
        return _json(self._session.state())

    def _message(self) -> dict[str, Any]:
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc not in self.server.label.hosts:
            raise RefusedError(HTTPStatus.FORBIDDEN, "answers are taken from the page itself only")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send at most {MAX_BODY} bytes, with a length"
            )
        try:
            message = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, "this is not JSON") from error
        if not isinstance(message, dict):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "send a JSON object")
        return message

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Security-Policy": POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        }
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _json(tree: Any) -> tuple[str, bytes]:
    return "application/json", json.dumps(tree).encode()


def _text(message: dict[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"'{key}' must be a text")
    return value


def _seconds(value: Any) -> float | None:
    """Return a plausible duration [s], or None."""
    good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 86400
    return round(float(value), 3) if good else None
