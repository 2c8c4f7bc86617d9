"""The picture of `er variations`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from embodied_reward.files import replacing
from embodied_reward.types import UInt8

_LABEL, _CAPTION, _GAP, _TITLE = 112, 15, 4, 24  # [px]
_PAPER, _INK, _RELEVANT = (250, 250, 250), (30, 30, 30), (170, 40, 30)


@dataclass(frozen=True)
class Tile:
    """One picture UInt8["h w 3"] and the line under it."""

    picture: UInt8
    caption: str


@dataclass(frozen=True)
class Row:
    """One factor.

    Attributes:
        factor: its name.
        irrelevant: whether it changes pictures only.
        tiles: left to right.
    """

    factor: str
    irrelevant: bool
    tiles: Sequence[Tile]


def draw_sheet(rows: Sequence[Row], path: Path, *, title: str) -> Path:
    """Write the PNG. Raises OSError where it cannot be written."""
    pictures = [_row(row) for row in rows]
    width = max([_LABEL, *(p.width for p in pictures)])
    height = _TITLE + sum(p.height for p in pictures)
    sheet = PIL.Image.new("RGB", (width, height), _PAPER)
    PIL.ImageDraw.Draw(sheet).text((6, 4), title, fill=_INK, font=_font(13))
    top = _TITLE
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)
    return path


def _row(row: Row) -> PIL.Image.Image:
    height, width = row.tiles[0].picture.shape[:2]
    size = (_LABEL + len(row.tiles) * (width + _GAP), height + _CAPTION + _GAP)
    picture = PIL.Image.new("RGB", size, _PAPER)
    draw = PIL.ImageDraw.Draw(picture)
    draw.text((6, 6), row.factor, fill=_INK, font=_font(13))
    kind, colour = ("looks", _INK) if row.irrelevant else ("dynamics", _RELEVANT)
    draw.text((6, 24), kind, fill=colour, font=_font(11))
    for i, tile in enumerate(row.tiles):
        left = _LABEL + i * (width + _GAP)
        picture.paste(PIL.Image.fromarray(tile.picture), (left, 0))
        draw.text((left, height + 1), tile.caption, fill=_INK, font=_font(11))
    return picture


def _font(size: int) -> PIL.ImageFont.ImageFont | PIL.ImageFont.FreeTypeFont:
    return PIL.ImageFont.load_default(size)
