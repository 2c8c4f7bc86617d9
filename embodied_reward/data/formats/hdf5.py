"""Read HDF5 without following what a hostile file points at.

Refused: soft and external links (they may lead to any file), external and virtual storage,
object, string and compound types, filters that would load a plug-in, arrays of which parts were
never written, and chunks that inflate to more than they declare.
"""

import contextlib
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_reward.data.formats import limits
from embodied_reward.data.formats.inflate import deflated_size
from embodied_reward.errors import DatasetError, MissingDependencyError, did_you_mean

if TYPE_CHECKING:
    import h5py

# deflate, shuffle, fletcher32, lzf. Not szip: its stream says how much to allocate.
_FILTERS = {1, 2, 3, 32000}
_DEFLATE, _INFLATION = 1, 1032  # no deflate stream grows by more
_AGAIN = "get the file again from its source"


@contextlib.contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    """Open a file for reading; whatever HDF5 throws becomes one DatasetError.

    Raises:
        DatasetError: missing, truncated or damaged.
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            f"reading '{path}' needs h5py; pip install 'embodied-reward[formats]'"
        ) from error
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (OSError, KeyError, ValueError, RuntimeError, TypeError, EOFError, zlib.error) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(
            f"HDF5 file '{path}' is truncated or damaged ({line}); {_AGAIN}"
        ) from error


def child(group: "h5py.Group", name: str) -> "h5py.Group | h5py.Dataset":
    """Return a member by its path inside `group`, following hard links only.

    Raises:
        DatasetError: it does not exist or is a link that leads elsewhere.
    """
    import h5py

    here: Any = group
    for part in name.split("/"):
        if not isinstance(here, h5py.Group) or not here.id.links.exists(part.encode()):
            known = list(here)[:50] if isinstance(here, h5py.Group) else []
            raise DatasetError(
                f"'{here.name}' in '{group.file.filename}' has no '{part}'; "
                f"{did_you_mean(part, known)}"
            )
        link = here.get(part, getlink=True)
        if not isinstance(link, h5py.HardLink):
            kind = "an external" if isinstance(link, h5py.ExternalLink) else "a soft"
            raise DatasetError(
                f"'{part}' under '{here.name}' in '{group.file.filename}' is {kind} link, which "
                "may lead anywhere and is not followed; copy the data into the file (h5repack)"
            )
        here = here[part]
    return here


def group(parent: "h5py.Group", name: str) -> "h5py.Group":
    """Return a member that must be a group. Raises DatasetError."""
    import h5py

    found = child(parent, name)
    if not isinstance(found, h5py.Group):
        raise DatasetError(
            f"'{name}' in '{parent.file.filename}' is an array, not a group; {_AGAIN}"
        )
    return found


def dataset(parent: "h5py.Group", name: str) -> "h5py.Dataset":
    """Return a member that must be a numeric array and safe to read. Raises DatasetError."""
    import h5py

    found = child(parent, name)
    where = f"'{(parent.name or '').rstrip('/')}/{name}' in '{parent.file.filename}'"
    if not isinstance(found, h5py.Dataset):
        raise DatasetError(f"{where} is a group, not an array; {_AGAIN}")
    _check_type(found, where)
    _check_storage(found, where)
    return found


def _check_type(array: "h5py.Dataset", where: str) -> None:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise DatasetError(
            f"{where} has type '{array.dtype}'; only booleans, integers and floats are read, never "
            "objects or strings: store numbers"
        )
    if array.shape is None or array.ndim == 0 or array.ndim > 8:
        raise DatasetError(
            f"{where} has shape {array.shape}; store one row per step along the first of at most "
            "8 axes"
        )
    if array.external or array.is_virtual:
        raise DatasetError(
            f"{where} keeps its data in another file, which is not followed; "
            "copy the data into the file (h5repack)"
        )


def _check_storage(array: "h5py.Dataset", where: str) -> None:
    plist = array.id.get_create_plist()
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    for number, _, _, name in filters:
        if number not in _FILTERS:
            raise DatasetError(
                f"{where} needs the HDF5 filter {number} ({name.decode(errors='replace')}), which "
                "is not read; rewrite it with gzip or without compression (h5repack)"
            )
    stored = array.id.get_storage_size()
    limits.plausible(where, array.nbytes, stored)
    if array.chunks is None:
        missing = stored < array.nbytes
    else:
        limits.fits(
            f"a chunk of {where}", math.prod(array.chunks) * array.dtype.itemsize, limits.CHUNK
        )
        wanted = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
        missing = array.id.get_num_chunks() < wanted
    if missing:
        raise DatasetError(
            f"{where} was never written in full: {limits.size(stored)} are stored for "
            f"{limits.size(array.nbytes)}; {_AGAIN}"
        )
    if any(number == _DEFLATE for number, *_ in filters):
        _check_inflation(array, where)


def _check_inflation(array: "h5py.Dataset", where: str) -> None:
    """Inflate suspicious chunks a little at a time: HDF5 itself inflates without a limit."""
    large: list[tuple[int, ...]] = []
    array.id.chunk_iter(
        lambda info: (
            large.append(info.chunk_offset) if info.size * _INFLATION > limits.MODEST else None
        )
    )
    declared = math.prod(array.chunks or ()) * array.dtype.itemsize
    for offset in large:
        mask, data = array.id.read_direct_chunk(offset)
        if mask:
            continue  # stored without (some) filters
        if deflated_size(data, declared) > declared:
            raise DatasetError(
                f"a chunk of {where} inflates to more than the {limits.size(declared)} it "
                f"declares; it is a decompression bomb: {_AGAIN}"
            )


def text(owner: "h5py.Group", name: str) -> str | None:
    """Return a text attribute, or None if there is none. Raises DatasetError."""
    value = _attribute(owner, name)
    if value is None:
        return None
    value = value.decode(errors="replace") if isinstance(value, bytes) else value
    if not isinstance(value, str):
        raise DatasetError(
            f"attribute '{name}' of '{owner.name}' in '{owner.file.filename}' is {value!r}, "
            f"which is not text; {_AGAIN}"
        )
    return value


def document(owner: "h5py.Group", name: str) -> dict[str, Any]:
    """Return a JSON attribute as a mapping, empty if there is none. Raises DatasetError."""
    raw = text(owner, name)
    try:
        found = json.loads(raw) if raw else {}
    except (ValueError, RecursionError) as error:
        raise DatasetError(
            f"attribute '{name}' of '{owner.name}' in '{owner.file.filename}' is not JSON "
            f"({error}); {_AGAIN}"
        ) from error
    return found if isinstance(found, dict) else {}


def integer(owner: "h5py.Group", name: str) -> int | None:
    """Return an integer attribute, or None if there is none. Raises DatasetError."""
    value = _attribute(owner, name)
    if value is None:
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DatasetError(
            f"attribute '{name}' of '{owner.name}' in '{owner.file.filename}' is {value!r}, "
            f"not a whole number; {_AGAIN}"
        ) from error


def _attribute(owner: "h5py.Group", name: str) -> Any:
    if name not in owner.attrs:
        return None
    attribute = owner.attrs.get_id(name)
    limits.fits(
        f"attribute '{name}' of '{owner.name}' in '{owner.file.filename}'",
        attribute.get_storage_size(),
        limits.TEXT,
    )
    return owner.attrs[name]
