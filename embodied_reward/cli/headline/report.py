"""Table, JSON and picture of the headline study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from embodied_reward.cli.headline.cells import write_json
from embodied_reward.cli.headline.config import CONDITIONS
from embodied_reward.cli.headline.potential import HIGH
from embodied_reward.cli.headline.summary import summarise
from embodied_reward.files import replacing
from embodied_reward.math.statistics import finite_mean

COLOURS = {
    "learned": "#0072B2",
    "success": "#D55E00",
    "oracle": "#009E73",
    "none": "#7F7F7F",
    "absolute": "#CC79A7",
    "calibrated": "#56B4E9",
    "self_imitation": "#E69F00",
}


POTENTIAL = {
    "failed_highest": "highest in a failed one",
    "failed_high": f"failed ones above {HIGH}",
    "failed_variation": "sum of changes, failed",
    "succeeded_variation": "sum of changes, succeeded",
    "succeeded_last": "last before success",
}


def write_report(root: Path, settings: Mapping[str, Any], cells: Sequence[dict[str, Any]]) -> None:
    """Print the tables and write table.md, results.json and results.png.

    Args:
        root: the study's folder.
        settings: see `HeadlineConfig.settings`.
        cells: results of finished cells, in any order.
    """
    cells = sorted(cells, key=_order)
    summary = summarise(cells)
    bare = [{k: v for k, v in c.items() if k != "settings"} for c in cells]
    write_json(root / "results.json", {"settings": settings, "cells": bare, "summary": summary})
    text = "\n\n".join([task_table(summary), overall_table(summary), reward_table(cells)])
    text += "\n\n" + potential_table(cells)
    with replacing(root / "table.md") as temporary:
        temporary.write_text(text + "\n")
    with replacing(root / "results.png") as temporary:
        draw(summary).savefig(temporary, dpi=110)
    print(text)
    print("\n".join(str(root / n) for n in ("table.md", "results.json", "results.png")))


def _order(cell: Mapping[str, Any]) -> tuple[Any, ...]:
    return cell["task"], cell["seed"], list(CONDITIONS).index(cell["condition"])


def task_table(summary: Mapping[str, Any]) -> str:
    """Return one row per task and condition."""
    header = ["task", "condition", "final success", "seeds", "mean of the curve"]
    header += ["CPU minutes", "rollouts"]
    rows = [
        [
            task,
            CONDITIONS[name].label,
            _with_interval(cell["mean"], cell["interval"]),
            " ".join(f"{value:.2f}" for value in cell["final"]),
            _number(cell["area"]),
            f"{cell['cpu_seconds'] / 60:.1f}",
            f"{cell['rollouts']:.0f}",
        ]
        for task, conditions in summary["tasks"].items()
        for name, cell in conditions.items()
    ]
    return _markdown(header, rows)


def overall_table(summary: Mapping[str, Any]) -> str:
    """Return one row per condition over all tasks, and what it improves on success only."""
    header = ["condition", "runs", "IQM", "IQM on the runs shared with success only"]
    header += ["success only there", "P(better than success only)"]
    rows = []
    for name, row in summary["overall"].items():
        better = row["improvement"]
        shown = "-" if better is None else _with_interval(better, row["improvement_interval"])
        shared = [_number(row[key]) for key in ("common_iqm", "success_only_iqm")]
        shared[0] += f" ({row['common_runs']} runs)"
        iqm = _with_interval(row["iqm"], row["interval"])
        rows.append([CONDITIONS[name].label, str(row["runs"]), iqm, *shared, shown])
    return _markdown(header, rows)


def reward_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return how good each task's learned reward is on episodes that it never saw."""
    found = {(c["task"], c["seed"]): c["reward"]["unseen"] for c in cells if "reward" in c}
    names = list(dict.fromkeys(name for unseen in found.values() for name in unseen))
    rows = []
    for task in dict.fromkeys(task for task, _ in found):
        reports = [unseen for (where, _), unseen in found.items() if where == task]
        means = [finite_mean([_or_nan(r.get(name)) for r in reports]) for name in names]
        rows.append([task, str(len(reports)), *(_number(mean) for mean in means)])
    return _markdown(["reward model on unseen episodes", "seeds", *names], rows)


def potential_table(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return how the potential moved in the training rollouts (`potential_summary`)."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if "potential" in cell:
            found.setdefault((cell["task"], cell["condition"]), []).append(cell["potential"])
    rows = [
        [task, CONDITIONS[name].label, str(len(seen))]
        + [_number(finite_mean([_or_nan(s[key]) for s in seen])) for key in POTENTIAL]
        for (task, name), seen in found.items()
    ]
    return _markdown(["task", "potential of training rollouts", "seeds", *POTENTIAL.values()], rows)


def draw(summary: Mapping[str, Any]) -> Figure:
    """Return the success curves, one panel per task."""
    tasks = summary["tasks"]
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = Figure(figsize=(1 + 4.2 * columns, 0.9 + 3.2 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    for axes, (task, conditions) in zip(grid.flat, tasks.items(), strict=False):
        for name, cell in conditions.items():
            _line(axes, name, cell)
        axes.set_title(task, fontsize=10)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
        axes.set_xlabel("rollouts")
    for axes in grid.flat[len(tasks) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel("success rate")
    seen = {n: h for axes in grid.flat for h, n in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _line(axes: Axes, name: str, cell: Mapping[str, Any]) -> None:
    label, colour, curve = CONDITIONS[name].label, COLOURS[name], cell["curve"]
    if name == "none":
        axes.axhline(cell["mean"], color=colour, linestyle=":", label=label)
        return
    x = [p["rollouts"] for p in curve]
    axes.plot(x, [p["mean"] for p in curve], color=colour, marker="o", markersize=3, label=label)
    if all(p["interval"] for p in curve):
        low, high = zip(*(p["interval"] for p in curve), strict=True)
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    if interval is None:
        return f"{value:.2f}"
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def _number(value: float | None) -> str:
    return "-" if value is None or value != value else f"{value:.2f}"


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
