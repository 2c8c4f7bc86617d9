"""Sub-task annotations of a LeRobot data set, in either of the two forms in use.

- `subtask_index`, a column with one number per row;
- `[dense_|sparse_]subtask_start_frames` and `..._end_frames` in `meta/episodes`, as LeRobot's
  SARM annotation writes them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64

COLUMN = "subtask_index"
PREFIXES = ("", "dense_", "sparse_")


def from_column(index: npt.NDArray[Any]) -> Int64:
    """Return the keyframes K_0..K_N of a column Int["t"] of sub-task numbers."""
    changes = np.flatnonzero(np.diff(index.reshape(-1))) + 1
    return np.array([0, *changes, len(index) - 1], np.int64)


def from_metadata(row: Mapping[str, Any], length: int, where: str) -> Int64 | None:
    """Return the keyframes K_0..K_N of an episode's metadata; None if it has none.

    Raises:
        DatasetError: the annotation does not increase or leaves the episode.
    """
    for prefix in PREFIXES:
        starts = row.get(f"{prefix}subtask_start_frames")
        ends = row.get(f"{prefix}subtask_end_frames")
        if not starts or not ends:
            continue
        frames = np.array([*starts, min(int(ends[-1]), length - 1)], np.int64)
        if frames[0] < 0 or (np.diff(frames) < 1).any():
            raise DatasetError(
                f"{where}: '{prefix}subtask_start_frames' {list(starts)} with the end {ends[-1]} "
                f"must increase inside the episode's {length} rows; correct the annotation in "
                "meta/episodes"
            )
        return frames
    return None
