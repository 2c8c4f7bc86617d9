"""Finished episodes on disk while a recording is under way.

`<root>.recording/` holds `recording.json` (what is recorded) and one `episode-000000.npz` for
each finished episode, written atomically. LeRobot's files become readable only when the writer
is finalised; these are readable at any moment. Nothing here imports LeRobot.
"""

import fcntl
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from embodied_reward.data.schema import Arrays
from embodied_reward.errors import DatasetError
from embodied_reward.files import replacing

SUFFIX = ".recording"
_HEADER = "recording.json"
_META = "meta"


@dataclass(frozen=True)
class StagedEpisode:
    """One finished episode: arrays with a leading time axis, and what is known about it."""

    arrays: Arrays
    task: str
    meta: dict[str, Any]

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))


def folder_of(root: Path) -> Path:
    """Return the staging folder of a dataset that is (or will be) at `root`."""
    return root.with_name(root.name + SUFFIX)


def root_of(path: Path) -> Path:
    """Return the dataset root that `path`, a root or a staging folder, belongs to."""
    return path.with_name(path.name.removesuffix(SUFFIX))


def is_recording(folder: Path) -> bool:
    """Whether `folder` holds a recording, finished episodes or not."""
    return (folder / _HEADER).is_file()


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Write `recording.json`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / _HEADER) as temp:
        temp.write_text(json.dumps(header, indent=2, sort_keys=True))


def read_header(folder: Path) -> dict[str, Any]:
    """Read `recording.json`. Raises DatasetError where there is no recording."""
    path = folder / _HEADER
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise DatasetError(
            f"there is no recording at '{folder}' ('{_HEADER}' is missing)"
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot read '{path}': {error}") from error


def write_episode(folder: Path, index: int, episode: StagedEpisode) -> Path:
    """Write one finished episode, whole or not at all. Raises OSError."""
    path = folder / f"episode-{index:06d}.npz"
    meta = json.dumps({"task": episode.task, **episode.meta})
    with replacing(path) as temp, temp.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{_META: np.array(meta), **episode.arrays})
    return path


def read_episode(path: Path) -> StagedEpisode:
    """Read one staged episode. Raises DatasetError naming the file."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        meta = json.loads(str(arrays.pop(_META)))
        return StagedEpisode(arrays=arrays, task=meta.pop("task"), meta=meta)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(
            f"staged episode '{path}' is unreadable ({error}); "
            "move it away and run the command again"
        ) from error


def episodes_in(folder: Path) -> dict[int, Path]:
    """Return index -> file of every finished episode, in order."""
    found = {}
    for path in sorted(folder.glob("episode-*.npz")):
        if match := re.fullmatch(r"episode-(\d+)\.npz", path.name):
            found[int(match[1])] = path
    return found


def lock(folder: Path) -> IO[str]:
    """Take the recording for this process until the returned file is closed or the process dies.

    Raises:
        DatasetError: another process is recording into this folder.
    """
    file = (folder / ".lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise DatasetError(
            f"another process is recording into '{folder}'; wait for it, or choose another path"
        ) from error
    return file
