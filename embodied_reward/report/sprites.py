"""Pictures inside the page: WebP data URIs, alone or many on one sheet."""

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import PIL.Image

from embodied_reward.metrics.edits import resized
from embodied_reward.types import Int64, UInt8

COLUMNS = 8
"""Frames per row of a sheet."""

# (frames, side [px], WebP quality): from generous to frugal.
STEPS = ((80, 192, 92), (60, 160, 78), (48, 128, 74), (36, 112, 70), (24, 96, 64), (16, 80, 56))


@dataclass(frozen=True)
class Sheet:
    """The frames of one view on one picture, row by row.

    Attributes:
        view: camera name.
        uri: `data:image/webp;base64,...`.
        width, height: of one frame [px].
    """

    view: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Film:
    """Some frames of an episode, the same ones of every view.

    Attributes:
        frames: Int64["n"], their indices.
        sheets: one per view.
    """

    frames: Int64
    sheets: tuple[Sheet, ...]

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return sum(len(sheet.uri) for sheet in self.sheets)


def film(views: Mapping[str, UInt8], *, limit: int) -> Film:
    """Return an episode's frames in at most `limit` bytes where the most frugal step allows it.

    Args:
        views: view -> UInt8["t h w 3"].
        limit: bytes of all data URIs together.
    """
    made = None
    for count, side, quality in STEPS:
        made = _film(views, count, side, quality)
        if made.size <= limit:
            break
    assert made is not None
    return made


def picture_uri(picture: UInt8, *, side: int = 128, quality: int = 82) -> str:
    """Return a picture UInt8["h w 3"] as a data URI, shrunk to `side` [px] if larger."""
    return _webp(resized(picture, *_fit(picture.shape[0], picture.shape[1], side)), quality)


def _film(views: Mapping[str, UInt8], count: int, side: int, quality: int) -> Film:
    length = len(next(iter(views.values())))
    frames = np.unique(np.round(np.linspace(0, length - 1, min(count, length))).astype(np.int64))
    sheets = tuple(_sheet(view, clip[frames], side, quality) for view, clip in views.items())
    return Film(frames, sheets)


def _sheet(view: str, clip: UInt8, side: int, quality: int) -> Sheet:
    height, width = _fit(clip.shape[1], clip.shape[2], side)
    rows = math.ceil(len(clip) / COLUMNS)
    sheet = np.zeros((rows * height, min(COLUMNS, len(clip)) * width, 3), np.uint8)
    for k, frame in enumerate(clip):
        top, left = k // COLUMNS * height, k % COLUMNS * width
        sheet[top : top + height, left : left + width] = resized(frame, height, width)
    return Sheet(view, _webp(sheet, quality), width, height)


def _fit(height: int, width: int, side: int) -> tuple[int, int]:
    scale = min(1.0, side / max(height, width))
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _webp(picture: UInt8, quality: int) -> str:
    buffer = io.BytesIO()
    PIL.Image.fromarray(picture).save(buffer, format="WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
