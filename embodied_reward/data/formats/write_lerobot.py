"""Write a LeRobot v3 dataset with LeRobot's own writer, a few frames at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embodied_reward.data import schema, staging
from embodied_reward.data.formats.export import frames_of, numeric_features, read_columns
from embodied_reward.data.formats.source import Source

Storage = Literal["auto", "image", "video"]


def write_lerobot(
    source: Source,
    place: Path,
    progress: Callable[[int, int], None],
    *,
    name: str,
    storage: Storage = "auto",
) -> None:
    """Write every episode of `source` as a dataset in the new folder `place`.

    Args:
        source: what to write.
        place: the folder, which must not exist.
        progress: called with (episodes written, episodes in all).
        name: the dataset's name in its metadata.
        storage: `image` is lossless, `video` compresses; `auto` is lossless for small pictures.

    Raises:
        DatasetError: a number that is not finite.
    """
    from lerobot.datasets import LeRobotDataset

    features = numeric_features(source) | _pictures(source, storage)
    with schema.quiet_datasets():
        dataset = LeRobotDataset.create(
            f"local/{name}",
            fps=schema.whole_fps(source.fps),
            features=features,
            root=place,
            robot_type=source.robot_type,
            video_backend="pyav",
        )
        for index in range(len(source.lengths)):
            for row in _rows(source, index, features):
                dataset.add_frame({**row, "task": source.tasks[index]})
            # One camera at a time: a process pool would fork a process that runs threads.
            dataset.save_episode(parallel_encoding=False)
            progress(index + 1, len(source.lengths))
        dataset.finalize()
    header = {"fps": source.fps, "robot_type": source.robot_type, "info": source.info}
    staging.write_header(place, header | {"episodes": [{} for _ in source.lengths]})


def _pictures(source: Source, storage: Storage) -> dict[str, dict[str, Any]]:
    return {
        key: schema.picture_feature((*source.size(view), 3), source.fps, storage)
        for view, key in source.view_keys.items()
    }


def _rows(
    source: Source, index: int, features: dict[str, dict[str, Any]]
) -> Iterator[dict[str, np.ndarray]]:
    numbers = {
        key: rows.reshape(len(rows), *features[key]["shape"])
        for key, rows in read_columns(source, index, list(numeric_features(source))).items()
    }
    pictures = {key: frames_of(source, index, view) for view, key in source.view_keys.items()}
    for t in range(source.lengths[index]):
        row = {key: rows[t].astype(features[key]["dtype"]) for key, rows in numbers.items()}
        yield row | {key: next(frames) for key, frames in pictures.items()}
