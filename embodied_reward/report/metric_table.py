"""The metrics table: the model beside every baseline, and who wins in plain words."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from embodied_reward.metrics.catalogue import METRICS, why_undefined
from embodied_reward.metrics.comparison import BY_DEFINITION, HEADLINE, LOWER_IS_BETTER, best
from embodied_reward.metrics.evaluate import readings
from embodied_reward.report.evidence import MODEL, Evidence

# key -> (name, what it says, lower and upper end of its scale)
NAMES: dict[str, tuple[str, str, float, float]] = {
    "voc_min": ("VOC", "order with time on successes, forward and swapped, the smaller", -1, 1),
    "mae": ("MAE", "mean absolute error to true progress; lower is better", 0, 1),
    "spearman": ("Spearman", "rank correlation with true progress, all frames pooled", -1, 1),
    "spearman_episode": ("Spearman per episode", "the same within episodes, averaged", -1, 1),
    "hop_sign_accuracy": ("Hop direction", "share of frame pairs whose direction is right", 0, 1),
    "success_auc": ("Success AUC", "the final frame's success probability tells successes", 0, 1),
    "frame_success_auc": ("Frame AUC", "the same frame by frame", 0, 1),
    "success_gap": ("Success gap", "final progress of successes minus that of failures", -1, 1),
}
"""The headline metrics in words; the others go by their names in the catalogue."""


def metric_table(evidence: Evidence) -> dict[str, Any]:
    """Return columns and rows, headline metrics first."""
    table = evidence.table
    keys = [*HEADLINE, *(key for key in table[MODEL] if key not in HEADLINE)]
    rows = [_row(key, evidence) for key in keys]
    return {"columns": list(table), "rows": rows, "verdict": _overall(rows)}


def readings_table(evidence: Evidence) -> list[dict[str, Any]]:
    """Return one row per inference mode and per single view."""
    found = readings(evidence.model)
    return [{"name": name, **metrics} for name, metrics in found.items()]


def _row(key: str, evidence: Evidence) -> dict[str, Any]:
    table = evidence.table
    plain = (key.replace("_", " "), _direction(key), 0.0, 1.0)
    name, about, low, high = NAMES.get(key, plain)
    cells = [_cell(key, column, evidence) for column in table]
    return {
        "key": key,
        "name": name,
        "about": about,
        "scale": [low, high],
        "headline": key in HEADLINE,
        "cells": cells,
        "verdict": verdict(key, table),
    }


def _direction(key: str) -> str:
    metric = METRICS[key]
    return f"{metric.group}; " + (
        "describes only" if metric.better == "neither" else f"{metric.better} is better"
    )


def _cell(key: str, column: str, evidence: Evidence) -> dict[str, Any]:
    numbers = evidence.table[column].get(key, {"value": math.nan, "low": math.nan})
    value = numbers["value"]
    reason = "" if math.isfinite(value) else why_undefined(key, evidence.judged[column])
    return {
        **numbers,
        "reason": reason,
        "best": column in best(key, evidence.table) if key in HEADLINE else False,
        "by_definition": (column, key) in BY_DEFINITION,
    }


def verdict(key: str, table: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, str]:
    """Say who wins a metric: `win`, `close`, `lose`, `tie` or `undefined`, and a sentence.

    `close` is a win whose 95 % interval contains the best baseline's value.
    """
    if key not in HEADLINE:
        return {"state": "none", "text": ""}
    ours = table[MODEL][key]
    if not math.isfinite(ours["value"]):
        return {"state": "undefined", "text": "undefined here"}
    rivals = _rivals(key, table)
    if not rivals:
        return {"state": "undefined", "text": "no baseline has a value"}
    sign = -1.0 if key in LOWER_IS_BETTER else 1.0
    value, name = max((sign * v, n) for n, v in rivals.items())
    said = f"“{name}” {_digits(sign * value, ours['value'])}"
    if abs(value - sign * ours["value"]) <= 1e-9:
        return {"state": "tie", "text": f"as good: {said}"}
    if value > sign * ours["value"]:
        return {"state": "lose", "text": f"better: {said}"}
    if ours["low"] <= sign * value <= ours["high"]:
        return {"state": "close", "text": f"best baseline, inside the interval: {said}"}
    return {"state": "win", "text": f"best baseline: {said}"}


def _digits(theirs: float, ours: float) -> str:
    """Show both with as many digits as it takes to tell them apart."""
    digits = next((d for d in (2, 3, 4) if f"{theirs:.{d}f}" != f"{ours:.{d}f}"), 2)
    return f"{theirs:.{digits}f} against {ours:.{digits}f}"


def _rivals(key: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    return {
        name: metrics[key]["value"]
        for name, metrics in table.items()
        if name != MODEL
        and math.isfinite(metrics[key]["value"])
        and (name, key) not in BY_DEFINITION
    }


def _overall(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sum the headline verdicts up in one sentence."""
    by_state: dict[str, list[str]] = {}
    for row in rows:
        by_state.setdefault(row["verdict"]["state"], []).append(row["name"])
    lost = by_state.get("lose", []) + by_state.get("tie", [])
    won = len(by_state.get("win", [])) + len(by_state.get("close", []))
    asked = won + len(lost)
    if not asked:
        return {"state": "undefined", "text": "None of the headline metrics can be compared."}
    text = f"Ahead of every trivial baseline on {won} of {asked} headline metrics."
    if lost:
        text += f" A baseline is as good or better on {', '.join(lost)}."
    return {"state": "lose" if lost else "win", "text": text}
