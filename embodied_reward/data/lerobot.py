"""Read a LeRobot v3 dataset by columns and episodes.

The parquet files are read directly: a column of one episode costs milliseconds, no cache copy is
made, and LeRobot's import (seconds) is paid only where a video has to be decoded, which its own
decoder does. Layout: https://huggingface.co/docs/lerobot/lerobot-dataset-v3
"""

import io
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq

from embodied_reward.data import staging, subtasks
from embodied_reward.data.formats import limits
from embodied_reward.data.formats.layout import (
    Decisions,
    Fact,
    Layout,
    check_fps,
    refuse_options,
)
from embodied_reward.data.formats.picture import reorient
from embodied_reward.data.schema import SUCCESS, view_name
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8

_TOO_LARGE = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning, DatasetError)
_TIMESTAMP_TOLERANCE = 1e-4  # [s], LeRobot's own


class LeRobotSource:
    """One LeRobot v3 dataset on the local disk.

    Attributes as `Source`; `view_keys` has colour cameras only. Pictures are upright RGB unless
    `layout` says otherwise, as it must for some conversions of LIBERO.

    Raises:
        DatasetError: a missing, corrupt or truncated file, another codebase version, or no
            episodes.
    """

    kind = "LeRobot v3"

    def __init__(self, root: Path, layout: Layout | None = None) -> None:
        self.root = root
        layout = layout or Layout()
        refuse_options(layout, ("orientation", "colour"), "LeRobot datasets")
        info = _read_info(root)
        self.features: dict[str, dict[str, Any]] = info["features"]
        self.fps = float(info["fps"])
        self.robot_type: str = info.get("robot_type") or "unknown"
        self.view_keys = {view_name(k): k for k, f in self.features.items() if _is_camera(f)}
        self._data_path: str = info["data_path"]
        self._video_path: str = info.get("video_path") or ""
        self._rows = _read_episodes(root, info.get("total_episodes"))
        self.lengths = [int(row["length"]) for row in self._rows]
        self.tasks = [_first(row.get("tasks")) for row in self._rows]
        self.notes: list[str] = []
        self.info = _recorded_info(root)
        decisions = Decisions(layout, {}, f"'{root}'")
        self._orientation = decisions.settle("orientation", "upright")
        self._colour = decisions.settle("colour", "rgb")
        self.facts: dict[str, Fact] = {"fps": Fact(self.fps, "recorded")} | decisions.facts

    def size(self, view: str) -> tuple[int, int]:
        """Return the declared (height, width) of a view."""
        shape = tuple(self.features[self.view_keys[view]]["shape"])
        return (
            (shape[1], shape[2]) if shape[0] in (1, 3) and shape[2] != 3 else (shape[0], shape[1])
        )

    def column(self, index: int, key: str) -> npt.NDArray[Any]:
        """Return a numeric column of one episode, shape (t, n). Raises DatasetError."""
        return self.columns(index, [key])[key]

    def columns(self, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Return numeric columns of one episode, each of shape (t, n). Raises DatasetError."""
        table = self._table(index, keys)
        try:
            return {key: _numeric(table.column(key), len(table)) for key in keys}
        except ValueError as error:
            raise DatasetError(
                f"rows of {self.where(index)} differ in length in one of {', '.join(keys)} "
                f"({error}); delete the episode or record it again"
            ) from error

    def frames(self, index: int, view: str) -> UInt8:
        """Decode one view of one episode, UInt8["t h w 3"]. Raises DatasetError."""
        height, width = self.size(view)
        limits.fits(
            f"view '{view}' of {self.where(index)}",
            self.lengths[index] * height * width * 3,
            limits.VIEW,
        )
        return np.concatenate(list(self.blocks(index, view)))

    def blocks(self, index: int, view: str) -> Iterator[UInt8]:
        """Decode one view of one episode in order, a bounded number of frames at a time."""
        key, (height, width) = self.view_keys[view], self.size(view)
        rows = max(1, limits.BLOCK // max(1, height * width * 3))
        video = self.features[key]["dtype"] == "video"
        decode = self._videos if video else self._images
        for block in decode(index, key, rows):
            frames = reorient(block, self._orientation)
            yield np.ascontiguousarray(frames[..., ::-1] if self._colour == "bgr" else frames)

    def _images(self, index: int, key: str, rows: int) -> Iterator[UInt8]:
        view, column = view_name(key), self._table(index, [key]).column(key)
        shape: tuple[int, ...] | None = None
        for start in range(0, len(column), rows):
            items = column.slice(start, rows).to_pylist()
            frames = [self._image(item, index, start + t, view) for t, item in enumerate(items)]
            for t, frame in enumerate(frames):
                shape = shape or frame.shape
                if frame.shape != shape:
                    raise DatasetError(
                        f"view '{view}' changes its size at {self.where(index)}, frame "
                        f"{start + t}: {_size(shape)} before, {_size(frame.shape)} there; "
                        "record each size apart"
                    )
            yield np.stack(frames)

    def keyframes(self, index: int) -> Int64 | None:
        """Return an episode's annotated sub-task boundaries; None if there are none."""
        length = self.lengths[index]
        if subtasks.COLUMN in self.features:
            return subtasks.from_column(self.column(index, subtasks.COLUMN))
        return subtasks.from_metadata(self._rows[index], length, self.where(index))

    @property
    def successes(self) -> list[bool | None]:
        """Whether each episode ever succeeded; None where the dataset does not say."""
        return self._won

    @cached_property
    def _won(self) -> list[bool | None]:
        if SUCCESS not in self.features:
            return [None] * len(self.lengths)
        won: set[int] = set()
        for path in dict.fromkeys(self._data_file(i) for i in range(len(self.lengths))):
            table = _read_table(path, ["episode_index", SUCCESS])
            ever = _numeric(table.column(SUCCESS), len(table)).astype(bool).any(axis=1)
            won.update(table.column("episode_index").to_numpy()[ever].tolist())
        return [self._number(i) in won for i in range(len(self.lengths))]

    def where(self, index: int) -> str:
        """Name an episode for messages."""
        return f"'{self.root}' episode {index}"

    def _number(self, index: int) -> int:
        return int(self._rows[index]["episode_index"])

    def _data_file(self, index: int) -> Path:
        row = self._rows[index]
        chunk, file = row["data/chunk_index"], row["data/file_index"]
        return self.root / self._data_path.format(chunk_index=chunk, file_index=file)

    def _table(self, index: int, keys: list[str]) -> pa.Table:
        path = self._data_file(index)
        table = _read_table(path, keys, [("episode_index", "=", self._number(index))])
        if len(table) != self.lengths[index]:
            raise DatasetError(
                f"{self.where(index)} has {len(table)} rows in '{path}' instead of "
                f"{self.lengths[index]}; the file is truncated or stale, copy the dataset again"
            )
        return table

    def _image(self, item: Any, index: int, t: int, view: str) -> UInt8:
        try:
            data = item["bytes"]
            with PIL.Image.open(io.BytesIO(data) if data else self._inside(item["path"])) as image:
                limits.fits("the picture", image.width * image.height * 3, limits.MODEST)
                return np.asarray(image.convert("RGB"))
        except (OSError, TypeError, KeyError, ValueError, SyntaxError, *_TOO_LARGE) as error:
            raise DatasetError(
                f"view '{view}' of {self.where(index)}, frame {t} is missing or corrupt ({error}) "
                f"in '{self._data_file(index)}'; delete the episode or copy the dataset again"
            ) from error

    def _inside(self, path: str) -> Path:
        place = self.root / path
        if not place.resolve().is_relative_to(self.root.resolve()):
            raise ValueError(f"'{path}' lies outside the dataset")
        return place

    def _videos(self, index: int, key: str, rows: int) -> Iterator[UInt8]:
        times = self.column(index, "timestamp")[:, 0]
        for start in range(0, len(times), rows):
            yield self._video(index, key, times[start : start + rows])

    def _video(self, index: int, key: str, times: npt.NDArray[Any]) -> UInt8:
        from av.error import FFmpegError
        from lerobot.datasets.video_utils import decode_video_frames

        row = self._rows[index]
        chunk, file = row[f"videos/{key}/chunk_index"], row[f"videos/{key}/file_index"]
        path = self.root / self._video_path.format(
            video_key=key, chunk_index=chunk, file_index=file
        )
        times = times + row[f"videos/{key}/from_timestamp"]
        try:
            frames = decode_video_frames(
                path, times.tolist(), _TIMESTAMP_TOLERANCE, "pyav", return_uint8=True
            )
        except (OSError, ValueError, IndexError, FFmpegError) as error:
            raise DatasetError(
                f"video file '{path}' is missing, truncated or corrupt ({_line(error)}); "
                f"{self.where(index)} cannot be decoded: copy the file again or delete the episode"
            ) from error
        return np.ascontiguousarray(frames.numpy().transpose(0, 2, 3, 1))


def _read_info(root: Path) -> dict[str, Any]:
    path = root / "meta" / "info.json"
    try:
        info = json.loads(path.read_text())
        version = str(info["codebase_version"])
        absent = [key for key in ("features", "fps", "data_path") if key not in info]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DatasetError(
            f"'{path}' is missing, truncated or incomplete ({error!r}); copy the dataset again"
        ) from error
    if not version.startswith("v3."):
        raise DatasetError(
            f"'{root}' has LeRobot codebase version {version}, v3.x is needed; convert it with "
            f"'er data convert --input={root} --output={root}-v3 --format=lerobot'"
        )
    if absent:
        raise DatasetError(f"'{path}' lacks {', '.join(absent)}; copy the dataset again")
    _check_info(info, f"'{path}'")
    return info


def _check_info(info: dict[str, Any], where: str) -> None:
    """Refuse declarations that would fail far from here, or lead out of the dataset."""
    if check_fps(info["fps"], f"'fps' in {where}") is None:
        raise DatasetError(f"'fps' in {where} is null; give the recording's rate there")
    features = info["features"]
    if not isinstance(features, dict):
        raise DatasetError(f"'features' in {where} is no mapping; copy the dataset again")
    for key, feature in features.items():
        shape = feature.get("shape") if isinstance(feature, dict) else None
        whole = isinstance(shape, list | tuple) and all(type(n) is int and n >= 0 for n in shape)
        if shape is None or not whole or not isinstance(feature.get("dtype"), str):
            raise DatasetError(
                f"'{key}' in {where} declares no type or shape; copy the dataset again"
            )
        if _is_camera(feature) and (len(shape) != 3 or 0 in shape or max(shape) > limits.SIDE):
            raise DatasetError(
                f"'{key}' in {where} declares pictures of shape {list(shape)}; copy the dataset "
                "again"
            )
    for name in ("data_path", "video_path"):
        _check_template(info.get(name) or "", name, where)


def _check_template(template: Any, name: str, where: str) -> None:
    try:
        shown = template.format(chunk_index=0, file_index=0, video_key="view")
    except (AttributeError, KeyError, IndexError, ValueError):
        shown = None
    if shown is None or ".." in Path(shown).parts or Path(shown).is_absolute():
        raise DatasetError(
            f"'{name}' in {where} is {template!r}, which names no files of the dataset; "
            "copy the dataset again"
        )


def _recorded_info(root: Path) -> dict[str, Any]:
    """Return what our recorder or converter noted about the dataset."""
    found = staging.read_header(root).get("info") if staging.is_recording(root) else None
    return found if isinstance(found, dict) else {}


def _read_episodes(root: Path, declared: int | None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path in sorted((root / "meta" / "episodes").glob("*/*.parquet")):
        names = [n for n in _schema_names(path) if not n.startswith("stats/")]
        rows.extend(_read_table(path, names).to_pylist())
    if not rows:
        raise DatasetError(f"'{root}' holds no episodes; record some or choose another dataset")
    if declared is not None and declared != len(rows):
        raise DatasetError(
            f"'{root}/meta/info.json' declares {declared} episodes, meta/episodes lists "
            f"{len(rows)}; a file is missing or the recording was not finalised: copy it again"
        )
    return sorted(rows, key=lambda row: row["episode_index"])


def _schema_names(path: Path) -> list[str]:
    try:
        return pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise _corrupt(path, error) from error


def _read_table(path: Path, columns: list[str], filters: list[Any] | None = None) -> pa.Table:
    try:
        # A folder named a=b must not become a column, hence no partitioning.
        return pq.read_table(path, columns=columns, filters=filters, partitioning=None)  # pyright: ignore[reportArgumentType]
    except (OSError, pa.ArrowException) as error:
        raise _corrupt(path, error) from error


def _corrupt(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"parquet file '{path}' is missing, truncated or corrupt ({_line(error)}); "
        "copy the dataset again, or record it again if its recording was never finalised"
    )


def _numeric(column: pa.ChunkedArray, rows: int) -> npt.NDArray[Any]:
    array = column.combine_chunks()
    while hasattr(array, "flatten") and pa.types.is_nested(array.type):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(rows, -1)


def _is_camera(feature: dict[str, Any]) -> bool:
    info = {**(feature.get("video_info") or {}), **(feature.get("info") or {})}
    depth = info.get("is_depth_map") or info.get("video.is_depth_map")
    return feature["dtype"] in ("image", "video") and not depth


def _first(tasks: Any) -> str:
    return str(tasks[0]) if isinstance(tasks, list) and tasks else str(tasks or "")


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]}x{shape[1]}"


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
