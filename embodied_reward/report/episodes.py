"""Episodes as the page shows them, and which of them are worst."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_reward.metrics.judge import Judged
from embodied_reward.report.evidence import Evidence
from embodied_reward.report.sprites import COLUMNS, Film
from embodied_reward.types import Bool, Float64

LISTED = 50
"""Rows of the worst-first list."""


def episode_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """Return every episode with its numbers; those with pictures also carry their curves."""
    return [
        _row(j, evidence.films.get(j.episode.index), evidence.threshold) for j in evidence.model
    ]


def worst(rows: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return episode ids, worst first, for each way of being wrong.

    `error`: largest MAE. `rank`: lowest Spearman with true progress. `outcome`: episodes whose
    outcome the success probability gets wrong, most confident first. Episodes of which the
    measure is undefined are left out.
    """
    orders = {
        "error": [(-r["mae"], r["id"]) for r in rows],
        "rank": [(r["spearman"], r["id"]) for r in rows],
        "outcome": [(-r["wrong_by"], r["id"]) for r in rows if r["mistake"]],
    }
    return {
        name: [key for _, key in sorted(p for p in pairs if math.isfinite(p[0]))[:LISTED]]
        for name, pairs in orders.items()
    }


def choose_shown(judged: Sequence[Judged], count: int) -> list[int]:
    """Return positions of the `count` episodes that deserve pictures, in their order.

    Round-robin over largest error, lowest rank correlation, confident mistakes of both kinds,
    and the best episode, so that each list begins with something to look at.
    """
    positions = range(len(judged))
    queues = [
        sorted(positions, key=lambda i: -_or(judged[i].mae, 0.0)),
        sorted(positions, key=lambda i: -_false_alarm(judged[i])),
        sorted(positions, key=lambda i: _or(judged[i].spearman, 1.0)),
        sorted(positions, key=lambda i: _or(judged[i].mae, math.inf)),
    ]
    chosen: list[int] = []
    while len(chosen) < min(count, len(judged)):
        for queue in queues:
            fresh = next((i for i in queue if i not in chosen), None)
            if fresh is not None and len(chosen) < count:
                chosen.append(fresh)
    return sorted(chosen)


def _row(judged: Judged, film: Film | None, threshold: float) -> dict[str, Any]:
    episode = judged.episode
    mistake, wrong_by = _mistake(judged, threshold)
    row = {
        "id": f"episode-{episode.index}",
        "index": episode.index,
        "source": episode.source,
        "task": episode.task,
        "outcome": {True: "success", False: "failure", None: "unlabelled"}[episode.success],
        "length": len(episode),
        "fps": float(episode.fps),
        "mae": judged.mae,
        "spearman": judged.spearman,
        "final_potential": _last(judged.potential),
        "top_success": float(judged.success.max()) if len(judged.success) else math.nan,
        "mistake": mistake,
        "wrong_by": wrong_by,
        "failed_frames": int((~judged.finite).sum()),
        "spark": _rounded(judged.scores.potential[:: max(len(episode) // 40, 1)]),
    }
    return {**row, **_pictured(judged, film)} if film else row


def _pictured(judged: Judged, film: Film) -> dict[str, Any]:
    scores, episode = judged.scores, judged.episode
    truth = None if episode.progress is None else _rounded(np.asarray(episode.progress, float))
    return {
        "frames": [int(t) for t in film.frames],
        "columns": COLUMNS,
        "sheets": [vars(sheet) for sheet in film.sheets],
        "curves": {
            "potential": _rounded(scores.potential),
            "uncertainty": _rounded(scores.uncertainty),
            "success": _rounded(scores.success),
            "truth": truth,
        },
        "views": {view: _rounded(curve) for view, curve in scores.per_view.items()},
        "done": _spans(episode.success_frames),
    }


def _mistake(judged: Judged, threshold: float) -> tuple[str, float]:
    """Name the mistake about the outcome, and how far it lies beyond the threshold."""
    if not len(judged.success):
        return "", math.nan
    top = float(judged.success.max())
    if judged.episode.success is False and top >= threshold:
        return "false success", top
    if judged.episode.success is True and top < threshold:
        return "missed success", 1.0 - top
    return "", math.nan


def _false_alarm(judged: Judged) -> float:
    if judged.episode.success is not False or not len(judged.success):
        return 0.0
    return float(judged.success.max())


def _spans(done: Bool | None) -> list[list[int]]:
    """Return [first, last] of every run of frames that satisfy the task."""
    if done is None or not done.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], done, [False]]).astype(int)))
    return [[int(a), int(b) - 1] for a, b in edges.reshape(-1, 2)]


def _rounded(values: Float64) -> list[float | None]:
    return [round(float(v), 3) if math.isfinite(v) else None for v in values]


def _last(values: Float64) -> float:
    return float(values[-1]) if len(values) else math.nan


def _or(value: float, other: float) -> float:
    return value if math.isfinite(value) else other
