"""Count what a compressed stream would become, holding a little of it at a time."""

import bz2
import lzma
import zlib
from collections.abc import Callable

from embodied_reward.data.formats import limits

_FED = 4096  # compressed bytes fed at a time; deflate grows them by 1032 at most
_TAKEN = 2**20  # decoded bytes taken at a time


def deflated_size(data: bytes, limit: int) -> int:
    """Return the decoded size of a zlib or gzip stream, or some number above `limit`.

    Raises:
        zlib.error: damaged.
        EOFError: the stream ends early.
    """
    stream, total = zlib.decompressobj(wbits=47), 0
    for start in range(0, len(data), _FED):
        total += len(stream.decompress(data[start : start + _FED]))
        if total > limit or stream.eof:
            return total
    raise EOFError("the stream ends early")


def bz2_size(data: bytes, limit: int) -> int:
    """Return the decoded size of a bzip2 stream, or some number above `limit`.

    Raises:
        OSError, EOFError: damaged.
    """
    stream = bz2.BZ2Decompressor()
    return _count(stream.decompress, lambda: stream.eof or stream.needs_input, data, limit)


def lzma_size(data: bytes, limit: int) -> int:
    """Return the decoded size of an xz stream, or some number above `limit`.

    Raises:
        lzma.LZMAError, EOFError: damaged, or its dictionary needs more memory than a chunk may.
    """
    stream = lzma.LZMADecompressor(memlimit=limits.CHUNK)
    return _count(stream.decompress, lambda: stream.eof or stream.needs_input, data, limit)


def _count(
    decompress: Callable[[bytes, int], bytes], done: Callable[[], bool], data: bytes, limit: int
) -> int:
    total = len(decompress(data, _TAKEN))
    while total <= limit and not done():
        total += len(decompress(b"", _TAKEN))
    return total
