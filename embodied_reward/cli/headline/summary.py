"""What the finished cells say together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embodied_reward.cli.headline.config import CONDITIONS
from embodied_reward.math.aggregate import (
    Scores,
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)
from embodied_reward.math.statistics import finite_mean

BASELINE = "success"
"""What every condition is compared with."""

type Cells = Sequence[Mapping[str, Any]]


def summarise(cells: Cells) -> dict[str, Any]:
    """Return the numbers per task and condition, and per condition over all tasks.

    Over tasks, a condition is compared with success only on the tasks and seeds that both have,
    because conditions may have run on different ones. Intervals are 95 % bootstrap intervals over
    seeds, stratified by task; None where a single seed cannot give one.
    """
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    return {
        "tasks": {task: _by_condition([c for c in cells if c["task"] == task]) for task in tasks},
        "overall": _overall(cells),
    }


def _by_condition(cells: Cells) -> dict[str, Any]:
    found = {name: [c for c in cells if c["condition"] == name] for name in CONDITIONS}
    return {name: _condition(rows) for name, rows in found.items() if rows}


def _condition(cells: Cells) -> dict[str, Any]:
    final = [float(c["final"]["success"]) for c in cells]
    return {
        "seeds": [c["seed"] for c in cells],
        "final": final,
        "mean": float(np.mean(final)),
        "interval": _interval([{"": final}], _mean),
        "area": _area(cells),
        "curve": _curve(cells),
        "rollouts": float(np.mean([c["rollouts"] for c in cells])),
        "decisions": float(np.mean([c["decisions"] for c in cells])),
        "wall_seconds": float(np.mean([c["wall_seconds"] for c in cells])),
        "cpu_seconds": float(np.mean([c["cpu_seconds"] for c in cells])),
    }


def _area(cells: Cells) -> float | None:
    """Return the mean success over the curves, without their common start: how early it comes."""
    curves = [[p["success"] for p in c["curve"]][1:] for c in cells]
    return _known(finite_mean([finite_mean(curve) for curve in curves]))


def _curve(cells: Cells) -> list[dict[str, Any]]:
    """Return the success curve over the rollouts at which every seed was evaluated."""
    curves = [{p["rollouts"]: p["success"] for p in c["curve"]} for c in cells]
    shared = sorted(set.intersection(*(set(c) for c in curves)))
    points = []
    for x in shared:
        values = [float(c[x]) for c in curves]
        points.append(
            {
                "rollouts": x,
                "mean": float(np.mean(values)),
                "interval": _interval([{"": values}], _mean),
            }
        )
    return points


def _overall(cells: Cells) -> dict[str, Any]:
    scores = {name: _scores(cells, name) for name in CONDITIONS}
    rows = {}
    for name, mine in scores.items():
        if not mine:
            continue
        common = set(mine) & set(scores[BASELINE])
        ours, theirs = _of_tasks(mine, common), _of_tasks(scores[BASELINE], common)
        everything = _of_tasks(mine, set(mine))
        rows[name] = {
            "runs": len(mine),
            "iqm": interquartile_mean(everything),
            "interval": _interval([everything], interquartile_mean),
            "common_runs": len(common),
            "common_iqm": _known(interquartile_mean(ours)),
            "success_only_iqm": _known(interquartile_mean(theirs)),
            "improvement": _known(probability_of_improvement(ours, theirs)),
            "improvement_interval": _interval([ours, theirs], probability_of_improvement),
        }
    return rows


def _scores(cells: Cells, condition: str) -> dict[tuple[str, int], float]:
    chosen = [c for c in cells if c["condition"] == condition]
    return {(c["task"], c["seed"]): float(c["final"]["success"]) for c in chosen}


def _of_tasks(
    scores: Mapping[tuple[str, int], float], chosen: set[tuple[str, int]]
) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for task, seed in sorted(chosen):
        grouped.setdefault(task, []).append(scores[task, seed])
    return grouped


def _mean(scores: Scores) -> float:
    return finite_mean([value for runs in scores.values() for value in runs])


def _interval(groups: Sequence[Scores], statistic: Callable[..., float]) -> list[float] | None:
    low, high = stratified_interval(groups, statistic, np.random.default_rng(0))
    return None if np.isnan(low) else [low, high]


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
