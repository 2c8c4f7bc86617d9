"""Table, JSON and pictures of the trap benchmark."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from embodied_reward.cli.trap.conditions import CONDITIONS
from embodied_reward.cli.trap.lattice import ACTIONS, GOAL, PRESS, REPEAT, SOCKET, cell_of
from embodied_reward.files import replacing
from embodied_reward.math.statistics import bootstrap
from embodied_reward.types import Float64

METRICS = {
    "success": "success rate",
    "hover": "hover rate",
    "gap": "return gap to the optimum",
}
KEPT, BROKEN = "#0072B2", "#D55E00"
_RESAMPLES = 2000

type Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def write_report(
    folder: Path,
    config: Mapping[str, Any],
    thresholds: Mapping[str, Mapping[str, float]],
    runs: Runs,
    potential: Float64,
) -> None:
    """Print the tables and write table.md, results.json, results.png and scene.png."""
    results = {name: summarise(rows) for name, rows in runs.items()}
    optimum = float(np.mean([r["optimum"]["value"] for r in runs["sparse"]]))
    best = float(np.mean([r["optimum"]["success"] for r in runs["sparse"]]))
    tables = [chain_table(thresholds), picture_table(results)]
    note = (
        f"Seeds: {len(runs['sparse'])}, each with its own reward model; brackets: 95 % bootstrap "
        f"interval over seeds. Optimum: success {best:.2f}, return {optimum:.3f}."
    )
    _write(folder / "table.md", "\n\n".join([*map(_markdown, tables), note]) + "\n")
    chained = {row: {k: _number(v) for k, v in cells.items()} for row, cells in thresholds.items()}
    whole = {"config": config, "chain": chained, "optimum": optimum, "conditions": results}
    _write(folder / "results.json", json.dumps(whole, indent=1, allow_nan=False))
    _save(folder / "results.png", draw_results(results))
    _save(folder / "scene.png", draw_scene(potential))
    console = Console()
    for title, (header, body) in zip(
        ("The chain: smallest p at which trying is optimal", "trap/insert: what DQN learned"),
        tables, strict=True,
    ):  # fmt: skip
        console.print(_rich(title, header, body))
    print(note)
    print("\n".join(str(folder / n) for n in ("table.md", "results.json", "results.png")))


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return per metric the values of all seeds, their mean and interval, and what was asked for.

    `asked_for` is the same metric of the policy that the reward makes exactly optimal. One seed
    has no interval (None).
    """
    values, asked = [_metrics(r, "learned") for r in rows], [_metrics(r, "asked_for") for r in rows]
    intervals: dict[str, Any] = dict.fromkeys(METRICS, (None, None))
    if len(values) > 1:
        intervals = bootstrap(values, _means, np.random.default_rng(0), resamples=_RESAMPLES)
    means, wanted = _means(values), _means(asked)
    return {
        metric: {
            "mean": means[metric],
            "low": intervals[metric][0],
            "high": intervals[metric][1],
            "values": [v[metric] for v in values],
            "asked_for": wanted[metric],
        }
        for metric in METRICS
    }


def _metrics(row: Mapping[str, Any], which: str) -> dict[str, float]:
    got = row[which]
    gap = row["optimum"]["value"] - got["value"]
    return {"success": got["success"], "hover": got["hover"], "gap": gap}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {metric: float(np.mean([r[metric] for r in rows])) for metric in METRICS}


type Cells = tuple[list[str], list[list[str]]]


def chain_table(thresholds: Mapping[str, Mapping[str, float]]) -> Cells:
    """Return header and rows of the chain's thresholds, one row per reward."""
    header = ["reward on the chain", "threshold p"]
    rows = []
    for row, cells in thresholds.items():
        shown = [f"{column}: {_threshold(p)}" for column, p in cells.items()]
        same = len({s.split(": ")[1] for s in shown}) == 1
        rows.append([row, _threshold(next(iter(cells.values()))) if same else ", ".join(shown)])
    return header, rows


def picture_table(results: Mapping[str, Mapping[str, Any]]) -> Cells:
    """Return header and rows of the picture version."""
    header = ["reward", *METRICS.values(), "reward asks for: success", "hover"]
    rows = []
    for name, metrics in results.items():
        shown = [_interval(m) for m in metrics.values()]
        asked = [f"{metrics[m]['asked_for']:.2f}" for m in ("success", "hover")]
        rows.append([CONDITIONS[name].label, *shown, *asked])
    return header, rows


def _interval(cell: Mapping[str, Any]) -> str:
    if cell["low"] is None:
        return f"{cell['mean']:.2f}"
    return f"{cell['mean']:.2f} [{cell['low']:.2f}, {cell['high']:.2f}]"


def draw_results(results: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return bars per reward and metric with seeds, intervals and what the reward asks for."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(METRICS), sharey=True), METRICS, strict=True):
        for y, (name, metrics) in enumerate(results.items()):
            _bar(axes, y, name, metrics[metric])
        axes.set_title(METRICS[metric], fontsize=10)
        axes.set_xlim(-0.02, 1.02 if metric != "gap" else None)
        axes.grid(axis="x", alpha=0.3)
    axes.set_yticks(range(len(results)), [CONDITIONS[n].label for n in results])
    axes.invert_yaxis()
    handles, labels = axes.get_legend_handles_labels()
    chosen = dict(zip(labels, handles, strict=True))
    figure.legend(chosen.values(), chosen.keys(), loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _bar(axes: Axes, y: int, name: str, cell: Mapping[str, Any]) -> None:
    condition = CONDITIONS[name]
    sound = condition.reward_mode().invariant and not condition.timeout_terminal
    axes.barh(y, cell["mean"], color=KEPT if sound else BROKEN, alpha=0.75, height=0.6)
    if cell["low"] is not None:
        axes.plot([cell["low"], cell["high"]], [y, y], color="black", linewidth=1.5, label="95 %")
    spread = np.linspace(-0.2, 0.2, len(cell["values"])) if len(cell["values"]) > 1 else [0.0]
    axes.plot(
        cell["values"], y + np.asarray(spread), "o", color="black", markersize=2.5, label="seeds"
    )
    axes.plot(
        cell["asked_for"], y, "D", mfc="none", mec="black", markersize=8,
        label="what the reward makes optimal",
    )  # fmt: skip


def draw_scene(potential: Float64, size: int = 160) -> Figure:
    """Return both views of five states with their learned potential."""
    from embodied_reward.envs import make

    places = {"start": (0.0, -0.1), "thrown back": (0.2, 0.0), "on the way": (0.6, 0.1)}
    places |= {"hovering": tuple(SOCKET), "locked": tuple(SOCKET)}
    env = make("trap/insert", size=size, action_repeat=REPEAT, success_probability=1.0)
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    grid = figure.subplots(2, len(places))
    for column, (label, place) in enumerate(places.items()):
        env.reset(options={"place": place})
        state = cell_of(np.array(place))
        if label == "locked":
            env.step(ACTIONS[PRESS])
            state = GOAL
        for axes, frame in zip(grid[:, column], env.frames().values(), strict=True):
            axes.imshow(frame[size // 5 : -size // 5])
            axes.set_axis_off()
        grid[0, column].set_title(f"{label}: Φ = {potential[state]:.2f}", fontsize=10)
    env.close()
    return figure


def _threshold(p: float) -> str:
    if math.isinf(p):
        return "never"
    if p == 0:
        return "any"
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


def _number(p: float) -> float | str:
    return p if math.isfinite(p) else "never"


def _markdown(table: Cells) -> str:
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _rich(title: str, header: list[str], rows: list[list[str]]) -> Table:
    table = Table(title=title)
    for column in header:
        table.add_column(column)
    for cells in rows:
        # Square brackets are markup to rich; intervals are text.
        table.add_row(*(c.replace("[", r"\[") for c in cells))
    return table


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def _save(path: Path, figure: Figure) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)
