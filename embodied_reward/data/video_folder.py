"""A folder of videos as a dataset: demonstrations filmed with any camera, human hands included.

    FOLDER/*.mp4            one episode per file, seen by one camera called `video`
    FOLDER/CAMERA/*.mp4     a folder per camera; files of one name are one episode

Episodes come in the order of their names. Nothing is known of them but the pictures: no actions,
states, success or progress, and the folder's name is the task. Pictures whose shorter side exceeds
`LARGEST` are reduced while they are decoded.
"""

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from embodied_reward.data import schema
from embodied_reward.data.video import VIDEOS, frame_times, read_video
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8

VIEW = "video"
LARGEST = 256
"""Longest shorter side of a picture [px]."""
SAME_RATE = 0.05
"""Relative difference between frame rates that counts as none."""


class VideoFolder:
    """What `EpisodeSequence` needs of a source; see the module docstring and `LeRobotSource`.

    Raises:
        DatasetError: cameras with other episodes than the first one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files = _cameras(root)
        self.view_keys = {view: schema.IMAGES + view for view in self._files}
        first = next(iter(self._files))
        self._names = [file.stem for file in self._files[first]]
        for view, files in self._files.items():
            if [file.stem for file in files] != self._names:
                odd = sorted(set(self._names) ^ {file.stem for file in files})
                raise DatasetError(
                    f"'{root}' has the episodes {', '.join(odd[:3])} from only one of the cameras "
                    f"{first} and {view}; every camera folder needs the same file names"
                )
        self.tasks = [root.resolve().name.replace("_", " ")] * len(self._names)
        self.successes: list[bool | None] = [None] * len(self._names)

    @cached_property
    def fps(self) -> float:
        """Frames per second [Hz]. Raises DatasetError: files differ."""
        rates = {file: rate for files in self._facts.values() for file, (_, rate) in files}
        first = next(iter(rates.values()))
        for file, rate in rates.items():
            if abs(rate - first) > SAME_RATE * first:
                raise DatasetError(
                    f"'{file}' has {rate:.3g} frames per second and others have {first:.3g}; "
                    "bring them to one rate with 'ffmpeg -i IN -r RATE OUT'"
                )
        return first

    @cached_property
    def lengths(self) -> list[int]:
        """Frames of each episode. Raises DatasetError: cameras of one episode differ."""
        counts = {v: [count for _, (count, _) in files] for v, files in self._facts.items()}
        first = next(iter(counts))
        for view, found in counts.items():
            for n, (a, b) in enumerate(zip(counts[first], found, strict=True)):
                if a != b:
                    raise DatasetError(
                        f"episode '{self._names[n]}' of '{self.root}' has {a} frames from {first} "
                        f"and {b} from {view}; cut the clips of one episode to the same moments"
                    )
        return counts[first]

    @cached_property
    def _facts(self) -> dict[str, list[tuple[Path, tuple[int, float]]]]:
        """View -> per file the number and rate [Hz] of its frames."""
        return {view: [(f, _count(f)) for f in files] for view, files in self._files.items()}

    @cached_property
    def features(self) -> dict[str, dict[str, Any]]:
        """LeRobot's feature declarations of the pictures."""
        return {
            self.view_keys[view]: {"dtype": "video", "shape": self._shape(view)}
            for view in self._files
        }

    def size(self, view: str) -> tuple[int, int]:
        """Return the (height, width) of a view's pictures."""
        return self._shape(view)[:2]

    def columns(self, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Return LeRobot's numbers of the frames, of which alone there are any."""
        length = self.lengths[index]
        known = {
            "index": sum(self.lengths[:index]) + np.arange(length),
            "episode_index": np.full(length, index),
            "frame_index": np.arange(length),
        }
        return {key: known[key][:, None] for key in keys}

    def frames(self, index: int, view: str) -> UInt8:
        """Decode one view of one episode, UInt8["t h w 3"]. Raises DatasetError."""
        file = self._files[view][index]
        return np.stack(list(_read(file)))

    def keyframes(self, index: int) -> Int64 | None:
        """Return None: nothing is annotated."""
        return None

    def _shape(self, view: str) -> tuple[int, int, int]:
        height, width = next(_read(self._files[view][0])).shape[:2]
        return height, width, 3


def holds_videos(root: Path) -> bool:
    """Whether a folder is such a dataset, and no LeRobot one."""
    if not root.is_dir() or (root / "meta" / "info.json").is_file():
        return False
    return bool(_videos(root)) or any(_videos(f) for f in root.iterdir() if f.is_dir())


def _cameras(root: Path) -> dict[str, list[Path]]:
    if flat := _videos(root):
        return {VIEW: flat}
    folders = sorted(f for f in root.iterdir() if f.is_dir())
    return {folder.name: files for folder in folders if (files := _videos(folder))}


def _videos(folder: Path) -> list[Path]:
    return sorted(
        f for f in folder.iterdir()
        if f.suffix.lower() in VIDEOS and f.is_file() and not f.name.startswith(".")
    )  # fmt: skip


def _read(file: Path) -> Iterator[UInt8]:
    with _named(file):
        for frame, _ in read_video(file):
            yield _reduced(frame)


def _count(file: Path) -> tuple[int, float]:
    """Return number and rate [Hz] of a file's frames."""
    with _named(file):
        times = frame_times(file)
        if not len(times):
            raise DatasetError("no readable video (it has no frames)")
    seconds = float(times[-1] - times[0])
    return len(times), (len(times) - 1) / seconds if seconds > 0 else 1.0


@contextlib.contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except DatasetError as error:
        raise DatasetError(f"'{file}': {error}; copy it again or leave it out") from error


def _reduced(frame: UInt8) -> UInt8:
    """Return a picture whose shorter side is at most `LARGEST`."""
    if min(frame.shape[:2]) <= LARGEST:
        return frame
    height, width = frame.shape[:2]
    scale = LARGEST / min(height, width)
    size = (round(width * scale), round(height * scale))
    return np.asarray(PIL.Image.fromarray(frame).resize(size, PIL.Image.Resampling.BOX))
