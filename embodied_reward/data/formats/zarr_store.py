"""Open the arrays of a zarr store so that decoding them is bounded.

The metadata is read and checked before zarr sees it, and every chunk before it is decoded
(`zarr_guard`). zarr format 2 and 3 are read.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data.formats import limits
from embodied_reward.data.formats.zarr_codecs import DECODED_SIZE, refuse_codecs
from embodied_reward.data.formats.zarr_files import Files, FolderFiles, ZipFiles, read_json
from embodied_reward.errors import DatasetError, MissingDependencyError

_AGAIN = "get the dataset again from its source"


@dataclass(frozen=True)
class Header:
    """What the metadata of an array declares, checked.

    Attributes:
        shape: the whole array.
        chunks: one chunk.
        dtype: native NumPy type, numbers only.
        codec: the codec that is undone first, None where chunks are raw.
        version: zarr format, 2 or 3.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    codec: str | None
    version: int

    @property
    def chunk_bytes(self) -> int:
        """Size of a decoded chunk."""
        return math.prod(self.chunks) * self.dtype.itemsize


class ZarrStore:
    """The arrays of one store, opened when first read.

    Raises:
        DatasetError: neither a folder nor a zip with a zarr store.
        MissingDependencyError: zarr is not installed.
    """

    def __init__(self, path: Path, *, fill: bool = False) -> None:
        self.path, self._fill = path, fill
        self.files: Files = ZipFiles(path) if path.is_file() else FolderFiles(path)
        _need_zarr(path)
        self._arrays: dict[str, Any] = {}
        self._headers: dict[str, Header] = {}

    def names(self, group: str) -> list[str]:
        """Return the names of the arrays inside a group."""
        inside = list(self.files.folders(f"{self.files.prefix}{group}"))
        if len(inside) > limits.ARRAYS:
            raise DatasetError(f"'{group}' in '{self.path}' has {len(inside)} arrays; {_AGAIN}")
        return [name for name in inside if self._is_array(f"{group}/{name}")]

    def _is_array(self, name: str) -> bool:
        if self.header_document(name) is not None:
            return True
        group = (read_json(self.files, f"{name}/{key}") for key in (".zgroup", "zarr.json"))
        if any(found is not None for found in group):
            return False
        raise DatasetError(f"{self._where(name)} has no metadata (.zarray); {_AGAIN}")

    def header_document(self, name: str) -> dict[str, Any] | None:
        """Return the raw metadata of an array, or None if there is no such array."""
        found = read_json(self.files, f"{name}/.zarray")
        if found is None:
            found = read_json(self.files, f"{name}/zarr.json")
            if found is not None and found.get("node_type") != "array":
                return None
        return found

    def header(self, name: str) -> Header:
        """Return the checked metadata of an array. Raises DatasetError."""
        if name not in self._headers:
            raw, where = self.header_document(name), self._where(name)
            if raw is None:
                raise DatasetError(f"'{self.path}' has no array '{name}'; {_AGAIN}")
            try:
                header = _parse(raw, where)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                raise DatasetError(
                    f"the metadata of {where} is damaged ({error!r}); {_AGAIN}"
                ) from error
            limits.fits(f"a chunk of {where}", header.chunk_bytes, limits.CHUNK)
            self._headers[name] = header
        return self._headers[name]

    def attributes(self, name: str = "") -> dict[str, Any]:
        """Return the attributes of a group or array; empty if it has none."""
        key = f"{name}/" if name else ""
        found = read_json(self.files, key + ".zattrs")
        if found is None:
            inside = (read_json(self.files, key + "zarr.json") or {}).get("attributes")
            found = inside if isinstance(inside, dict) else {}
        return found

    def read(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop). Raises DatasetError for what cannot be decoded."""
        header = self.header(name)
        row = math.prod(header.shape[1:]) * header.dtype.itemsize
        limits.fits(
            f"{self._where(name)}, rows {start} to {stop}", (stop - start) * row, limits.NUMBERS
        )
        try:
            return np.asarray(self._array(name)[start:stop])
        except (OSError, ValueError, RuntimeError, TypeError, KeyError, EOFError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DatasetError(
                f"{self._where(name)}, rows {start} to {stop}, cannot be decoded ({line}); {_AGAIN}"
            ) from error

    def stored_bytes(self, name: str, start: int, stop: int) -> int:
        """Return how many bytes hold the chunks of rows [start, stop)."""
        header = self.header(name)
        lines = range(start // header.chunks[0], -(-stop // header.chunks[0]))
        rest = [range(-(-n // c)) for n, c in zip(header.shape[1:], header.chunks[1:], strict=True)]
        separator = self._separator(name)
        total = 0
        for index in np.ndindex(len(lines), *(len(r) for r in rest)):
            parts = [str(lines[index[0]]), *map(str, index[1:])]
            key = separator.join(["c", *parts] if header.version == 3 else parts)
            total += self.files.size(f"{self.files.prefix}{name}/{key}") or 0
        return total

    def _separator(self, name: str) -> str:
        raw = self.header_document(name) or {}
        if raw.get("zarr_format") == 3:
            config = raw.get("chunk_key_encoding", {}).get("configuration", {})
            return str(config.get("separator", "/"))
        return str(raw.get("dimension_separator", "."))

    def _array(self, name: str) -> Any:
        if name not in self._arrays:
            import zarr

            from embodied_reward.data.formats.zarr_guard import GuardedStore

            header = self.header(name)
            _need_imagecodecs(header.codec, self._where(name))
            guard = GuardedStore(self.files, header.codec, header.chunk_bytes, fill=self._fill)
            self._arrays[name] = zarr.open_array(
                store=guard,
                path=self.files.prefix + name,
                mode="r",
                zarr_format=header.version,  # pyright: ignore[reportArgumentType]
            )
        return self._arrays[name]

    def _where(self, name: str) -> str:
        return f"'{name}' in '{self.path}'"


def _parse(raw: dict[str, Any], where: str) -> Header:
    version = int(raw["zarr_format"])
    if version == 2:
        given, chunks, codecs = raw["dtype"], raw["chunks"], _codecs_v2(raw)
    elif version == 3:
        given, chunks, codecs = raw["data_type"], *_codecs_v3(raw)
    else:
        raise DatasetError(f"{where} has zarr format {version}; 2 and 3 are read")
    refuse_codecs(codecs, where)
    shape = tuple(_whole(n, 0) for n in raw["shape"])
    chunks = tuple(_whole(n, 1) for n in chunks)
    if not shape or len(shape) != len(chunks) or len(shape) > 8:
        raise DatasetError(f"{where} has shape {shape} in chunks of {chunks}; {_AGAIN}")
    packed = [name for name in codecs if name in DECODED_SIZE]
    return Header(shape, chunks, _number_type(given, where), (packed or [None])[-1], version)


def _codecs_v2(raw: dict[str, Any]) -> list[str]:
    inside = [*(raw.get("filters") or []), *([raw["compressor"]] if raw["compressor"] else [])]
    return [str(codec["id"]) for codec in inside]


def _codecs_v3(raw: dict[str, Any]) -> tuple[list[int], list[str]]:
    grid = raw["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"chunk grid {grid['name']!r}")
    return grid["configuration"]["chunk_shape"], [str(codec["name"]) for codec in raw["codecs"]]


def _number_type(given: Any, where: str) -> np.dtype:
    if isinstance(given, str) and given not in ("|O", "object"):
        dtype = np.dtype(given)
        if dtype.kind in "biuf" and dtype.itemsize <= 8:
            return dtype.newbyteorder("=")
    raise DatasetError(
        f"{where} has type {given!r}; only booleans, integers and floats are read, never objects "
        "or strings: store numbers"
    )


def _whole(value: Any, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**48:
        raise ValueError(f"a size of {value!r}")
    return value


def _need_zarr(path: Path) -> None:
    try:
        import zarr
    except ImportError as error:
        raise MissingDependencyError(
            f"reading '{path}' needs zarr; pip install 'embodied-reward[formats]'"
        ) from error
    del zarr


def _need_imagecodecs(codec: str | None, where: str) -> None:
    if codec is None or not codec.startswith("imagecodecs_"):
        return
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError as error:
        raise MissingDependencyError(
            f"{where} is compressed with {codec.removeprefix('imagecodecs_')}; "
            "pip install 'embodied-reward[imagecodecs]'"
        ) from error
    register_codecs(codec, verbose=False)
