"""Write a diffusion-policy replay buffer: zarr format 2, a folder or a zip.

Format 2 because the training code of diffusion policy and UMI uses zarr 2. Pictures are compressed
without loss.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward.data import schema
from embodied_reward.data.formats import record
from embodied_reward.data.formats.export import (
    Part,
    plan_export,
    read_columns,
)
from embodied_reward.data.formats.source import Source
from embodied_reward.errors import MissingDependencyError

_NAMES = {
    schema.STATE: "state",
    schema.ENVIRONMENT_STATE: "environment_state",
    schema.ACTION: "action",
    schema.REWARD: "reward",
    schema.DONE: "done",
    schema.SUCCESS: "success",
    schema.PROGRESS: "progress",
}
_CHUNK = 2**20  # decoded size of a chunk [byte]


def write_zarr(source: Source, place: Path, progress: Callable[[int, int], None]) -> None:
    """Write every episode of `source` as a store in the new folder `place`.

    Raises:
        DatasetError: a number that is not finite, or a name that cannot be stored.
        MissingDependencyError: zarr is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise MissingDependencyError(
            "writing zarr needs zarr; pip install 'embodied-reward[formats]'"
        ) from error
    planned = plan_export(source, _NAMES, "")
    features, parts, views = planned.features, planned.parts, planned.views
    root = zarr.open_group(str(place), mode="w", zarr_format=2)
    data, ends = root.create_group("data"), np.cumsum(source.lengths)
    arrays = _create(data, source, features, parts, views)
    for index in range(len(source.lengths)):
        _write_episode(arrays, source, index, int(ends[index]), parts, views)
        progress(index + 1, len(source.lengths))
    tasks = sorted(set(source.tasks))
    meta = root.create_group("meta")
    _add(meta, "episode_ends", ends.astype(np.int64))
    _add(meta, "task_index", np.array([tasks.index(t) for t in source.tasks], np.int64))
    root.attrs[record.NAME] = planned.noted(source) | {"tasks": tasks}


def pack(folder: Path, path: Path) -> None:
    """Put a store into a zip, uncompressed: its chunks are compressed already."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            # A fixed date makes the same data the same bytes.
            entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
            with file.open("rb") as content, archive.open(entry, "w") as out:
                while piece := content.read(_CHUNK):
                    out.write(piece)


def _create(
    data: Any,
    source: Source,
    features: dict[str, dict[str, Any]],
    parts: dict[str, list[Part]],
    views: dict[str, str],
) -> dict[str, Any]:
    total = sum(source.lengths)
    rows = {
        part.name: (part.shape, np.dtype(features[key]["dtype"]))
        for key, group in parts.items()
        for part in group
    }
    rows |= {name: ((*source.size(v), 3), np.dtype(np.uint8)) for v, name in views.items()}
    return {name: _array(data, name, total, *row) for name, row in rows.items()}


def _array(group: Any, name: str, total: int, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    from numcodecs import Blosc

    size = max(1, int(np.prod(shape)) * dtype.itemsize)
    return group.create_array(
        name,
        shape=(total, *shape),
        chunks=(min(total, max(1, _CHUNK // size)), *shape),
        dtype=dtype,
        compressors=Blosc("zstd", clevel=3, shuffle=Blosc.SHUFFLE),
        # A chunk that is not there then always means that something was lost.
        config={"write_empty_chunks": True},
    )


def _add(group: Any, name: str, values: np.ndarray) -> None:
    _array(group, name, len(values), (), values.dtype)[:] = values


def _write_episode(
    arrays: dict[str, Any],
    source: Source,
    index: int,
    end: int,
    parts: dict[str, list[Part]],
    views: dict[str, str],
) -> None:
    start = end - source.lengths[index]
    for key, rows in read_columns(source, index, list(parts)).items():
        for part in parts[key]:
            values = rows[:, part.start : part.stop].reshape(len(rows), *part.shape)
            arrays[part.name][start:end] = values
    for view, name in views.items():
        row = start
        for block in source.blocks(index, view):
            arrays[name][row : row + len(block)] = block
            row += len(block)
