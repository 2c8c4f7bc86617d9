"""Pictures and clips on disk as uint8 frames at their native size."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import PIL.Image
import PIL.ImageOps
from av.error import FFmpegError

from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")


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
            source = io.BytesIO(part) if isinstance(part, bytes) else part
            with PIL.Image.open(source) as image:
                return np.asarray(PIL.ImageOps.exif_transpose(image).convert("RGB")).copy()
        except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError) as error:
            raise self._unreadable(part, "picture", error) from error

    def _video(self, count: int) -> list[UInt8]:
        path = self.parts[0]
        try:
            total = sum(1 for _ in _decode(path))
            wanted = set(spread(total, count).tolist())
            found: list[UInt8] = [
                np.asarray(f.to_ndarray(format="rgb24"), np.uint8)
                for i, f in enumerate(_decode(path))
                if i in wanted
            ]
        except (OSError, ValueError, IndexError, FFmpegError) as error:
            raise self._unreadable(path, "video", error) from error
        if not found:
            raise self._unreadable(path, "video", ValueError("it has no frames"))
        return found

    def _unreadable(self, part: Path | bytes, kind: str, error: Exception) -> DatasetError:
        what = "the stored bytes are" if isinstance(part, bytes) else f"'{part}' is"
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return DatasetError(
            f"{self.where}: {what} no readable {kind} ({reason}); export it again or "
            "remove the line"
        )


def spread(total: int, count: int) -> Int64:
    """Return min(total, count) places: the middles of equal segments of 0..total-1."""
    count = min(total, count)
    return ((np.arange(count) + 0.5) * total / max(count, 1)).astype(np.int64)


def _decode(path: Path | bytes) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        yield from container.decode(video=0)
