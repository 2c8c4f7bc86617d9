"""The files of a zarr store, in a folder or in a zip, with their sizes; read without zarr."""

import json
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from embodied_reward.data.formats import limits
from embodied_reward.errors import DatasetError

_AGAIN = "get the dataset again from its source"


class Files(Protocol):
    """Access by key, parts joined by `/`."""

    path: Path
    prefix: str  # where the store's root lies, empty or ending in `/`

    def size(self, key: str) -> int | None:
        """Return the size of a file [byte], or None if there is none."""
        ...

    def raw(self, key: str) -> bytes:
        """Return the content of a file that exists."""
        ...

    def folders(self, key: str) -> Iterator[str]:
        """Yield the names of the folders inside a folder."""
        ...


class FolderFiles:
    """A store in a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.prefix = path, ""

    def size(self, key: str) -> int | None:
        """Return the size of a file, or None. Raises DatasetError for a link."""
        place = self.path / key
        try:
            found = place.lstat()
        except OSError:
            return None
        if stat.S_ISLNK(found.st_mode):
            raise DatasetError(
                f"'{place}' is a symbolic link, which may lead anywhere and is not followed; "
                "copy the file into the store"
            )
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def raw(self, key: str) -> bytes:
        """Return the content of a file."""
        return (self.path / key).read_bytes()

    def folders(self, key: str) -> Iterator[str]:
        """Yield the names of the folders inside a folder, sorted."""
        place = self.path / key
        if place.is_dir():
            yield from sorted(p.name for p in place.iterdir() if p.is_dir())


class ZipFiles:
    """A store in a zip archive, at its root or inside folders of it.

    Raises:
        DatasetError: not a zip, truncated, or with entries that lead out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        try:
            entries = self._archive().infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DatasetError(
                f"zip file '{path}' is truncated or damaged ({error}); {_AGAIN}"
            ) from error
        if len(entries) > limits.MEMBERS:
            raise DatasetError(f"zip file '{path}' has {len(entries)} entries; {_AGAIN}")
        self._entries: dict[str, zipfile.ZipInfo] = {}
        self._children: dict[str, set[str]] = {}
        for entry in entries:
            self._add(entry)
        self.prefix = self._find_root()

    def size(self, key: str) -> int | None:
        """Return the size of an entry once unpacked, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry.file_size

    def raw(self, key: str) -> bytes:
        """Return the content of an entry. Raises DatasetError if it is damaged."""
        try:
            return self._archive().read(self._entries[key])
        except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
            raise DatasetError(
                f"'{key}' in '{self.path}' is truncated or damaged ({error}); {_AGAIN}"
            ) from error

    def folders(self, key: str) -> Iterator[str]:
        """Yield the names of the folders inside a folder, sorted."""
        yield from sorted(self._children.get(key.rstrip("/"), ()))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def _archive(self) -> zipfile.ZipFile:
        # A forked process shares the parent's file position, so it opens its own.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]

    def close(self) -> None:
        """Close the archive; it is opened again when needed."""
        if self._opened is not None:
            self._opened[1].close()
            self._opened = None

    def __del__(self) -> None:
        self.close()

    def _add(self, entry: zipfile.ZipInfo) -> None:
        name = entry.filename
        parts = name.rstrip("/").split("/")
        if name.startswith("/") or "\\" in name or ".." in parts or ":" in parts[0]:
            raise DatasetError(
                f"zip file '{self.path}' has the entry '{name}', which leads out of the archive; "
                f"do not unpack it, {_AGAIN}"
            )
        if name in self._entries:
            raise DatasetError(f"zip file '{self.path}' has the entry '{name}' twice; {_AGAIN}")
        if entry.flag_bits & 1:
            raise DatasetError(
                f"zip file '{self.path}' is encrypted; unpack it and pass the folder"
            )
        if not name.endswith("/"):
            self._entries[name] = entry
            for i in range(1, len(parts)):
                self._children.setdefault("/".join(parts[: i - 1]), set()).add(parts[i - 1])

    def _find_root(self) -> str:
        """PushT's zip has its store inside two folders, UMI's at the root."""
        ends = ("meta/episode_ends/.zarray", "meta/episode_ends/zarr.json")
        found = sorted(n[: -len(e)] for n in self._entries for e in ends if n.endswith(e))
        roots = sorted(set(found), key=len)
        if not roots or (roots[0] and not roots[0].endswith("/")):
            raise DatasetError(
                f"zip file '{self.path}' holds no zarr store of episodes (meta/episode_ends); "
                "pass a diffusion-policy or UMI replay buffer"
            )
        return roots[0]


def read_json(files: Files, key: str) -> dict[str, Any] | None:
    """Return a metadata document of a store, or None if there is none. Raises DatasetError."""
    full, where = files.prefix + key, f"'{key}' in '{files.path}'"
    size = files.size(full)
    if size is None:
        return None
    limits.fits(where, size, limits.TEXT)
    try:
        found = json.loads(files.raw(full))
    except (ValueError, OSError, RecursionError) as error:
        raise DatasetError(f"{where} is truncated or damaged ({error}); {_AGAIN}") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{where} is no zarr metadata; {_AGAIN}")
    return found
