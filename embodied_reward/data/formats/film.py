"""One mp4 file, read upright and, where it is large, reduced while it is decoded."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import av.video

from embodied_reward.data.formats import limits
from embodied_reward.data.video import quarter_turns, reduced, upright
from embodied_reward.errors import DatasetError
from embodied_reward.types import UInt8


@dataclass(frozen=True)
class Film:
    """What a video's header and its first frame say.

    Attributes:
        path: the file.
        frames: how many it declares.
        filmed: (height, width) of the upright picture [px].
        fps: frames per second [Hz].
        turns: quarter turns counter-clockwise that make the stored picture upright.
    """

    path: Path
    frames: int
    filmed: tuple[int, int]
    fps: float
    turns: int

    def size(self, side: int) -> tuple[int, int]:
        """Return (height, width) with the longer side at most `side` [px]; 0 keeps all."""
        return reduced(self.filmed, side)

    def decode(self, side: int) -> Iterator[UInt8]:
        """Yield upright frames UInt8["h w 3"] of `size(side)`, one after the other.

        Only the decoder's own pictures are ever held at the filmed size.

        Raises:
            DatasetError: the file is damaged, or its pictures change their size.
        """
        stored = _turned(self.filmed, self.turns)
        with _opened(self.path) as container:
            try:
                for frame in container.decode(video=0):
                    if (frame.height, frame.width) != stored:
                        raise DatasetError(
                            f"video '{self.path}' changes its size from {stored[0]}x{stored[1]} "
                            f"to {frame.height}x{frame.width}; record each size apart"
                        )
                    yield upright(frame, side)
            except (av.error.FFmpegError, ValueError) as error:
                raise _corrupt(self.path, error) from error


def probe(path: Path) -> Film:
    """Read a video's header. Raises DatasetError: missing, damaged, or without pictures."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context  # None where the codec's name is damaged
        size = (codec.height, codec.width) if codec else (0, 0)
        if not 0 < min(size) <= max(size) <= limits.SIDE:
            raise DatasetError(
                f"video '{path}' declares pictures of {size[0]}x{size[1]} pixels; "
                "it is damaged: copy it again"
            )
        # Some containers do not count; packets do.
        frames = stream.frames or sum(1 for p in container.demux(stream) if p.size)
        fps = float(stream.average_rate or 0)
    turns = _quarter_turns(path)
    return Film(path, int(frames), _turned(size, turns), fps, turns)


def _quarter_turns(path: Path) -> int:
    """Return by how much players turn the picture; a damaged first frame is found on reading."""
    with contextlib.suppress(av.error.FFmpegError, ValueError), _opened(path) as container:
        for frame in container.decode(video=0):
            return quarter_turns(frame)
    return 0


def _turned(size: tuple[int, int], turns: int) -> tuple[int, int]:
    height, width = size
    return (width, height) if turns % 2 else size


def _opened(path: Path) -> Any:
    # A list of other files (HLS, concat) is no video: formats that name files are not tried.
    try:
        container = av.open(str(path), format="mp4")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise _corrupt(path, error) from error
    if not container.streams.video:
        container.close()
        raise DatasetError(f"video '{path}' has no pictures; copy it again or delete the episode")
    return container


def _corrupt(path: Path, error: Exception) -> DatasetError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return DatasetError(
        f"video '{path}' is missing, truncated or corrupt ({line}); "
        "copy it again or delete the episode"
    )
