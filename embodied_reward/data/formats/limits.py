"""How much a file may make this process allocate. Checked before anything is allocated.

A file of a few hundred bytes can declare gigabytes (a compressed block of zeros, a shape in a
header), so what is declared is held against what is stored.
"""

from embodied_reward.errors import DatasetError

MEBIBYTE = 2**20
BLOCK = 32 * MEBIBYTE  # pictures decoded at a time when a dataset is streamed [byte]
CHUNK = 256 * MEBIBYTE  # one chunk of an array, decoded [byte]
MODEST = 64 * MEBIBYTE  # below this nothing is suspicious [byte]
RATIO = 500  # real pictures are compressed by 2 to 60; zeros by 1000
VIEW = 16 * 1024 * MEBIBYTE  # one view of one episode, decoded [byte]
NUMBERS = 1024 * MEBIBYTE  # one numeric array of one episode [byte]
TEXT = 16 * MEBIBYTE  # a manifest or a metadata document [byte]
EPISODES = 1_000_000
MEMBERS = 4_000_000  # entries of an archive or a folder
ARRAYS = 4_000  # arrays of one dataset or episode
SIDE = 16_384  # pixels along a side of a picture


def fits(what: str, declared: int, limit: int) -> None:
    """Raise DatasetError if `declared` bytes are more than `limit`."""
    if declared > limit:
        raise DatasetError(
            f"{what} declares {size(declared)}, more than the limit of {size(limit)}; "
            "the file is damaged or hostile: get it again from its source, or store it in pieces"
        )


def plausible(what: str, declared: int, stored: int) -> None:
    """Raise DatasetError if `stored` bytes cannot honestly hold `declared` bytes."""
    if declared > MODEST and declared > RATIO * stored:
        raise DatasetError(
            f"{what} declares {size(declared)} but only {size(stored)} are stored; "
            "the file is incomplete or a decompression bomb: get it again from its source"
        )


def size(count: int) -> str:
    """Return a number of bytes in words."""
    amount, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= 1024 and len(units) > 1:
        amount, units = amount / 1024, units[1:]
    return f"{amount:.4g} {units[0]}"
