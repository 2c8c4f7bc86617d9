"""Which curves of an episode are drawn, and how; shared by the figures and the videos."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from embodied_reward.types import Bool, Episode, EpisodeScores, Float64

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = {
    "potential": "#0072B2",
    "success": "#009E73",
    "true progress": "#000000",
    "incremental": "#E69F00",
    "forward": "#56B4E9",
    "backward": "#CC79A7",
    "mean": "#999999",
    "anchored": "#5D3A9B",
    "median": "#D55E00",
    "variance": "#8C8C00",
    "gated": "#E6004C",
    "weighted": "#00529B",
}
VIEW_COLOURS = ("#D55E00", "#8C564B", "#7F7F7F", "#BCBD22")
SUCCESS_SHADE = "#009E73"


@dataclass(frozen=True)
class Curve:
    """One line of a plot: values Float64["t"], mostly in [0, 1]."""

    label: str
    values: Float64
    colour: str
    width: float = 1.0
    style: str = "-"


def headline_curves(episode: Episode, scores: EpisodeScores) -> list[Curve]:
    """Return the potential and, where known, the success probability and the true progress."""
    curves = [Curve("potential", scores.potential, COLOURS["potential"], 2.2)]
    if np.isfinite(scores.success).any():
        curves.append(Curve("success", scores.success, COLOURS["success"], 1.4))
    if episode.progress is not None:
        true = np.asarray(episode.progress, np.float64)
        curves.append(Curve("true progress", true, COLOURS["true progress"], 1.2, "--"))
    return curves


def detail_curves(scores: EpisodeScores) -> list[Curve]:
    """Return one thin line per inference mode and one dotted line per view.

    The mode that *is* the potential is left out: it is drawn as such.
    """
    modes = [
        Curve(name, values, COLOURS.get(name, "#555555"))
        for name, values in scores.modes.items()
        if not np.array_equal(values, scores.potential)
    ]
    return modes + _view_curves(scores.per_view)


def draw(axes: Axes, curves: list[Curve], times: Float64) -> None:
    """Draw curves over times Float64["t"] [s] on axes that span [0, 1]."""
    for curve in curves:
        axes.plot(
            times,
            curve.values,
            curve.style,
            color=curve.colour,
            linewidth=curve.width,
            label=curve.label,
        )
    axes.set_ylim(-0.04, 1.04)
    axes.set_xlim(times[0], max(times[-1], times[0] + 1e-6))
    axes.grid(alpha=0.25, linewidth=0.5)


def shade_success(axes: Axes, success_frames: Bool | None, times: Float64) -> None:
    """Shade the times at which the frame satisfies the task."""
    if success_frames is not None and success_frames.any():
        axes.fill_between(
            times,
            0,
            1,
            where=list(success_frames),
            color=SUCCESS_SHADE,
            alpha=0.15,
            linewidth=0,
            transform=axes.get_xaxis_transform(),
            label="task done",
        )


def _view_curves(per_view: Mapping[str, Float64]) -> list[Curve]:
    return [
        Curve(f"view {name}", values, VIEW_COLOURS[i % len(VIEW_COLOURS)], 1.0, ":")
        for i, (name, values) in enumerate(per_view.items())
    ]
