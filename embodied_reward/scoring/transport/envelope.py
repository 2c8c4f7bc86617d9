"""The frame of every message: a prefix, a JSON header, then columns of raw numbers.

    0   4  magic b"ERSC"
    4   2  version, uint16 little endian
    6   2  kind of message, uint16 (1 request, 2 reply, 3 error)
    8   4  bytes of the header, uint32
    12  4  zero
    16  .. header, UTF-8 JSON object
        .. columns in the header's order, each starting at the next multiple of 64

The header's `columns` is a list of `[name, dtype, shape]`. Where a column lies follows from the
columns before it, so no two can overlap; the last one ends where the message ends. All numbers
are little endian. Reading a message checks every length against the bytes that are there before
it makes anything of that size, and yields views, not copies.
"""

import enum
import json
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from embodied_reward.errors import RequestError

MAGIC = b"ERSC"
VERSION = 1
PREFIX = struct.Struct("<4sHHII")
ALIGN = 64
MAX_HEADER = 8 << 20
"""Largest header of a request [bytes]; texts lie in it."""
MAX_DIMENSION = 2**31 - 1
DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("uint8", "int64", "float32")}
_NAMES = {dtype.str: name for name, dtype in DTYPES.items()}  # `dtype.name` takes microseconds

Buffer = bytes | bytearray | memoryview
Columns = list[tuple[str, np.ndarray]]


class Kind(enum.IntEnum):
    """What a message is."""

    REQUEST = 1
    REPLY = 2
    ERROR = 3


def pack(kind: Kind, header: dict[str, Any], columns: Iterable[tuple[str, np.ndarray]]) -> list:
    """Return the buffers of a message, in order; the columns' bytes are not copied."""
    columns = [(name, np.ascontiguousarray(column)) for name, column in columns]
    described = [[name, _NAMES[column.dtype.str], column.shape] for name, column in columns]
    tree = {**header, "columns": described}
    text = _WRITER.encode(tree).encode()
    parts: list[Buffer] = [PREFIX.pack(MAGIC, VERSION, kind, len(text), 0), text]
    end = PREFIX.size + len(text)
    for _, column in columns:
        parts.append(bytes(-end % ALIGN))
        # A memoryview with a zero in its shape cannot be cast.
        parts.append(memoryview(column).cast("B") if column.size else b"")
        end += len(parts[-2]) + column.nbytes
    return parts


def size_of(parts: Sequence[Buffer]) -> int:
    """Return the bytes of a message."""
    return sum(map(len, parts))


def unpack(buffer: Buffer, kind: Kind, max_header: int = MAX_HEADER) -> tuple[dict, Columns]:
    """Check a message and return its header and its columns, views of `buffer`.

    Raises:
        RequestError: anything is not as the module says; no other exception, whatever the bytes.
    """
    view = memoryview(buffer).cast("B")
    text, end = _header_bytes(view, kind, max_header)
    header = _parse(text)
    described = header.pop("columns", None)
    if not isinstance(described, list):
        raise RequestError("the header's 'columns' must be a list of [name, dtype, shape]")
    columns: Columns = []
    for number, entry in enumerate(described):
        name, dtype, shape = _description(number, entry)
        start = end + -end % ALIGN
        count = math.prod(shape)
        end = start + count * dtype.itemsize
        if end > len(view):
            raise RequestError(
                f"column {number} ('{name:.40}', {dtype.name} {shape}) needs bytes {start} to "
                f"{end}, but the message has {len(view)}: send every column whole"
            )
        column = np.frombuffer(view[start:end], dtype, count).reshape(shape)
        columns.append((name, column))
    if end != len(view):
        raise RequestError(
            f"the message has {len(view)} bytes, but its columns end at {end}: describe every "
            "column in the header, and send nothing behind the last"
        )
    return header, columns


def _header_bytes(view: memoryview, kind: Kind, max_header: int) -> tuple[memoryview, int]:
    """Return the header's bytes and where they end."""
    if len(view) < PREFIX.size:
        raise RequestError(
            f"a message starts with {PREFIX.size} bytes of prefix; got {len(view)} bytes in all"
        )
    magic, version, found, length, zero = PREFIX.unpack_from(view)
    if magic != MAGIC:
        raise RequestError(f"a message starts with {MAGIC!r}; this one starts with {magic!r}")
    if version != VERSION or zero:
        raise RequestError(
            f"this side speaks version {VERSION} of the protocol, the message is of version "
            f"{version}{' with a reserved field set' if zero else ''}: use the same release on "
            "both sides"
        )
    if found != kind:
        raise RequestError(f"expected a message of kind {kind.value} ({kind.name}), got {found}")
    end = PREFIX.size + length
    if length > max_header:
        raise RequestError(f"the header has {length} bytes; at most {max_header} are accepted")
    if end > len(view):
        raise RequestError(f"the header ends at byte {end}, but the message has {len(view)} bytes")
    return view[PREFIX.size : end], end


def _parse(text: memoryview) -> dict[str, Any]:
    try:
        header = _READER.decode(str(text, "utf-8"))
    # RecursionError: brackets nested without end. ValueError: no JSON, no UTF-8, endless digits.
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the header is not a JSON object in UTF-8: {error!s:.120}") from None
    if not isinstance(header, dict):
        raise RequestError(f"the header must be a JSON object, got {type(header).__name__}")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice")
    return tree


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


_WRITER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_READER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _description(number: int, entry: Any) -> tuple[str, np.dtype, tuple[int, ...]]:
    if not (isinstance(entry, list) and len(entry) == 3):
        raise RequestError(f"column {number} of the header must be [name, dtype, shape]")
    name, dtype, shape = entry
    if not isinstance(name, str) or not isinstance(dtype, str) or dtype not in DTYPES:
        raise RequestError(
            f"column {number} needs a name and one of the dtypes {', '.join(DTYPES)}"
        )
    good = isinstance(shape, list) and 1 <= len(shape) <= 4
    if not good or not all(type(d) is int and 0 <= d <= MAX_DIMENSION for d in shape):
        raise RequestError(
            f"column {number} ('{name:.40}') needs a shape of one to four whole numbers from 0 to "
            f"{MAX_DIMENSION}"
        )
    # Without this, an empty column could still ask numpy for strides that do not fit.
    if math.prod(max(d, 1) for d in shape) > 2**48:
        raise RequestError(f"column {number} ('{name:.40}') has an impossible shape {shape}")
    return name, DTYPES[dtype], tuple(shape)
