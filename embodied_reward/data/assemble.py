"""Turn staged episodes into a LeRobot v3 dataset with LeRobot's own writer.

The dataset is written beside its final path, read back and compared with the staged episodes,
and only then renamed; the staged episodes go last. A kill at any moment leaves them or the whole
dataset.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward.data import staging
from embodied_reward.data.lerobot import LeRobotSource
from embodied_reward.data.schema import (
    IMAGES,
    lerobot_features,
    quiet_datasets,
    shapes,
    view_name,
    whole_fps,
)
from embodied_reward.errors import DatasetError
from embodied_reward.files import fsync

type Progress = Callable[[int, int], None]


def assemble(folder: Path, root: Path, *, progress: Progress | None = None) -> Path:
    """Assemble the episodes staged in `folder` into a dataset at `root`, then remove `folder`.

    Args:
        folder: a staging folder.
        root: where the dataset goes; must not exist (an empty folder may).
        progress: called with (episodes written, episodes in all).

    Returns:
        `root`.

    Raises:
        DatasetError: no episode is staged, one is unreadable or does not fit, or the disk
            refused the files; staged episodes are kept.
    """
    header, paths = staging.read_header(folder), list(staging.episodes_in(folder).values())
    if not paths:
        raise DatasetError(f"nothing to assemble: '{folder}' holds no finished episode")
    temp = root.with_name(root.name + ".tmp")
    shutil.rmtree(temp, ignore_errors=True)
    try:
        _write(temp, root.name, header, paths, progress or _silent)
        facts = _verify(temp, paths)
        staging.write_header(temp, header | {"episodes": facts})
        if (folder / "config.yaml").is_file():
            shutil.copy(folder / "config.yaml", temp)
        _sync_tree(temp)
        os.replace(temp, root)
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(temp, ignore_errors=True)
        raise DatasetError(
            f"could not assemble '{root}' ({type(error).__name__}: {error}); all {len(paths)} "
            f"finished episodes are safe in '{folder}'; mend the cause (disk space?) and run "
            f"'er data recover {root}'"
        ) from error
    fsync(root.absolute().parent)
    shutil.rmtree(folder)
    return root


def recover(path: str | Path, *, progress: Progress | None = None) -> tuple[Path, int]:
    """Assemble an interrupted recording, named by its dataset path or its staging folder.

    Returns:
        The dataset's path and its number of episodes.

    Raises:
        DatasetError: there is nothing to recover, or `assemble` failed.
    """
    root = staging.root_of(Path(path))
    folder = staging.folder_of(root)
    count = len(staging.episodes_in(folder))
    if (root / "meta" / "info.json").is_file():
        return root, _already(root, folder, count)
    if not staging.is_recording(folder):
        raise DatasetError(f"nothing to recover at '{root}': there is no '{folder.name}' beside it")
    with staging.lock(folder):
        return assemble(folder, root, progress=progress), count


def _already(root: Path, folder: Path, staged: int) -> int:
    """The dataset is complete; only a kill between the rename and the clean-up leaves staging."""
    episodes = LeRobotSource(root).lengths
    if staged > len(episodes):
        raise DatasetError(
            f"'{root}' is a complete dataset of {len(episodes)} episodes, and '{folder}' holds "
            f"{staged} staged ones of another recording; rename '{root}' and run the command again"
        )
    shutil.rmtree(folder, ignore_errors=True)
    return len(episodes)


def _silent(done: int, total: int) -> None:
    del done, total


def _write(
    temp: Path, name: str, header: dict[str, Any], paths: list[Path], progress: Progress
) -> None:
    from lerobot.datasets import LeRobotDataset

    first = staging.read_episode(paths[0])
    with quiet_datasets():
        dataset = LeRobotDataset.create(
            f"local/{name}",
            fps=whole_fps(header["fps"]),
            features=lerobot_features(first.arrays, header["fps"]),
            root=temp,
            robot_type=header["robot_type"],
            video_backend="pyav",
        )
        for index, path in enumerate(paths):
            _add_episode(dataset, path, shapes(first.arrays))
            progress(index + 1, len(paths))
        dataset.finalize()


def _add_episode(dataset: Any, path: Path, expected: dict[str, Any]) -> None:
    episode = staging.read_episode(path)
    if shapes(episode.arrays) != expected:
        raise DatasetError(
            f"staged episode '{path}' has other features than the first: "
            f"{shapes(episode.arrays)} instead of {expected}; move it away"
        )
    for t in range(len(episode)):
        row = {key: array[t] for key, array in episode.arrays.items()}
        dataset.add_frame({**row, "task": episode.task})
    # Encoding in a process pool forks a process that runs threads; one camera at a time is safe.
    dataset.save_episode(parallel_encoding=False)


def _verify(temp: Path, paths: list[Path]) -> list[dict[str, Any]]:
    """Compare with the staged episodes: LeRobot only logs a picture it could not write.

    Returns:
        What is known about each episode besides its rows (seed, behaviour, ...).
    """
    source, facts = LeRobotSource(temp), []
    if len(source.lengths) != len(paths):
        raise OSError(f"{len(source.lengths)} of {len(paths)} episodes arrived")
    for index, path in enumerate(paths):
        staged = staging.read_episode(path)
        for key, array in staged.arrays.items():
            _compare(source, index, key, array)
        facts.append(staged.meta)
    return facts


def _compare(source: LeRobotSource, index: int, key: str, array: np.ndarray) -> None:
    if not key.startswith(IMAGES):
        same = np.array_equal(source.column(index, key), array)
    elif source.features[key]["dtype"] == "image":
        same = np.array_equal(source.frames(index, view_name(key)), array)
    else:
        same = source.frames(index, view_name(key)).shape == array.shape
    if not same:
        raise OSError(f"'{key}' of episode {index} did not arrive as it was recorded")


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        fsync(path)
