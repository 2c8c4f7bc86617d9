"""Figures of a reward model: curves of one episode, and a summary beside the baselines."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embodied_reward.files import replacing
from embodied_reward.metrics import curves
from embodied_reward.metrics.comparison import HEADLINE, LOWER_IS_BETTER
from embodied_reward.metrics.judge import Judged
from embodied_reward.types import Episode, EpisodeScores

MODEL_COLOUR, OTHER_COLOUR, BASELINE_COLOUR = "#0072B2", "#56B4E9", "#B0B0B0"


def plot_episode(
    path: Path | str, episode: Episode, scores: EpisodeScores, *, title: str = ""
) -> Path:
    """Write a PNG: potential with its band and true progress above, modes and views below."""
    times = np.arange(len(episode)) / episode.fps
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    curves.draw(top, curves.headline_curves(episode, scores), times)
    low = np.clip(scores.potential - scores.uncertainty, 0, 1)
    high = np.clip(scores.potential + scores.uncertainty, 0, 1)
    colour = curves.COLOURS["potential"]
    top.fill_between(times, low, high, color=colour, alpha=0.18, linewidth=0, label="± 1 std")
    curves.draw(bottom, curves.detail_curves(scores), times)
    for axes in (top, bottom):
        curves.shade_success(axes, episode.success_frames, times)
        _legend(axes)
    top.set_title(title or f"{episode.task} - episode {episode.index}", fontsize=10)
    top.set_ylabel("progress, success")
    bottom.set_ylabel("modes and views")
    bottom.set_xlabel("time [s]")
    return _save(figure, Path(path))


def plot_summary(
    path: Path | str,
    table: Mapping[str, Mapping[str, Any]],
    judged: Sequence[Judged],
    *,
    models: int = 1,
) -> Path:
    """Write a PNG: every headline metric beside the baselines, and predicted against true.

    Args:
        path: PNG to write.
        table: name -> `metrics` of `evaluate`; the first `models` rows are reward models.
        judged: the episodes of the first model.
        models: how many rows are reward models.
    """
    columns = (len(HEADLINE) + 3) // 2
    figure = Figure(figsize=(3.0 * columns, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, columns)
    cells = [(r, c) for r in range(2) for c in range(columns - 1)]
    for (row, column), metric in zip(cells, HEADLINE, strict=False):
        axes = figure.add_subplot(grid[row, column])
        _bars(axes, metric, table, models, labels=column == 0)
    _against_truth(figure.add_subplot(grid[0, -1]), judged)
    _final_potentials(figure.add_subplot(grid[1, -1]), judged)
    return _save(figure, Path(path))


def _bars(
    axes: Axes,
    metric: str,
    table: Mapping[str, Mapping[str, Any]],
    models: int,
    *,
    labels: bool,
) -> None:
    names = list(table)
    colours = [MODEL_COLOUR] + [OTHER_COLOUR] * (models - 1)
    colours += [BASELINE_COLOUR] * (len(names) - models)
    for y, (name, colour) in enumerate(zip(names, colours, strict=True)):
        m = table[name][metric]
        if not math.isfinite(m["value"]):
            axes.text(0, y, " undefined", va="center", fontsize=7, color="#777777")
            continue
        axes.barh(y, m["value"], color=colour)
        if math.isfinite(m["low"]):
            axes.plot([m["low"], m["high"]], [y, y], color="#333333", linewidth=1)
    axes.set_yticks(range(len(names)), names if labels else [""] * len(names), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="#333333", linewidth=0.6)
    axes.set_title(metric + (" (lower is better)" if metric in LOWER_IS_BETTER else ""), fontsize=9)
    axes.tick_params(axis="x", labelsize=7)


def _against_truth(axes: Axes, judged: Sequence[Judged]) -> None:
    for j in judged:
        if len(j.progress):
            colour = curves.COLOURS["success" if j.episode.success else "backward"]
            axes.plot(j.progress, j.potential, ".", markersize=2, color=colour, alpha=0.5)
    axes.plot([0, 1], [0, 1], color="#333333", linewidth=0.8)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_xlabel("true progress", fontsize=8)
    axes.set_ylabel("potential", fontsize=8)
    axes.set_title("every frame", fontsize=9)
    axes.tick_params(labelsize=7)


def _final_potentials(axes: Axes, judged: Sequence[Judged]) -> None:
    groups = {"success": True, "failure": False}
    for x, success in enumerate(groups.values()):
        values = [j.potential[-1] for j in judged if j.episode.success is success]
        colour = curves.COLOURS["success" if success else "backward"]
        spread = np.linspace(-0.15, 0.15, len(values)) if len(values) > 1 else [0.0] * len(values)
        axes.plot(x + np.asarray(spread), values, "o", markersize=4, color=colour, alpha=0.7)
        axes.text(x, -0.02, f"n={len(values)}", ha="center", va="top", fontsize=7)
    axes.set_xticks(range(len(groups)), list(groups), fontsize=8)
    axes.set(xlim=(-0.5, len(groups) - 0.5), ylim=(-0.1, 1.05))
    axes.set_title("final potential", fontsize=9)
    axes.tick_params(labelsize=7)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, ncols=2, loc="upper left", framealpha=0.8)


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return path
