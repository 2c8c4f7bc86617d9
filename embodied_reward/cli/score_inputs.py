"""Pictures and clips on disk, read block by block so that a long clip never fills the memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.scoring.clips import (
    PICTURES,
    VIDEOS,
    read_picture,
    read_spread,
    read_video,
)
from embodied_reward.types import UInt8

BLOCK_FRAMES = 256
BLOCK_BYTES = 128 << 20


@dataclass(frozen=True)
class Item:
    """What gets one score.

    Attributes:
        path: the file.
        frames: places in the block.
        times: of the frames in the clip [s]; empty for a picture.
    """

    path: Path
    frames: tuple[int, ...]
    times: tuple[float, ...] = ()


@dataclass
class Block:
    """Frames UInt8["h w 3"] that are in memory together, and the items made of them."""

    frames: list[UInt8] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Windows:
    """How a clip becomes items.

    Attributes:
        window: frames of a sliding window; 0 makes one item of the whole clip.
        stride: frames from one window to the next.
        frames: frames taken of a whole clip, evenly spread.
    """

    window: int = 0
    stride: int = 1
    frames: int = 8

    def __post_init__(self) -> None:
        """Refuse what makes no windows."""
        if self.window < 0 or self.stride < 1 or self.frames < 1:
            raise ConfigError(
                f"--window={self.window} --stride={self.stride} --frames={self.frames}: "
                "window may be 0, the others are at least 1"
            )


def find_files(paths: Iterable[str]) -> list[Path]:
    """Return the given files, and the pictures and videos in the given folders, by name.

    Raises:
        DatasetError: a path that is not there, or a folder without any.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        inside = sorted(f for f in path.iterdir() if _is_media(f)) if path.is_dir() else []
        if not inside:
            what = "holds no picture and no video" if path.is_dir() else "is not there"
            raise DatasetError(f"'{path}' {what}; give files or folders of {_kinds()}")
        found += inside
    return found


def is_video(path: Path) -> bool:
    """Whether a file's name says that it is a video."""
    return path.suffix.lower() in VIDEOS


def blocks(files: Iterable[Path], windows: Windows) -> Iterator[Block]:
    """Yield everything, in order; unreadable files are named in their block."""
    block = Block()
    for path in files:
        try:
            if not is_video(path):
                frame = read_picture(path)
                block.items.append(Item(path, (len(block.frames),)))
                block.frames.append(frame)
            elif windows.window == 0:
                _add_clip(block, path, windows.frames)
            else:
                if block.items or block.unreadable:
                    yield block
                    block = Block()
                yield from _slide(path, windows)
        except DatasetError as error:
            block.unreadable[path] = str(error)
        if is_full(block.frames):
            yield block
            block = Block()
    if block.items or block.unreadable:
        yield block


def is_full(frames: list[UInt8]) -> bool:
    """Whether frames should be scored before more are read."""
    return len(frames) >= BLOCK_FRAMES or sum(frame.nbytes for frame in frames) >= BLOCK_BYTES


def read_clip(path: Path, side: int = 0) -> tuple[UInt8, float]:
    """Return all frames UInt8["t h w 3"] and their rate [Hz]. Raises DatasetError.

    Args:
        path: the file.
        side: longer side to which larger pictures are reduced while they are read [px]; 0 keeps.
    """
    found = list(read_video(path, side=side))
    seconds = found[-1][1] - found[0][1]
    rate = (len(found) - 1) / seconds if seconds > 0 else 1.0  # some files name no times
    return np.stack([frame for frame, _ in found]), rate


def _add_clip(block: Block, path: Path, count: int) -> None:
    chosen = read_spread(path, count)
    first = len(block.frames)
    block.frames += [frame for frame, _ in chosen]
    places = tuple(range(first, len(block.frames)))
    block.items.append(Item(path, places, tuple(time for _, time in chosen)))


def _slide(path: Path, windows: Windows) -> Iterator[Block]:
    """Yield blocks of windows; frames that the next block's windows need are kept."""
    frames: list[UInt8] = []
    times: list[float] = []
    items: list[Item] = []
    first = start = 0  # number of frames[0], and of the next window's first frame
    for frame, time in read_video(path):
        frames.append(frame)
        times.append(time)
        while start + windows.window <= first + len(frames):
            items.append(_window(path, times, start - first, windows.window))
            start += windows.stride
        if items and is_full(frames):
            yield Block(frames, items)
            cut = min(start - first, len(frames))
            frames, times, items, first = frames[cut:], times[cut:], [], first + cut
    if start == 0 and frames:
        items.append(_window(path, times, 0, len(frames)))  # shorter than one window
    if items:
        yield Block(frames, items)


def _window(path: Path, times: list[float], at: int, length: int) -> Item:
    return Item(path, tuple(range(at, at + length)), tuple(times[at : at + length]))


def _is_media(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in (*PICTURES, *VIDEOS)


def _kinds() -> str:
    return ", ".join(s.removeprefix(".") for s in (*PICTURES, *VIDEOS))
