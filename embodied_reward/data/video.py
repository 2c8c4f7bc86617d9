"""Write mp4 files with PyAV, atomically."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.files import replacing
from embodied_reward.types import UInt8


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
