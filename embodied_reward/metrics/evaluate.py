"""Judge predictors episode by episode, then over all episodes with bootstrap intervals.

What is measured: `order.py` (VOC, hops), `truth.py`, `success.py`, `ranking.py`,
`uncertainty.py`, `paths.py`; `catalogue.py` lists every metric, docs/metrics.md explains them.

Whatever is undefined (one class only, no true progress) is NaN with a reason, never filled in.
The one exception is VOC, where the source counts an undefined value as 0; `voc_undefined` says
how many.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.math.statistics import bootstrap, finite_mean
from embodied_reward.metrics.catalogue import why_undefined
from embodied_reward.metrics.judge import Judged, judge
from embodied_reward.metrics.order import hops, order
from embodied_reward.metrics.paths import paths
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.metrics.ranking import ranking
from embodied_reward.metrics.success import success
from embodied_reward.metrics.truth import truth
from embodied_reward.metrics.uncertainty import uncertainty
from embodied_reward.types import Episode, Float64

GROUPS = (order, hops, truth, success, ranking, uncertainty, paths)


def aggregate(judged: Sequence[Judged]) -> dict[str, float]:
    """Return every metric of the catalogue over episodes; NaN where undefined."""
    return {name: value for group in GROUPS for name, value in group(judged).items()}


def evaluate(
    predictor: Predictor,
    episodes: Sequence[Episode],
    *,
    seed: int = 0,
    resamples: int = 500,
    interval: int | None = None,
    quality: Mapping[int, float] | None = None,
) -> dict[str, Any]:
    """Measure a predictor on episodes.

    Args:
        predictor: a reward model or a baseline.
        episodes: at least one.
        seed: of the bootstrap.
        resamples: bootstrap resamples over episodes; 0 leaves the intervals out.
        interval: frames between VOC samples; None samples about 30 frames per episode.
        quality: episode index -> rank, higher is better, for Kendall's tau.

    Returns:
        `{"metrics": {name: {"value", "low", "high"}}, "episodes": [one row per episode]}`;
        low and high bound the 95 % bootstrap interval. An undefined metric has a "reason".

    Raises:
        DatasetError: no episodes, or one that cannot be scored.
    """
    ranks = quality or {}
    unknown = float("nan")
    judged = [
        judge(predictor, e, interval=interval, quality=ranks.get(e.index, unknown))
        for e in episodes
    ]
    return summarise(judged, seed=seed, resamples=resamples)


def summarise(judged: Sequence[Judged], *, seed: int = 0, resamples: int = 500) -> dict[str, Any]:
    """Return what `evaluate` returns, from episodes that were judged already."""
    if not judged:
        raise DatasetError("no episodes to evaluate")
    rng = np.random.default_rng(seed)
    bounds = bootstrap(list(judged), aggregate, rng, resamples=resamples) if resamples else {}
    metrics = {
        name: _entry(name, value, bounds.get(name), judged)
        for name, value in aggregate(judged).items()
    }
    return {"metrics": metrics, "episodes": [episode_row(j) for j in judged]}


def _entry(
    name: str, value: float, bounds: tuple[float, float] | None, judged: Sequence[Judged]
) -> dict[str, Any]:
    low, high = bounds or (float("nan"), float("nan"))
    entry: dict[str, Any] = {"value": value, "low": low, "high": high}
    if math.isnan(value):
        entry["reason"] = why_undefined(name, judged)
    return entry


READING_METRICS = (
    "mae",
    "mae_episode",
    "spearman",
    "spearman_episode",
    "success_auc_potential",
    "success_gap",
    "outcome_accuracy",
)
"""Metrics that depend on the potential curve alone."""


def readings(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Return the metrics of every inference mode and of every view on its own.

    Args:
        judged: episodes of one model, whose scores all have the same modes and views.

    Returns:
        mode name, or `view <name>` -> `READING_METRICS`.
    """
    first = judged[0].scores
    names = [("modes", m, m) for m in first.modes]
    names += [("per_view", v, f"view {v}") for v in first.per_view]
    found = {}
    for group, key, title in names:
        alone = [_with_potential(j, getattr(j.scores, group)[key]) for j in judged]
        metrics = aggregate(alone)
        found[title] = {name: metrics[name] for name in READING_METRICS}
    return found


def _with_potential(judged: Judged, potential: Float64) -> Judged:
    scores = dataclasses.replace(judged.scores, potential=potential)
    return dataclasses.replace(judged, scores=scores)


def episode_row(judged: Judged) -> dict[str, Any]:
    """Return the numbers of one episode."""
    episode, success = judged.episode, judged.success
    return {
        "index": episode.index,
        "source": episode.source,
        "length": len(episode),
        "success": episode.success,
        "voc_plus": judged.voc.plus,
        "voc_minus": judged.voc.minus,
        "voc_min": judged.voc.least,
        "voc_shuffled": judged.shuffled.value,
        "voc_undefined": [*judged.voc.undefined, *["voc_shuffled"] * judged.shuffled.undefined],
        "mae": judged.mae,
        "spearman": judged.spearman,
        "hop_sign_accuracy": finite_mean(judged.hop_signs),
        "final_potential": _last(judged.scores.potential),
        "final_success": _last(judged.scores.success),
        "max_success": float(success.max()) if len(success) else float("nan"),
        "final_progress": _last(judged.progress),
        "outcome": judged.outcome,
        "path": judged.path,
        "failed_frames": int((~judged.finite).sum()),
    }


def _last(values: Float64) -> float:
    return float(values[-1]) if len(values) else float("nan")
