"""The tables behind the headline of `er eval-reward --verbose=true`, one per group of metrics."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from embodied_reward.cli.eval_reward_table import Metrics, frame, number
from embodied_reward.metrics.catalogue import METRICS, groups
from embodied_reward.metrics.evaluate import READING_METRICS

ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


def print_groups(table: Mapping[str, Metrics]) -> None:
    """Print every group; the first row of `table` is the model.

    Arrows say which way is better; ~ marks metrics that some constant predictor wins, and what
    is undefined for the model is explained below its table.
    """
    console = Console()
    model = next(iter(table.values()))
    for group, names in groups().items():
        grid = frame(group, [_title(n) for n in names])
        for row, metrics in table.items():
            style = "cyan" if metrics is model else None
            grid.add_row(row, *(number(metrics[n]["value"]) for n in names), style=style)
        console.print("")
        console.print(grid)
        for reason, titles in _reasons(model, names).items():
            line = f"- {', '.join(titles)}: {reason}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print("\n↑ higher is better, ↓ lower; ~ a constant predictor can be best at it")


def print_robustness(robustness: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what missing views and changed pictures do to each predictor's potential."""
    (model, found), *_ = robustness.items()
    if not found["episodes"]:
        return
    console = Console()
    titles = [METRICS[m].title for m in READING_METRICS]
    grid = frame(f"{model}, {found['episodes']} episodes", titles)
    grid.add_row("every view", *(number(found["whole"][m]) for m in READING_METRICS))
    for view, less in found["without"].items():
        cells = [number(less.get(m, float("nan"))) for m in READING_METRICS]
        grid.add_row(f"without {view}", *cells)
    console.print("")
    console.print(grid)
    for view, less in found["without"].items():
        if "reason" in less:
            line = f"- without {view}: {less['reason']}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    names = list(found["stability"])
    grid = frame("std of the potential", [f"{name} ↓~" for name in names])
    for row, entry in robustness.items():
        grid.add_row(row, *(f"{entry['stability'][name]:.3f}" for name in names))
    console.print("")
    console.print(grid)


def _title(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.title}{ARROWS[metric.better]}{'~' if metric.fooled else ''}"


def _reasons(metrics: Metrics, names: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        if reason := metrics[name].get("reason"):
            found.setdefault(str(reason), []).append(METRICS[name].title)
    return found
