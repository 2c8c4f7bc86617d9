"""Requests, replies and errors as bytes, and back. The layout of a message: `envelope`.

Request header: `scorers`, `views`, `texts` (lists of strings), `passes`, `seed`, `timeout`,
`priority`; columns: `frames` (once per arena) and those of `ScoreRequest` by name. What is left
out has the default of `ScoreRequest`.

Reply header: `replies`, per scorer `name`, `scorer`, `weights_sha256`, `head_version`,
`preprocess`, `dim_names`, `detail` (message -> items), `seconds`; columns: `<number>/<column>`
for those of `ScoreBatch`.

Error header: `error`, with `type`, `message`, `retry_after`; no columns.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from embodied_reward.errors import (
    EmbodiedRewardError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.scoring.batch import FLOATS, ScoreBatch
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport.envelope import Buffer, Columns, Kind, pack, unpack

REQUEST_COLUMNS = {
    "index": "int64",
    "offsets": "int64",
    "time": "float32",
    "view": "uint8",
    "role": "uint8",
    "text": "int64",
    "group": "int64",
    "user": "int64",
}
REPLY_COLUMNS = {
    **dict.fromkeys(FLOATS, "float32"),
    "per_frame": "float32",
    "status": "uint8",
    "cached": "uint8",
}
TWO_AXES = ("dims", "per_view")
MAX_NAMES = 256
"""Most scorers, and most views, of one request."""
MAX_REPLY_HEADER = 64 << 20
ERRORS = (RequestError, QueueFullError, ScoringError)
"""What a client raises again as it was."""


def request_parts(request: ScoreRequest, timeout: float | None = None) -> list[Buffer]:
    """Return a request's message as buffers, without copying a frame.

    Args:
        request: what to send.
        timeout: for a request that has none [s].

    Raises:
        RequestError: a text that UTF-8 cannot carry.
    """
    timeout = timeout if request.timeout is None else request.timeout
    header = {
        "scorers": request.scorers,
        "views": request.views,
        "texts": request.texts,
        "passes": int(request.passes),
        "seed": int(request.seed),
        "timeout": None if timeout is None else float(timeout),
        "priority": int(request.priority),
    }
    columns = [("frames", arena) for arena in request.frames]
    columns += [(name, getattr(request, name)) for name in REQUEST_COLUMNS]
    try:
        return pack(Kind.REQUEST, header, columns)
    except UnicodeEncodeError:
        raise RequestError("a name or text of the request holds half a surrogate pair") from None


def encode_request(request: ScoreRequest) -> bytes:
    """Return a request's message."""
    return b"".join(request_parts(request))


def decode_request(buffer: Buffer, limits: Limits) -> ScoreRequest:
    """Check a message and return its request; the frames are views of `buffer`.

    Raises:
        RequestError: the message is malformed or over a limit. No other exception, whatever the
            bytes; nothing of a size that the message claims is allocated before that is checked.
    """
    header, columns = unpack(buffer, Kind.REQUEST)
    fields = _scalars(header)
    fields |= {name: _strings(header, name) for name in ("scorers", "views", "texts")}
    if header:
        raise RequestError(f"the header has unknown keys: {', '.join(header):.120}")
    arenas, named = _split(columns)
    _check_limits(arenas, named, fields, limits)
    return ScoreRequest(frames=arenas, **named, **fields)


def reply_parts(reply: Mapping[str, ScoreBatch]) -> list[Buffer]:
    """Return the message of a reply as buffers."""
    trees = [_describe(name, batch) for name, batch in reply.items()]
    columns = [
        (f"{number}/{name}", getattr(batch, name))
        for number, batch in enumerate(reply.values())
        for name in REPLY_COLUMNS
    ]
    return pack(Kind.REPLY, {"replies": trees}, columns)


def encode_reply(reply: Mapping[str, ScoreBatch]) -> bytes:
    """Return the message of a reply."""
    return b"".join(reply_parts(reply))


def decode_reply(buffer: Buffer) -> dict[str, ScoreBatch]:
    """Check a message and return the reply. Raises RequestError, and nothing else."""
    header, columns = unpack(buffer, Kind.REPLY, MAX_REPLY_HEADER)
    trees = header.get("replies")
    if not isinstance(trees, list) or not all(isinstance(tree, dict) for tree in trees):
        raise RequestError("the header's 'replies' must be a list of objects")
    found: list[dict[str, np.ndarray]] = [{} for _ in trees]
    for name, column in columns:
        number, _, field = name.partition("/")
        known = number.isascii() and number.isdecimal() and len(number) < 9
        if not known or int(number) >= len(trees) or field not in REPLY_COLUMNS:
            raise RequestError(f"unknown column '{name:.40}' in a reply")
        if column.dtype != REPLY_COLUMNS[field] or column.ndim != 1 + (field in TWO_AXES):
            raise RequestError(f"column '{name}' must be {REPLY_COLUMNS[field]}")
        found[int(number)][field] = column
    return dict(_batch(tree, named) for tree, named in zip(trees, found, strict=True))


def error_tree(error: BaseException) -> dict[str, Any]:
    """Return what a client must know of an error; what it must not know stays here."""
    for kind in ERRORS:
        if isinstance(error, kind):
            retry = error.retry_after if isinstance(error, QueueFullError) else None
            return {"type": kind.__name__, "message": _plain(str(error)), "retry_after": retry}
    known = isinstance(error, EmbodiedRewardError)
    message = _plain(str(error)) if known else "the server failed; its log says why"
    return {"type": "ScoringError", "message": message, "retry_after": None}


def error_from(tree: Any) -> EmbodiedRewardError:
    """Return the error to raise for an `error_tree`, of the same class."""
    tree = tree if isinstance(tree, dict) else {}
    message = str(tree.get("message", "the server gave no reason"))
    kind, retry = tree.get("type"), tree.get("retry_after")
    if kind == QueueFullError.__name__:
        good = isinstance(retry, int | float) and 0 <= retry <= 3600
        return QueueFullError(message, float(retry) if good else 1.0)
    return RequestError(message) if kind == RequestError.__name__ else ScoringError(message)


def encode_error(error: BaseException) -> bytes:
    """Return the message of an error, for transports without a status line."""
    return b"".join(pack(Kind.ERROR, {"error": error_tree(error)}, ()))


def decode_error(buffer: Buffer) -> EmbodiedRewardError:
    """Return the error of a message. Raises RequestError if it is malformed."""
    header, _ = unpack(buffer, Kind.ERROR)
    return error_from(header.get("error"))


def _plain(text: str) -> str:
    """Return a text that UTF-8 can carry."""
    return text.encode(errors="replace").decode()


def _scalars(header: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, high in (("passes", 1024), ("seed", 2**64 - 1), ("priority", 255)):
        if name in header:
            value = header.pop(name)
            if type(value) is not int or not 0 <= value <= high:
                raise RequestError(f"the header's '{name}' must be a whole number, 0 to {high}")
            out[name] = value
    timeout = header.pop("timeout", None)
    if timeout is not None and (type(timeout) not in (int, float) or not 0 < timeout < 1e9):
        raise RequestError("the header's 'timeout' must be null or seconds, more than 0")
    return out | {"timeout": timeout}


def _strings(header: dict[str, Any], name: str) -> tuple[str, ...]:
    value = header.pop(name, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise RequestError(f"the header's '{name}' must be a list of strings")
    try:
        "".join(value).encode()
    except UnicodeEncodeError:
        raise RequestError(f"the header's '{name}' holds half a surrogate pair") from None
    if name != "texts" and (len(value) > MAX_NAMES or any(len(v) > MAX_NAMES for v in value)):
        raise RequestError(
            f"the header's '{name}' must be at most {MAX_NAMES} names of {MAX_NAMES} characters"
        )
    return tuple(value)


def _split(columns: Columns) -> tuple[tuple[np.ndarray, ...], dict[str, np.ndarray]]:
    """Return the arenas, and the other columns by name."""
    arenas, named = [], {}
    for name, column in columns:
        if name == "frames":
            arenas.append(column)
        elif name not in REQUEST_COLUMNS or name in named:
            known = ", ".join(("frames", *REQUEST_COLUMNS))
            raise RequestError(f"column '{name:.40}' is unknown or stands twice; known: {known}")
        elif column.dtype != REQUEST_COLUMNS[name] or column.ndim != 1:
            raise RequestError(f"column '{name}' must be {REQUEST_COLUMNS[name]} of one axis")
        else:
            named[name] = column
    return tuple(arenas), named


def _check_limits(
    arenas: tuple[np.ndarray, ...],
    named: Mapping[str, np.ndarray],
    fields: Mapping[str, Any],
    limits: Limits,
) -> None:
    """Refuse by the sizes alone, before `ScoreRequest` makes the columns that were left out."""
    frames = sum(len(arena) for arena in arenas)
    references = len(named.get("index", range(frames)))
    items = max(0, len(named.get("offsets", range(references + 1))) - 1)
    sizes = {
        "max_frames": max(frames, references, len(arenas)),
        "max_items": max(items, len(fields["texts"])),
        "max_bytes": sum(arena.nbytes for arena in arenas),
        "max_text": max(map(len, fields["texts"]), default=0),
    }
    for name, size in sizes.items():
        if size > getattr(limits, name):
            raise RequestError(
                f"the request has {size} where {name}={getattr(limits, name)} is the limit: "
                "split it, or start the server with a higher limit"
            )


def _describe(name: str, batch: ScoreBatch) -> dict[str, Any]:
    detail: dict[str, list[int]] = {}
    for item, text in batch.detail.items():
        detail.setdefault(_plain(text), []).append(int(item))
    return {
        "name": name,
        "scorer": batch.scorer,
        "weights_sha256": batch.weights_sha256,
        "head_version": int(batch.head_version),
        "preprocess": batch.preprocess,
        "dim_names": list(batch.dim_names),
        "detail": detail,
        "seconds": {k: float(v) for k, v in batch.seconds.items() if math.isfinite(v)},
    }


def _batch(tree: dict[str, Any], named: dict[str, np.ndarray]) -> tuple[str, ScoreBatch]:
    n = len(named["score"]) if "score" in named else -1
    per_item = [name for name in REPLY_COLUMNS if name != "per_frame"]
    if set(named) != set(REPLY_COLUMNS) or any(len(named[name]) != n for name in per_item):
        raise RequestError("the columns of a reply are missing or differ in length")
    dim_names, seconds = _typed(tree, "dim_names", list), _typed(tree, "seconds", dict)
    if not all(isinstance(name, str) for name in dim_names):
        raise RequestError("a reply's 'dim_names' must be strings")
    if not all(type(v) in (int, float) for v in seconds.values()):
        raise RequestError("a reply's 'seconds' must be numbers")
    batch = ScoreBatch(
        **named,  # type: ignore[arg-type]
        scorer=_typed(tree, "scorer", str),
        weights_sha256=_typed(tree, "weights_sha256", str),
        head_version=_typed(tree, "head_version", int),
        preprocess=_typed(tree, "preprocess", str),
        dim_names=tuple(dim_names),
        detail=dict(_details(_typed(tree, "detail", dict), n)),
        seconds=seconds,
    )
    return _typed(tree, "name", str), batch


def _typed[T](tree: dict[str, Any], key: str, kind: type[T]) -> T:
    value = tree.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError(f"a reply's '{key}' must be of type {kind.__name__}")
    return value


def _details(tree: dict[str, Any], n: int) -> Iterator[tuple[int, str]]:
    for text, items in tree.items():
        if not isinstance(items, list) or not all(type(i) is int and 0 <= i < n for i in items):
            raise RequestError(f"a reply's 'detail' must list items, 0 to {n - 1}")
        yield from ((item, text) for item in items)
