"""Convert a dataset of any format that is read into LeRobot v3, zarr or robomimic.

One episode at a time and a bounded number of pictures at a time; into a folder beside the output,
which is read back, compared with its source and then renamed. A kill leaves no half dataset.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from embodied_reward.data import legacy
from embodied_reward.data.dataset import open_source
from embodied_reward.data.formats.export import (
    frames_of,
    left_out,
    numeric_features,
    read_columns,
)
from embodied_reward.data.formats.layout import Layout
from embodied_reward.data.formats.source import Source
from embodied_reward.data.formats.write_lerobot import Storage, write_lerobot
from embodied_reward.data.formats.write_robomimic import write_robomimic
from embodied_reward.data.formats.write_zarr import pack, write_zarr
from embodied_reward.errors import DatasetError
from embodied_reward.files import fsync

Target = Literal["lerobot", "zarr", "robomimic"]
type Progress = Callable[[int, int], None]

_SUFFIX = ".converting"
_VIDEO_ERROR = 24.0  # mean absolute error of a frame, of 255, above which a codec lost the picture


@dataclass(frozen=True)
class Conversion:
    """What came out.

    Attributes:
        path: the dataset.
        episodes: number of episodes.
        frames: number of rows.
        left_out: keys that the target cannot hold or that are not read.
        picture_error: largest mean absolute error of a frame, of 255; 0 where pictures are
            lossless, None where nothing was compared (LeRobot's own upgrade is only decoded).
    """

    path: Path
    episodes: int
    frames: int
    left_out: tuple[str, ...]
    picture_error: float | None


def convert(
    source: str | Path | Source,
    output: str | Path,
    target: Target,
    *,
    layout: Layout | None = None,
    views: tuple[str, ...] = (),
    storage: Storage = "auto",
    verify: bool = True,
    progress: Callable[[str], Progress] | None = None,
) -> Conversion:
    """Convert the dataset at `source` into a new one at `output`.

    Args:
        source: any dataset that `open_dataset` reads, a LeRobot v2.1 folder, or a `Source`.
        output: where the dataset goes; must not exist. zarr: a name ending in `.zip` is packed.
        target: the format to write.
        layout: what the source does not say by itself.
        views: the views to carry; empty for all.
        storage: how LeRobot stores pictures: lossless `image`, `video`, or by size.
        verify: read the result back and compare it with the source.
        progress: given the name of a stage, returns what is called with (done, in all).

    Raises:
        DatasetError: the output exists, the source cannot be read, or the result differs.
        MissingDependencyError: a format's package is not installed.
    """
    output = Path(output)
    started = progress or (lambda _: _silent)
    with _workplace(output) as folder:
        reader = _open(source, folder, layout, views)
        upgraded = reader.root.parent == folder and target == "lerobot"
        if upgraded and not views and layout in (None, Layout()) and storage == "auto":
            place = reader.root  # as LeRobot wrote it: its videos were not encoded again
        else:
            place = _write(reader, folder, output, target, storage, started("writing"))
        error = _verify(reader, place, started("comparing")) if verify else None
        found = Conversion(
            output,
            len(reader.lengths),
            sum(reader.lengths),
            () if place == reader.root else (*left_out(reader), *_sidecars(reader)),
            None if place == reader.root else error,
        )
        _publish(place, output)
    return found


@contextmanager
def _workplace(output: Path) -> Iterator[Path]:
    """Own `<output>.converting` until the end; what a killed conversion left there goes."""
    if output.exists() or output.is_symlink():
        raise DatasetError(f"'{output}' already exists; choose another path with --output=PATH")
    folder = output.with_name(output.name + _SUFFIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise DatasetError(f"cannot write '{folder}': {error}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DatasetError(
            f"another process is converting into '{output}'; wait for it, or choose another path"
        ) from error
    try:
        for left in folder.iterdir():
            if left.name != ".lock":
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.close()


def _open(
    source: str | Path | Source, folder: Path, layout: Layout | None, views: tuple[str, ...]
) -> Source:
    if isinstance(source, str | Path):
        if legacy.is_legacy(Path(source)):
            source = legacy.upgrade(Path(source), folder / "upgraded")
        layout = layout or Layout()
        # A copy keeps what was filmed, unless it was asked to be smaller.
        reader = open_source(source, replace(layout, side=layout.side or 0))
    else:
        reader = source
    for view in views:
        if view not in reader.view_keys:
            known = ", ".join(reader.view_keys) or "none"
            raise DatasetError(f"'{source}' has no view '{view}'; its views: {known}")
    if views:
        reader.view_keys = {view: reader.view_keys[view] for view in views}
    return reader


def _write(
    reader: Source, folder: Path, output: Path, target: Target, storage: Storage, progress: Progress
) -> Path:
    place = folder / output.name
    try:
        if target == "lerobot":
            write_lerobot(reader, place, progress, name=output.name, storage=storage)
        elif target == "robomimic":
            write_robomimic(reader, place, progress)
        elif output.suffix == ".zip":
            write_zarr(reader, folder / "store", progress)
            pack(folder / "store", place)
        else:
            write_zarr(reader, place, progress)
    except OSError as error:
        raise DatasetError(
            f"could not write '{output}' ({error}); free space and run the command again"
        ) from error
    except (ValueError, RuntimeError, TypeError, KeyError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(
            f"the {target} writer refuses '{reader.root}' ({type(error).__name__}: {line}); "
            "convert to another format, or leave out the column that it names"
        ) from error
    return place


def _verify(reader: Source, place: Path, progress: Progress) -> float:
    """Compare what was written with its source; returns the largest error of a frame."""
    written = open_source(place)
    _same("the lengths of episodes", reader.lengths, written.lengths)
    _same("the tasks", reader.tasks, written.tasks)
    _same("the frame rate", reader.fps, written.fps)
    worst = 0.0
    for index in range(len(reader.lengths)):
        _compare_numbers(reader, written, index)
        for view in reader.view_keys:
            worst = max(worst, _compare_pictures(reader, written, index, view))
        progress(index + 1, len(reader.lengths))
    return worst


def _compare_numbers(reader: Source, written: Source, index: int) -> None:
    keys = list(numeric_features(reader))
    theirs = read_columns(written, index, keys)
    for key, rows in read_columns(reader, index, keys).items():
        if rows.shape != theirs[key].shape or not np.array_equal(rows, theirs[key]):
            raise _differs(f"'{key}' of episode {index}")


def _compare_pictures(reader: Source, written: Source, index: int, view: str) -> float:
    key = written.view_keys[view]
    lossless = written.features[key]["dtype"] == "image"
    limit, worst = 0.0 if lossless else _VIDEO_ERROR, 0.0
    pairs = zip(frames_of(reader, index, view), frames_of(written, index, view), strict=True)
    try:
        for t, (mine, theirs) in enumerate(pairs):
            if np.array_equal(mine, theirs):
                continue
            error = float(np.abs(mine.astype(np.int16) - theirs).mean())
            if mine.shape != theirs.shape or error > limit:
                raise _differs(f"view '{view}' of episode {index}, frame {t},")
            worst = max(worst, error)
    except ValueError as error:
        raise _differs(f"the number of frames of view '{view}' of episode {index}") from error
    return worst


def _publish(place: Path, output: Path) -> None:
    for path in [*(place.rglob("*") if place.is_dir() else []), place]:
        fsync(path)
    os.replace(place, output)
    fsync(output.absolute().parent)


def _sidecars(reader: Source) -> list[str]:
    """Sub-task boundaries in LeRobot's metadata have no place among the columns."""
    marked = any(reader.keyframes(i) is not None for i in range(len(reader.lengths)))
    return ["sub-task boundaries"] if marked else []


def _same(what: str, mine: object, theirs: object) -> None:
    if mine != theirs:
        raise _differs(what)


def _differs(what: str) -> DatasetError:
    return DatasetError(
        f"{what} did not arrive as in the source; nothing was kept. Check the disk and run the "
        "command again, or report this with the dataset's 'er data inspect'"
    )


def _silent(done: int, total: int) -> None:
    del done, total
