"""A clip's score over time, beneath a strip of its frames."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from embodied_reward.cli.score_output import Row
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing
from embodied_reward.types import UInt8

STRIP = 8
HEIGHT = 96
Thumbs = Mapping[str, list[tuple[float, UInt8]]]


def thumbnail(frame: UInt8) -> UInt8:
    """Return a frame at most `HEIGHT` px high."""
    import cv2

    h, w = frame.shape[:2]
    if h <= HEIGHT:
        return frame
    size = (max(round(w * HEIGHT / h), 1), HEIGHT)
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def plot_clips(rows: Sequence[Row], thumbs: Thumbs, path: Path, label: str) -> None:
    """Draw a line per clip, with gaps and marks where an item failed.

    Raises:
        ConfigError: no clip has two scores to draw a line between.
    """
    clips: dict[str, list[Row]] = {}
    for row in rows:
        if row.start is not None:
            clips.setdefault(row.path, []).append(row)
    if not any(sum(r.ok for r in found) > 1 for found in clips.values()):
        raise ConfigError(
            "--plot draws scores over time, and no clip has two: give a video and --window=1"
        )
    strip = len(clips) == 1 and bool(thumbs)
    figure = Figure(figsize=(9, 4.2 if strip else 3.2), layout="constrained")
    ratios = [1.0, 2.6] if strip else [1.0]
    grid = figure.add_gridspec(len(ratios), 1, height_ratios=ratios)
    if strip:
        _draw_strip(figure, grid[0], next(iter(thumbs.values())))
    axes = figure.add_subplot(grid[len(ratios) - 1])
    for name, found in clips.items():
        times = np.array([r.end for r in found])
        line = axes.plot(times, [r.score for r in found], lw=1.6, label=Path(name).name)[0]
        failed = np.array([not r.ok for r in found])
        axes.plot(
            times[failed], np.zeros(failed.sum()), "x", c=line.get_color(), ms=6, clip_on=False,
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set(xlabel="time of the last frame [s]", ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)
    if len(clips) > 1:
        axes.legend(frameon=False, fontsize="small")
    with replacing(path) as temporary:
        FigureCanvasAgg(figure).print_figure(temporary, dpi=120)


def _draw_strip(figure: Figure, where, frames: list[tuple[float, UInt8]]) -> None:  # noqa: ANN001
    places = np.linspace(0, len(frames) - 1, min(STRIP, len(frames))).round().astype(int)
    cells = where.subgridspec(1, len(places), wspace=0.04)
    for cell, place in zip(cells, places, strict=True):
        time, frame = frames[place]
        axes = figure.add_subplot(cell)
        axes.imshow(frame)
        axes.set_title(f"{time:.1f} s", fontsize="small")
        axes.axis("off")
