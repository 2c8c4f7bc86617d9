"""The printed table of `er eval-reward`: models beside every baseline, 80 columns wide."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from embodied_reward.metrics.comparison import BY_DEFINITION, HEADLINE, beaten_by, best
from embodied_reward.metrics.judge import Judged

COLUMNS = {
    "voc_plus": "VOC+",
    "voc_minus": "VOC-",
    "voc_min": "VOC",
    "mae": "MAE",
    "spearman": "rho",
    "spearman_episode": "rho/e",
    "hop_sign_accuracy": "hop±",
    "success_auc": "AUC",
    "frame_success_auc": "AUC/f",
    "success_gap": "gap",
}

LEGEND = """\
VOC     order with time, the smaller of VOC+ and VOC- (frames swapped); successes only
MAE     mean absolute error to true progress, lower is better
rho     Spearman with true progress, all frames pooled; rho/e: mean over episodes
hop±    share of frame pairs whose direction is right
AUC     final frame's success probability tells successes; AUC/f: frame by frame
gap     mean final potential of successes minus that of failures"""

Metrics = Mapping[str, Mapping[str, float]]


def print_table(
    table: Mapping[str, Metrics],
    judged: Sequence[Judged],
    reference: str,
    *,
    models: Mapping[str, str],
) -> None:
    """Print the headline metrics.

    Args:
        table: name -> `metrics` of `evaluate`.
        judged: the episodes, as one of the models saw them.
        reference: where the goal picture of `pixel distance` comes from.
        models: name -> path of those rows that are reward models; the others are baselines.
    """
    console = Console()
    console.print(_heading(judged, reference), highlight=False, soft_wrap=True)
    console.print(_grid(table, models))
    sources = [f"{name}: {path}" for name, path in models.items()] if len(models) > 1 else []
    for line in [LEGEND, *_notes(table, models), *sources]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


READINGS = {
    "mae": "MAE",
    "spearman": "rho",
    "spearman_episode": "rho/e",
    "success_auc_potential": "AUC",
    "success_gap": "gap",
}


def print_readings(readings: Mapping[str, Mapping[str, float]]) -> None:
    """Print the model's inference modes and single views; here AUC is of the final potential."""
    if not readings:
        return
    grid = frame("potential read as", READINGS.values())
    for name, metrics in readings.items():
        grid.add_row(name, *(number(metrics[m]) for m in READINGS))
    console = Console()
    console.print("")
    console.print(grid)


def _heading(judged: Sequence[Judged], reference: str) -> str:
    good = sum(j.episode.success is True for j in judged)
    bad = sum(j.episode.success is False for j in judged)
    frames = sum(len(j.episode) for j in judged)
    return (
        f"{len(judged)} episodes ({good} successes, {bad} failures), {frames} frames; the goal "
        f"picture of 'pixel distance' comes from {reference}"
    )


def _grid(table: Mapping[str, Metrics], models: Collection[str]) -> Table:
    grid = frame("", COLUMNS.values())
    for name in models:
        grid.add_row(name, *(_cell(name, m, table) for m in COLUMNS), style="cyan")
        for title, bound in (("  95 % from", "low"), ("  95 % to", "high")):
            bounds = (number(table[name][m][bound]) for m in COLUMNS)
            grid.add_row(title, *bounds, style="dim")
    for name in (n for n in table if n not in models):
        grid.add_row(name, *(_cell(name, m, table) for m in COLUMNS))
    return grid


def frame(name: str, titles: Iterable[str]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    grid.add_column(name, no_wrap=True)
    for title in titles:
        grid.add_column(title, justify="right", no_wrap=True)
    return grid


def _cell(name: str, metric: str, table: Mapping[str, Metrics]) -> str:
    cell = number(table[name][metric]["value"])
    if (name, metric) in BY_DEFINITION:
        return f"{cell}†"
    return f"[bold]{cell}*[/bold]" if name in best(metric, table) else cell


def number(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _notes(table: Mapping[str, Any], models: Collection[str]) -> list[str]:
    baselines = {name: metrics for name, metrics in table.items() if name not in models}
    lines = ["*       best of the column; † time order by definition, not compared; - undefined"]
    for name in models:
        title = "the model" if len(models) == 1 else name
        lines += _against_baselines(title, table[name], baselines)
    return lines


def _against_baselines(
    title: str, model: Mapping[str, Any], baselines: Mapping[str, Any]
) -> list[str]:
    lines = []
    if undefined := model["voc_undefined"]["value"]:
        lines.append(f"VOC of {title} was undefined in {undefined:.0f} episode(s): 0 there.")
    compared = [COLUMNS[m] for m in HEADLINE if math.isfinite(model[m]["value"])]
    found = beaten_by(model, baselines)
    if not found:
        lines.append(f"\nNo baseline beats {title} on {', '.join(compared)}.")
    return lines + [f"WARNING: {entry.against(title)}" for entry in found]
