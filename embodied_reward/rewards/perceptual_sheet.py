"""Pictures of discovered steps: the middle frame of each in every demonstration, and the reward."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embodied_reward.files import replacing
from embodied_reward.types import Episode, Float64, Int64, UInt8
from embodied_reward.vision.frames import pictures_at

COLOURS = ("#E8E8E8", "#56B4E9", "#009E73", "#F0E442", "#E69F00", "#D55E00", "#CC79A7")
"""Of the steps, for every kind of colour vision; the first one earns nothing."""
TILE = 1.25  # height of a picture [in]
CURVE = 4.2  # width of a curve [in]

type Row = tuple[Episode, Int64, Float64]
"""Episode, boundaries Int64["g+1"] in rows, potential Float64["t"]."""


def write_sheet(path: Path, rows: Sequence[Row], views: Sequence[str]) -> Path:
    """Write a PNG: one row per demonstration.

    Args:
        path: PNG to write.
        rows: demonstrations with the same number of steps.
        views: cameras, one below the other.
    """
    steps = len(rows[0][1]) - 1
    tiles = [_tiles(episode, views, _middles(bounds)) for episode, bounds, _ in rows]
    wide = TILE * max(shown[0].shape[1] / shown[0].shape[0] for shown in tiles)
    size = (steps * wide * len(views) + CURVE, len(rows) * (TILE * len(views) + 0.45) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(
        len(rows), steps + 1, width_ratios=[1.0] * steps + [CURVE / wide / len(views)]
    )
    for r, (episode, bounds, potential) in enumerate(rows):
        for g in range(steps):
            axes = figure.add_subplot(grid[r, g])
            _draw_step(axes, tiles[r][g], bounds, g)
            if g == 0:
                axes.set_ylabel(f"episode {episode.index}", fontsize=8)
        _draw_curve(figure.add_subplot(grid[r, steps]), episode, bounds, potential)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def write_steps(path: Path, rows: Sequence[tuple[Episode, Int64]]) -> Path:
    """Write JSON: per demonstration its source, index, length, and the first row of every step."""
    found = [
        {
            "source": episode.source,
            "episode": episode.index,
            "length": len(episode),
            "fps": episode.fps,
            "first_rows": bounds[:-1].tolist(),
        }
        for episode, bounds in rows
    ]
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")
    return path


def _draw_step(axes: Axes, picture: UInt8, bounds: Int64, step: int) -> None:
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_color(_colour(step))
        side.set_linewidth(2.5)
    axes.set_title(f"step {step + 1}: rows {bounds[step]}-{bounds[step + 1] - 1}", fontsize=7)


def _draw_curve(axes: Axes, episode: Episode, bounds: Int64, potential: Float64) -> None:
    times = np.arange(len(episode)) / episode.fps
    for g, (first, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        axes.axvspan(first / episode.fps, end / episode.fps, color=_colour(g), alpha=0.35, lw=0)
    axes.plot(times, potential, color="black", lw=1.4, label="potential")
    if episode.progress is not None:
        axes.plot(times, episode.progress, color="#0072B2", lw=1.0, ls="--", label="true progress")
    axes.set_xlim(0, len(episode) / episode.fps)
    axes.set_ylim(-0.03, 1.03)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("time [s]", fontsize=7)
    axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def _middles(bounds: Int64) -> list[int]:
    return ((bounds[:-1] + bounds[1:] - 1) // 2).tolist()


def _tiles(episode: Episode, views: Sequence[str], rows: Sequence[int]) -> list[UInt8]:
    """Return the pictures of all views at every row, one below the other at one width."""
    shown = [pictures_at(episode, view, rows) for view in views if view in episode.views]
    width = max(pictures.shape[2] for pictures in shown)
    stacks = zip(*shown, strict=True)
    return [np.concatenate([_widened(p, width) for p in pictures]) for pictures in stacks]


def _widened(picture: UInt8, width: int) -> UInt8:
    short = width - picture.shape[1]
    return np.pad(picture, ((0, 0), (0, short), (0, 0)), constant_values=255)


def _colour(step: int) -> str:
    return COLOURS[0] if step == 0 else COLOURS[1 + (step - 1) % (len(COLOURS) - 1)]
