"""Rows of an episode that is not finished yet, on disk as they come.

A recorder's finished episodes survive a kill; on a robot the rows of the running one are worth
keeping too. Each row is a file of its own, so the last one at most is lost, and nothing is half
read. Surviving a power cut is not promised: rows are not forced to disk.
"""

import os
import shutil
from pathlib import Path

import numpy as np

from embodied_reward.data.schema import Arrays, Row, to_array

FOLDER = "unfinished"


class Journal:
    """The rows of one running episode.

    Args:
        folder: of the recording; rows lie in its `unfinished/`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._count = 0

    def recover(self) -> list[Arrays]:
        """Return the rows that a killed run left, oldest first; unreadable ones end them."""
        rows: list[Arrays] = []
        for path in sorted(self._folder.glob("row-*.npz")):
            try:
                with np.load(path, allow_pickle=False) as file:
                    rows.append({key: file[key] for key in file.files})
            except (OSError, ValueError, EOFError):
                break
        return rows

    def add(self, row: Row) -> None:
        """Keep one row. Raises OSError where the disk refuses it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"row-{self._count:06d}.npz"
        temporary = path.with_name("." + path.name)
        arrays = {key: to_array(key, value, path.name) for key, value in row.items()}
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        os.replace(temporary, path)
        self._count += 1

    def clear(self) -> None:
        """Forget all rows: the episode was finished or given up."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._count = 0
