"""Episodes that are groups of one HDF5 file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data.formats import hdf5, limits
from embodied_reward.data.formats.plan import Stored
from embodied_reward.data.formats.source import ArraySource
from embodied_reward.errors import DatasetError

if TYPE_CHECKING:
    import h5py

_DEPTH = 6  # groups inside groups inside an episode


class Hdf5Source(ArraySource):
    """Reads rows; a subclass lists the groups and says what the arrays mean.

    The file is opened for every read, so that sources can be copied to other processes.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._groups: list[str] = []
        self._stored: dict[str, Stored] = {}

    def read(self, index: int, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop) of an array of one episode. Raises DatasetError."""
        with hdf5.opened(self.root) as file:
            array = hdf5.dataset(file, f"{self._groups[index]}/{name}")
            self._check(array, index, name)
            return array[start:stop]

    def stored_bytes(self, index: int, name: str) -> int:
        """Return how many bytes hold an array."""
        with hdf5.opened(self.root) as file:
            return hdf5.dataset(file, f"{self._groups[index]}/{name}").id.get_storage_size()

    def _check(self, array: "h5py.Dataset", index: int, name: str) -> None:
        rows, length = array.shape[0], self.lengths[index]
        # ManiSkill also stores the observation after the last action.
        if rows not in (length, length + 1):
            raise DatasetError(
                f"'{name}' of {self.where(index)} has {rows} rows for {length} actions; "
                "delete the episode or record it again"
            )
        if array.shape[1:] != self._stored[name].shape:
            raise DatasetError(
                f"a row of '{name}' of {self.where(index)} has shape {array.shape[1:]}, in the "
                f"first episode {self._stored[name].shape}; keep each kind in a file of its own"
            )


def numbered(group: "h5py.Group", prefix: str) -> list[str]:
    """Return the members called `<prefix><number>`, by number. Raises DatasetError."""
    if len(group) > limits.EPISODES:
        raise DatasetError(
            f"'{group.file.filename}' lists {len(group)} episodes, more than {limits.EPISODES}"
        )
    pattern = re.compile(rf"{prefix}(\d{{1,9}})")
    found = [(int(m[1]), name) for name in map(str, group) if (m := pattern.fullmatch(name))]
    return [name for _, name in sorted(found)]


def arrays_in(group: "h5py.Group", folders: tuple[str, ...]) -> dict[str, Stored]:
    """Return every array of an episode, those inside `folders` by their path.

    Raises:
        DatasetError: links that lead elsewhere, or types that are never read.
    """
    found: dict[str, Stored] = {}
    for name, array in _walk(group, "", folders, 0):
        if array.dtype.kind == "S":
            continue
        checked = hdf5.dataset(group, name)
        found[name] = Stored(tuple(checked.shape[1:]), np.dtype(checked.dtype).newbyteorder("="))
        if len(found) > limits.ARRAYS:
            raise DatasetError(f"'{group.name}' has more than {limits.ARRAYS} arrays")
    return found


def _walk(
    group: "h5py.Group", prefix: str, folders: tuple[str, ...], depth: int
) -> Iterator[tuple[str, "h5py.Dataset"]]:
    import h5py

    for name in map(str, group):
        member = hdf5.child(group, name)
        if isinstance(member, h5py.Dataset):
            yield prefix + name, member
        elif isinstance(member, h5py.Group) and depth < _DEPTH and (prefix or name in folders):
            yield from _walk(member, f"{prefix}{name}/", folders, depth + 1)
