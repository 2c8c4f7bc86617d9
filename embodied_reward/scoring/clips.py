"""Pictures and clips on disk as uint8 frames at their native size."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

from embodied_reward.data.video import VIDEOS, frame_times, read_video
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Clip:
    """One candidate: a picture, a video, or pictures in order.

    Attributes:
        parts: files, or encoded pictures.
        where: for messages, e.g. "prefs.jsonl line 3".
    """

    parts: tuple[Path | bytes, ...]
    where: str

    @property
    def is_video(self) -> bool:
        """Whether it is one file that holds a video."""
        part = self.parts[0]
        return len(self.parts) == 1 and isinstance(part, Path) and part.suffix.lower() in VIDEOS

    @property
    def nbytes(self) -> int:
        """Size as stored."""
        return sum(p.stat().st_size if isinstance(p, Path) else len(p) for p in self.parts)

    def frames(self, count: int) -> list[UInt8]:
        """Return at most `count` frames UInt8["h w 3"], upright RGB, evenly spread in time.

        Raises:
            DatasetError: a file is missing or not readable; names the line and the file.
        """
        if self.is_video:
            return self._video(count)
        return [self._picture(self.parts[i]) for i in spread(len(self.parts), count)]

    def _picture(self, part: Path | bytes) -> UInt8:
        try:
            return read_picture(part)
        except DatasetError as error:
            raise self._unreadable(part, error) from error

    def _video(self, count: int) -> list[UInt8]:
        path = self.parts[0]
        assert isinstance(path, Path)
        try:
            return [frame for frame, _ in read_spread(path, count)]
        except DatasetError as error:
            raise self._unreadable(path, error) from error

    def _unreadable(self, part: Path | bytes, error: DatasetError) -> DatasetError:
        what = "the stored bytes are" if isinstance(part, bytes) else f"'{part}' is"
        return DatasetError(f"{self.where}: {what} {error}; export it again or remove the line")


def read_picture(source: Path | bytes) -> UInt8:
    """Return UInt8["h w 3"], upright RGB, of a file or an encoded picture. Raises DatasetError."""
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with PIL.Image.open(stream) as image:
            return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB")).copy()
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
        raise DatasetError(f"no readable picture ({_reason(error)})") from error


def read_spread(path: Path, count: int) -> list[tuple[UInt8, float]]:
    """Return at most `count` frames of a video, evenly spread, with their times [s].

    Raises:
        DatasetError: not readable, or without any frame.
    """
    total = len(frame_times(path))
    return list(read_video(path, set(spread(total, count).tolist())))


def spread(total: int, count: int) -> Int64:
    """Return min(total, count) places: the middles of equal segments of 0..total-1."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def _reason(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
