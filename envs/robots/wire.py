"""Messages between a rollout and the process that guards the robot: JSON, then raw pictures.

Four bytes of length, that many bytes of JSON, and the bytes of the arrays that it announces.
Nothing that is received can run code, and nothing longer than `LONGEST` is read.
"""

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import UInt8

LONGEST = 64 << 20  # bytes of one message
_LENGTH = struct.Struct("!I")


class ClosedError(EnvError):
    """The other side is gone."""


def send(
    to: socket.socket,
    message: Mapping[str, Any],
    frames: Mapping[str, UInt8] | None = None,
    *,
    patience: float = 5.0,
) -> None:
    """Send one message.

    Args:
        to: a connected stream.
        message: JSON types.
        frames: name -> picture.
        patience: how long the other side may take to read it [s].

    Raises:
        ClosedError: the other side is gone, or does not read.
    """
    arrays = {k: np.ascontiguousarray(v, np.uint8) for k, v in (frames or {}).items()}
    shapes = {key: array.shape for key, array in arrays.items()}
    head = json.dumps({**message, "frames": shapes}).encode()
    parts = [_LENGTH.pack(len(head)), head, *(a.tobytes() for a in arrays.values())]
    to.settimeout(patience)
    try:
        to.sendall(b"".join(parts))
    except OSError as error:
        raise ClosedError(f"the other side of the robot's connection is gone ({error})") from error


def receive(source: socket.socket, deadline: float) -> tuple[dict[str, Any], dict[str, UInt8]]:
    """Receive one message, by a time of the monotonic clock [s].

    Raises:
        ClosedError: the other side is gone, or sends what is no message.
        TimeoutError: the deadline passed.
    """
    (length,) = _LENGTH.unpack(_exactly(source, _LENGTH.size, deadline))
    if length > LONGEST:
        raise ClosedError(f"a message of {length} bytes is no message of ours")
    try:
        message = json.loads(_exactly(source, length, deadline))
        shapes = {str(k): tuple(map(int, v)) for k, v in message.pop("frames").items()}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ClosedError(f"a message of the robot's connection is damaged ({error})") from error
    sizes = {key: int(np.prod(shape)) for key, shape in shapes.items()}
    if any(min(s, default=0) < 0 for s in shapes.values()) or sum(sizes.values()) > LONGEST:
        raise ClosedError(f"a message announces pictures of shapes {list(shapes.values())}")
    frames = {
        key: np.frombuffer(_exactly(source, sizes[key], deadline), np.uint8).reshape(shape)
        for key, shape in shapes.items()
    }
    return message, frames


def _exactly(source: socket.socket, count: int, deadline: float) -> bytes:
    parts, left = [], count
    while left:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError("no answer in time")
        source.settimeout(remaining)
        try:
            part = source.recv(min(left, 1 << 20))
        except TimeoutError:
            raise
        except OSError as error:
            raise ClosedError(f"the robot's connection broke ({error})") from error
        if not part:
            raise ClosedError("the other side closed the robot's connection")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)
