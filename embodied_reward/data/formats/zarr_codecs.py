"""Which zarr codecs are decoded, and how much a compressed chunk would become.

A chunk is asked for its decoded size before zarr decodes it, from its header or, where the format
has none, by inflating it a little at a time. Codecs that rebuild Python objects (pickle, JSON,
msgpack) are refused by name.
"""

import io
import lzma
import zlib
from collections.abc import Callable

import PIL.Image

from embodied_reward.data.formats import limits
from embodied_reward.data.formats.inflate import bz2_size, deflated_size, lzma_size
from embodied_reward.data.formats.jpegxl import jpegxl_size
from embodied_reward.errors import DatasetError

# Filters that map numbers to numbers and keep their count.
FILTERS = {"delta", "shuffle", "fixedscaleoffset", "bytes", "transpose", "crc32c"}


def _lz4(data: bytes, limit: int) -> int:
    del limit
    return int.from_bytes(data[:4], "little")


def _blosc(data: bytes, limit: int) -> int:
    """Return the size in a Blosc header, which also says how long the chunk must be."""
    del limit
    packed = int.from_bytes(data[12:16], "little")
    if packed != len(data):  # Blosc itself reads past the end of a chunk that is cut
        raise ValueError(f"{len(data)} of {packed} bytes")
    return int.from_bytes(data[4:8], "little")


def _zstd(data: bytes, limit: int) -> int:
    """Return the content size in a zstd frame's header (RFC 8878, 3.1.1.1)."""
    if data[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("no zstd frame")
    flags, at = data[4], 5
    single, kind = bool(flags & 0x20), flags >> 6
    width = (1 if single else 0, 2, 4, 8)[kind]
    if width == 0:
        return limit + 1  # unknown size: nobody can promise that it is bounded
    at += (0 if single else 1) + (0, 1, 2, 4)[flags & 3]
    return int.from_bytes(data[at : at + width], "little") + (256 if width == 2 else 0)


def _picture(data: bytes, limit: int) -> int:
    del limit
    with PIL.Image.open(io.BytesIO(data)) as image:  # reads the header only
        return image.width * image.height * len(image.getbands())


def _jpegxl(data: bytes, limit: int) -> int:
    del limit
    height, width = jpegxl_size(data)
    return height * width * 3


# codec -> decoded size of a chunk [byte]; larger than the limit where it cannot be bounded.
DECODED_SIZE: dict[str, Callable[[bytes, int], int]] = {
    "blosc": _blosc,
    "lz4": _lz4,
    "zstd": _zstd,
    "zlib": deflated_size,
    "gzip": deflated_size,
    "bz2": bz2_size,
    "lzma": lzma_size,
    "imagecodecs_jpegxl": _jpegxl,
    "imagecodecs_jpeg": _picture,
    "imagecodecs_png": _picture,
    "imagecodecs_webp": _picture,
}


def refuse_codecs(codecs: list[str], where: str) -> None:
    """Raise DatasetError unless every codec is known to yield numbers only."""
    for name in codecs:
        if name not in DECODED_SIZE and name not in FILTERS:
            raise DatasetError(
                f"{where} uses the zarr codec '{name}', which is not read (object codecs such as "
                "pickle can run code); rewrite the array with blosc, zstd, gzip or lz4"
            )


def refuse_bomb(codec: str | None, data: bytes, declared: int, where: str) -> None:
    """Raise DatasetError if a stored chunk would decode to more than `declared` bytes."""
    if codec is None:
        found = len(data)
    else:
        try:
            found = DECODED_SIZE[codec](data, declared)
        except (ValueError, OSError, EOFError, IndexError, zlib.error, lzma.LZMAError) as error:
            raise DatasetError(
                f"{where} is truncated or damaged ({error}); get the dataset again from its source"
            ) from error
    if found > declared:
        raise DatasetError(
            f"{where} decodes to {limits.size(found)} or more where {limits.size(declared)} are "
            "declared; it is damaged or a decompression bomb: get the dataset again from its source"
        )
