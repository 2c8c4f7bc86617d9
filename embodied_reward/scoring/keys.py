"""Names of contents: the same pixels have the same key wherever and whenever they are scored."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xxhash

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.scoring.request import NONE, ScoreRequest
from embodied_reward.types import UInt8

Digest = Callable[[Any], bytes]


def _blake2b(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


HASHES: dict[str, Digest] = {"xxh3": xxhash.xxh3_128_digest, "blake2b": _blake2b}
"""xxh3 takes about a microsecond per small frame but collisions can be made on purpose; blake2b is
for cores that serve people who do not trust each other."""


def digest_named(name: str) -> Digest:
    """Return a hash function bytes-like -> 16 bytes. Raises ConfigError."""
    if name not in HASHES:
        raise ConfigError(f"no content hash '{name}'; {did_you_mean(name, HASHES)}")
    return HASHES[name]


def frame_keys(arenas: Sequence[UInt8], digest: Digest) -> list[bytes]:
    """Return the key of every frame of all arenas: digest of its pixels, and its shape."""
    keys: list[bytes] = []
    for arena in arenas:
        shape = arena.shape[1].to_bytes(4, "little") + arena.shape[2].to_bytes(4, "little")
        keys += [digest(frame) + shape for frame in np.ascontiguousarray(arena)]
    return keys


class ItemKeys(Sequence[bytes]):
    """Keys of the items of a request, worked out when asked for.

    Content is everything a score may depend on: frames in order, roles, views, times, the text and
    the user; not the place in the request, not the other items, not how the cache names frames.

    Args:
        request: whose items.
        frame: number -> UInt8["h w 3"].
    """

    def __init__(self, request: ScoreRequest, frame: Callable[[int], UInt8]) -> None:
        self._request, self._frame = request, frame

    def __len__(self) -> int:
        return len(self._request)

    def __getitem__(self, item):  # noqa: ANN001, ANN204 (int only; slices are not needed)
        r = self._request
        span = slice(*r.offsets[item : item + 2])
        views = [r.views[v] if r.views else str(v) for v in r.view[span]]
        text = r.texts[r.text[item]] if r.text[item] != NONE else None
        facts = repr((views, text, int(r.user[item]))).encode()
        state = hashlib.blake2b(digest_size=16)
        for part in (r.role[span].tobytes(), r.time[span].tobytes(), facts):
            state.update(len(part).to_bytes(8, "little") + part)
        for number in r.index[span]:
            (key,) = frame_keys((self._frame(number)[None],), xxhash.xxh3_128_digest)
            state.update(key)
        return state.digest()


class Chosen(Sequence[bytes]):
    """Some of the keys of several sequences, still worked out only when asked for."""

    def __init__(self, places: Sequence[tuple[Sequence[bytes], int]]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, item):  # noqa: ANN001, ANN204
        keys, k = self._places[item]
        return keys[k]
