"""Episodes as sheets of still pictures, which a page can play in step, frame by frame.

Stills rather than video files: at 64 px they are small and lossless, every browser draws them,
and clips that are drawn from one clock cannot drift apart.
"""

import io
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from embodied_reward.data import EpisodeSequence, schema
from embodied_reward.types import Int64, UInt8

COLUMNS, ROWS = 8, 8
"""Frames on a sheet."""
KEPT = 16
"""Encoded clips in memory."""


@dataclass(frozen=True)
class View:
    """One camera of a clip.

    Attributes:
        name: of the camera.
        width, height: of a frame [px].
        sheets: encoded pictures of up to `COLUMNS` x `ROWS` frames, row by row.
    """

    name: str
    width: int
    height: int
    sheets: tuple[bytes, ...]


@dataclass(frozen=True)
class Clip:
    """One episode, ready to be sent.

    Attributes:
        frames: how many pictures, evenly spread over the episode.
        seconds: from the first to the last of them [s].
        views: all cameras.
    """

    frames: int
    seconds: float
    views: tuple[View, ...]

    def facts(self) -> dict[str, Any]:
        """Return what a player must know, as plain JSON types."""
        views = [
            {"name": v.name, "width": v.width, "height": v.height, "sheets": len(v.sheets)}
            for v in self.views
        ]
        return {
            "frames": self.frames,
            "seconds": self.seconds,
            "columns": COLUMNS,
            "perSheet": COLUMNS * ROWS,
            "views": views,
        }


class ClipStore:
    """Encodes episodes when they are asked for and keeps the last few; safe among threads.

    Args:
        episodes: the dataset.
        side: longer side of a picture, at most [px].
        frames: pictures of an episode, at most.
    """

    def __init__(self, episodes: EpisodeSequence, *, side: int = 256, frames: int = 150) -> None:
        self._episodes, self._side, self._frames = episodes, side, frames
        self._places = {index: place for place, index in enumerate(episodes.indices)}
        self._clips: OrderedDict[int, Clip] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, index: int) -> Clip:
        """Return the clip of the episode with this index.

        Raises:
            KeyError: there is no such episode.
            DatasetError: its pictures cannot be decoded.
        """
        place = self._places[index]
        with self._lock:
            if index not in self._clips:
                self._clips[index] = self._make(place)
            self._clips.move_to_end(index)
            if len(self._clips) > KEPT:
                self._clips.popitem(last=False)
            return self._clips[index]

    def _make(self, place: int) -> Clip:
        episode = self._episodes[place]
        picks = _spread(len(episode), self._frames)
        views = tuple(
            _view(name, episode.views[name][picks], self._side) for name in self._episodes.views
        )
        return Clip(len(picks), (len(episode) - 1) / episode.fps, views)


def _spread(length: int, count: int) -> Int64:
    return np.round(np.linspace(0, length - 1, min(length, count))).astype(np.int64)


def _view(name: str, frames: UInt8, side: int) -> View:
    scale = min(1.0, side / max(frames.shape[1:3]))
    height, width = (max(1, round(s * scale)) for s in frames.shape[1:3])
    chunks = range(0, len(frames), COLUMNS * ROWS)
    sheets = tuple(_sheet(frames[c : c + COLUMNS * ROWS], height, width) for c in chunks)
    return View(name, width, height, sheets)


def _sheet(frames: UInt8, height: int, width: int) -> bytes:
    rows = math.ceil(len(frames) / COLUMNS)
    sheet = PIL.Image.new("RGB", (min(COLUMNS, len(frames)) * width, rows * height))
    for k, frame in enumerate(frames):
        tile = PIL.Image.fromarray(np.ascontiguousarray(frame))
        if tile.size != (width, height):
            tile = tile.resize((width, height), PIL.Image.Resampling.BOX)
        sheet.paste(tile, (k % COLUMNS * width, k // COLUMNS * height))
    buffer = io.BytesIO()
    if max(height, width) <= schema.LOSSLESS_SIZE:
        sheet.save(buffer, format="PNG", compress_level=1)
    else:
        sheet.save(buffer, format="JPEG", quality=90)
    return buffer.getvalue()
