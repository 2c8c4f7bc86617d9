"""Overlay videos: camera views side by side, a panel of curves with a moving cursor below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from embodied_reward.data.video import write_video
from embodied_reward.metrics import curves
from embodied_reward.metrics.curves import Curve
from embodied_reward.types import Bool, Episode, EpisodeScores, UInt8

VIEW_SIDE = 256
"""Height of each view [px]."""
PANEL_HEIGHT, MIN_WIDTH, DPI = 208, 512, 100
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
DONE = (0, 158, 115)
INK = (30, 30, 30)


@dataclass(frozen=True)
class _Panel:
    """The drawn curves: image UInt8["h w 3"] and the plot's box in pixels."""

    image: UInt8
    left: int
    right: int
    top: int
    bottom: int


def write_overlay(
    path: Path | str, episode: Episode, scores: EpisodeScores, *, title: str = ""
) -> Path:
    """Write an mp4 of an episode with its scores at the episode's own fps."""
    frames = overlay_frames(
        episode.views,
        curves.headline_curves(episode, scores),
        fps=episode.fps,
        title=title or f"{episode.task} - episode {episode.index}",
        success_frames=episode.success_frames,
    )
    return write_video(path, frames, episode.fps)


def overlay_frames(
    views: Mapping[str, UInt8],
    lines: Sequence[Curve],
    *,
    fps: float,
    title: str,
    success_frames: Bool | None = None,
) -> Iterator[UInt8]:
    """Yield one picture UInt8["h w 3"] per frame; all have one size.

    Args:
        views: camera name -> UInt8["t h w 3"].
        lines: curves with t values each.
        fps: frames per second [Hz], for the time axis.
        title: text above the curves.
        success_frames: Bool["t"]; such frames get a green border.
    """
    length = len(next(iter(views.values())))
    width = max(sum(_scaled_width(v) for v in views.values()), MIN_WIDTH)
    panel = _draw_panel(lines, length, fps, title, width, success_frames)
    for t in range(length):
        done = success_frames is not None and bool(success_frames[t])
        top = _view_row({n: v[t] for n, v in views.items()}, width, done=done)
        yield np.concatenate([top, _panel_at(panel, lines, t, length)])


def _draw_panel(
    lines: Sequence[Curve],
    length: int,
    fps: float,
    title: str,
    width: int,
    success_frames: Bool | None,
) -> _Panel:
    figure = Figure(figsize=(width / DPI, PANEL_HEIGHT / DPI), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((44 / width, 0.17, 1 - 54 / width, 0.62))
    times = np.arange(length) / fps
    curves.draw(axes, list(lines), times)
    curves.shade_success(axes, success_frames, times)
    axes.tick_params(labelsize=7)
    axes.set_xlabel("time [s]", fontsize=7, labelpad=1)
    figure.text(0.5, 0.99, title, ha="center", va="top", fontsize=8)
    canvas.draw()
    image = np.asarray(canvas.buffer_rgba())[:, :, :3].copy()
    (left, bottom), (right, top) = axes.get_window_extent().get_points().astype(int)
    return _Panel(image, left, right, image.shape[0] - top, image.shape[0] - bottom)


def _panel_at(panel: _Panel, lines: Sequence[Curve], t: int, length: int) -> UInt8:
    """Return the panel at frame t: the future is faded, a cursor marks now."""
    image = panel.image.copy()
    x = panel.left + round((panel.right - panel.left) * t / max(length - 1, 1))
    future = image[panel.top : panel.bottom, x : panel.right]
    future[:] = future // 4 + 191
    cv2.line(image, (x, panel.top), (x, panel.bottom), INK, 1)
    _readouts(image, lines, t, (panel.left, panel.top - 7))
    return image


def _readouts(image: UInt8, lines: Sequence[Curve], t: int, at: tuple[int, int]) -> None:
    """Write each curve's value in the curve's colour, which spares the panel a legend."""
    x, y = at
    for line in lines:
        text = f"{line.label} {line.values[t]:.2f}"
        r, g, b = to_rgb(line.colour)
        _write(image, text, (x, y), (int(255 * r), int(255 * g), int(255 * b)))
        x += cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0] + 18


def _view_row(frames: Mapping[str, UInt8], width: int, *, done: bool) -> UInt8:
    row = np.concatenate([_labelled(f, n, done=done) for n, f in frames.items()], axis=1)
    spare = width - row.shape[1]
    sides = ((0, 0), (spare // 2, spare - spare // 2), (0, 0))
    return np.pad(row, sides, constant_values=255)


def _labelled(frame: UInt8, name: str, *, done: bool) -> UInt8:
    size = (_scaled_width(frame), VIEW_SIDE)
    enlarge = frame.shape[0] < VIEW_SIDE
    method = cv2.INTER_NEAREST if enlarge else cv2.INTER_AREA
    image: UInt8 = np.array(cv2.resize(frame, size, interpolation=method), np.uint8)
    image[:16] //= 3
    _write(image, name + ("   TASK DONE" if done else ""), (6, 12), (255, 255, 255))
    if done:
        cv2.rectangle(image, (1, 1), (size[0] - 2, size[1] - 2), DONE, 3)
    return image


def _scaled_width(view: UInt8) -> int:
    h, w = view.shape[-3:-1]
    return round(w * VIEW_SIDE / h)


def _write(
    image: UInt8, text: str, at: tuple[int, int], colour: tuple[int, int, int] = INK
) -> None:
    cv2.putText(image, text, at, FONT, FONT_SCALE, colour, 1, cv2.LINE_AA)
