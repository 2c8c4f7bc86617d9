"""Videos with PyAV: write mp4 files, atomically; read frame by frame."""

from collections.abc import Container, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from embodied_reward.errors import DatasetError
from embodied_reward.files import replacing
from embodied_reward.types import Float64, UInt8

SIDE = 256
"""Longer side to which films are reduced for reward models, which look at no more [px]."""
VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")


def read_video(
    path: Path, chosen: Container[int] | None = None, side: int = 0
) -> Iterator[tuple[UInt8, float]]:
    """Yield upright frames UInt8["h w 3"] and their times [s], one after the other.

    Args:
        path: the file.
        chosen: numbers of the frames to yield; default all. Others are decoded and dropped.
        side: longer side to which larger pictures are reduced [px]; 0 keeps all.

    Raises:
        DatasetError: not readable, or without any frame.
    """
    number = -1
    try:
        with av.open(str(path)) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if chosen is None or number in chosen:
                    yield upright(frame, side), float(frame.time or 0.0)
    except (OSError, ValueError, IndexError, FFmpegError) as error:
        raise DatasetError(f"no readable video ({_reason(error)})") from error
    if number < 0:
        raise DatasetError("no readable video (it has no frames)")


def upright(frame: av.VideoFrame, side: int = 0) -> UInt8:
    """Return a decoded frame as players show it, UInt8["h w 3"].

    A telephone that is held upright writes lying pictures and says so in the file.

    Args:
        frame: from a decoder.
        side: longer side to which a larger picture is reduced, by averaging areas [px]; 0 keeps it.
    """
    turns, size = quarter_turns(frame), (frame.height, frame.width)
    height, width = reduced(size, side)
    if (height, width) != size:
        frame = frame.reformat(width, height, "rgb24", interpolation="AREA")
    return np.rot90(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), turns)


def quarter_turns(frame: av.VideoFrame) -> int:
    """Return how many quarter turns counter-clockwise make a decoded frame upright."""
    return round(frame.rotation / 90) % 4


def reduced(size: tuple[int, int], side: int) -> tuple[int, int]:
    """Return (height, width) with the longer one at most `side` [px]; 0 keeps `size`."""
    longest = max(size)
    if not 0 < side < longest:
        return size
    height, width = (max(1, round(s * side / longest)) for s in size)
    return height, width


def frame_times(path: Path) -> Float64:
    """Return the time of every frame [s], by decoding: headers of damaged files lie.

    Raises:
        DatasetError: not readable.
    """
    try:
        with av.open(str(path)) as container:
            times = [float(frame.time or 0.0) for frame in container.decode(video=0)]
    except (OSError, ValueError, IndexError, FFmpegError) as error:
        raise DatasetError(f"no readable video ({_reason(error)})") from error
    return np.array(times)


def write_video(path: Path | str, frames: Iterable[UInt8], fps: float) -> Path:
    """Write RGB frames UInt8["h w 3"] as H.264 at `fps` [Hz]; odd sides are padded by one pixel.

    Raises:
        DatasetError: no frames, or frames of different sizes.
    """
    path = Path(path)
    with replacing(path) as temporary:
        count = _encode(temporary, frames, fps)
        if count == 0:
            raise DatasetError(f"no frames to write to '{path}'")
    return path


def _encode(path: Path, frames: Iterable[UInt8], fps: float) -> int:
    count, stream = 0, None
    with av.open(str(path), "w") as container:
        for frame in frames:
            frame = _even(frame)
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
                stream.height, stream.width = frame.shape[:2]
                # yuv420p is what browsers play.
                stream.pix_fmt, stream.options = "yuv420p", {"crf": "18", "preset": "veryfast"}
            if frame.shape[:2] != (stream.height, stream.width):
                raise DatasetError(
                    f"frame {count} for '{path.name}' is {frame.shape[:2]}, "
                    f"the first was {(stream.height, stream.width)}"
                )
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            count += 1
        if stream is not None:
            container.mux(stream.encode())
    return count


def _even(frame: UInt8) -> UInt8:
    h, w = frame.shape[:2]
    return np.ascontiguousarray(np.pad(frame, ((0, h % 2), (0, w % 2), (0, 0)), mode="edge"))


def _reason(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return said[0] if said else type(error).__name__
