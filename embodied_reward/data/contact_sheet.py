"""One picture of a dataset: a row per episode and view, frames left to right in time."""

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from embodied_reward.data.dataset import EpisodeSequence
from embodied_reward.data.inspect import spread
from embodied_reward.files import replacing
from embodied_reward.types import Episode, UInt8

_TILE = 112  # height of a tile [px]
_LABEL = 150  # width of the label column [px]
_CAPTION = 16  # height of the line under a tile [px]
_GAP = 4
_PAPER, _INK, _WON, _LOST = (250, 250, 250), (30, 30, 30), (0, 110, 50), (170, 40, 30)


def contact_sheet(
    episodes: EpisodeSequence, path: Path | str, *, count: int = 4, columns: int = 8
) -> Path:
    """Write a PNG of `count` episodes, spread over the dataset, `columns` frames each.

    Under each frame stand its index and, where the dataset knows it, the true progress; frames
    that satisfy the task are marked.

    Raises:
        DatasetError: an episode that cannot be decoded.
        OSError: the picture cannot be written.
    """
    rows = [
        _row(episode, view, columns)
        for episode in (episodes[i] for i in spread(count, len(episodes)))
        for view in episodes.views
    ]
    sheet = PIL.Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), _PAPER)
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    path = Path(path)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def _row(episode: Episode, view: str, columns: int) -> PIL.Image.Image:
    frames = episode.views[view]
    times = spread(columns, len(frames))
    tiles = [_tile(frames[t]) for t in times]
    step = tiles[0].width + _GAP
    row = PIL.Image.new("RGB", (_LABEL + columns * step, _TILE + _CAPTION + _GAP), _PAPER)
    draw = PIL.ImageDraw.Draw(row)
    _label(draw, episode, view)
    for i, (t, tile) in enumerate(zip(times, tiles, strict=True)):
        row.paste(tile, (_LABEL + i * step, 0))
        won = episode.success_frames is not None and bool(episode.success_frames[t])
        where = (_LABEL + i * step, _TILE + 1)
        draw.text(where, _caption(episode, t, won), fill=_WON if won else _INK, font=_font(11))
    return row


def _label(draw: PIL.ImageDraw.ImageDraw, episode: Episode, view: str) -> None:
    end = {True: "success", False: "failure", None: "unknown end"}[episode.success]
    colour = {True: _WON, False: _LOST, None: _INK}[episode.success]
    draw.text((6, 6), f"episode {episode.index}", fill=_INK, font=_font(13))
    draw.text((6, 24), view, fill=_INK, font=_font(13))
    draw.text((6, 42), end, fill=colour, font=_font(13))
    draw.text((6, 60), f"{len(episode) / episode.fps:.1f} s", fill=_INK, font=_font(13))


def _caption(episode: Episode, t: int, won: bool) -> str:
    progress = "" if episode.progress is None else f"  p {episode.progress[t]:.2f}"
    return f"{t}{progress}{' *' if won else ''}"


def _tile(frame: UInt8) -> PIL.Image.Image:
    height, width = frame.shape[:2]
    size = (max(1, round(width * _TILE / height)), _TILE)
    # Small pictures are shown as the model sees them: enlarged without smoothing.
    how = PIL.Image.Resampling.NEAREST if height < _TILE else PIL.Image.Resampling.BOX
    return PIL.Image.fromarray(np.ascontiguousarray(frame)).resize(size, how)


def _font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    return PIL.ImageFont.load_default(size)
