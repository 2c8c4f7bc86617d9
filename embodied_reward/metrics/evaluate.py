"""Judge predictors episode by episode, then over all episodes with bootstrap intervals.

| metric                 | meaning (higher is better unless said)                                |
|------------------------|-----------------------------------------------------------------------|
| voc_plus, voc_minus    | value-order correlation, forward and swapped; successful episodes     |
| voc_min                | the smaller of the two per episode, averaged                          |
| voc_min_failed         | the same on failed episodes, where a high value is *no* merit         |
| mae                    | mean absolute error to true progress, all frames pooled (lower)       |
| mae_episode            | the same per episode, averaged (lower)                                |
| spearman               | rank correlation with true progress, all frames pooled                |
| spearman_episode       | the same per episode, averaged over those whose progress spans 0.05+   |
| hop_sign_accuracy      | right direction on sampled pairs that truly differ, both orders       |
| success_auc            | final frame's success probability ranks successes above failures      |
| success_auc_max        | the same with the highest success probability of the episode          |
| success_auc_potential  | the same with the final potential                                     |
| frame_success_auc      | success probability per frame against success of that frame, pooled   |
| success_gap            | mean final potential of successes minus that of failures              |
| outcome_accuracy       | the potential curve alone says success or not (Eq. 58), per episode   |
| kendall_tau_a          | final potential orders episodes by quality, where quality is given    |

Whatever is undefined (one class only, no true progress) is NaN, never filled in. The one
exception is VOC, where the source counts an undefined value as 0; `voc_undefined` says how many.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.math.statistics import auc, bootstrap, finite_mean, kendall_tau_a, spearman
from embodied_reward.metrics.judge import Judged, judge, mean_error
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode, Float64


def aggregate(judged: Sequence[Judged]) -> dict[str, float]:
    """Return every metric of the module's table over episodes; NaN where undefined."""
    return {**_order(judged), **_truth(judged), **_success(judged), **_ranking(judged)}


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
        low and high bound the 95 % bootstrap interval.

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
    nan = (float("nan"), float("nan"))
    metrics = {
        name: dict(zip(("value", "low", "high"), (value, *bounds.get(name, nan)), strict=True))
        for name, value in aggregate(judged).items()
    }
    return {"metrics": metrics, "episodes": [episode_row(j) for j in judged]}


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
        "voc_undefined": list(judged.voc.undefined),
        "mae": judged.mae,
        "spearman": judged.spearman,
        "hop_sign_accuracy": finite_mean(judged.hop_signs),
        "final_potential": _last(judged.scores.potential),
        "final_success": _last(judged.scores.success),
        "max_success": float(success.max()) if len(success) else float("nan"),
        "final_progress": _last(judged.progress),
        "outcome": judged.outcome,
        "failed_frames": int((~judged.finite).sum()),
    }


def _order(judged: Sequence[Judged]) -> dict[str, float]:
    # VOC asks whether progress rises, which is right only where it should.
    done = [j for j in judged if j.episode.success is not False]
    failed = [j for j in judged if j.episode.success is False]
    return {
        "voc_plus": finite_mean([j.voc.plus for j in done]),
        "voc_minus": finite_mean([j.voc.minus for j in done]),
        "voc_min": finite_mean([j.voc.least for j in done]),
        "voc_min_failed": finite_mean([j.voc.least for j in failed]),
        "voc_undefined": float(sum(bool(j.voc.undefined) for j in done)),
    }


def _truth(judged: Sequence[Judged]) -> dict[str, float]:
    known = [j for j in judged if j.episode.progress is not None]
    potential, progress = _pool([j.potential for j in known]), _pool([j.progress for j in known])
    return {
        "mae": mean_error(potential, progress),
        "mae_episode": finite_mean([j.mae for j in known]),
        "spearman": spearman(potential, progress),
        "spearman_episode": finite_mean([j.spearman for j in known]),
        "hop_sign_accuracy": finite_mean(_pool([j.hop_signs for j in known])),
    }


def _success(judged: Sequence[Judged]) -> dict[str, float]:
    known = [j for j in judged if j.episode.success is not None and len(j.potential)]
    labels = [bool(j.episode.success) for j in known]
    final = [float(j.potential[-1]) for j in known]
    framed = [j for j in judged if j.episode.success_frames is not None]
    frames = [np.asarray(j.episode.success_frames, float)[j.finite] for j in framed]
    right = [float((j.outcome == "SE") == bool(j.episode.success)) for j in known]
    gap = [f for f, s in zip(final, labels, strict=True) if s]
    rest = [f for f, s in zip(final, labels, strict=True) if not s]
    return {
        "success_auc": auc([float(j.success[-1]) for j in known], labels),
        "success_auc_max": auc([float(j.success.max()) for j in known], labels),
        "success_auc_potential": auc(final, labels),
        "frame_success_auc": auc(_pool([j.success for j in framed]), _pool(frames)),
        "success_gap": finite_mean(gap) - finite_mean(rest),
        "outcome_accuracy": finite_mean(right),
    }


def _ranking(judged: Sequence[Judged]) -> dict[str, float]:
    ranked = [j for j in judged if np.isfinite(j.quality) and len(j.potential)]
    tau = kendall_tau_a([j.potential[-1] for j in ranked], [j.quality for j in ranked])
    return {"kendall_tau_a": tau}


def _last(values: Float64) -> float:
    return float(values[-1]) if len(values) else float("nan")


def _pool(parts: Sequence[Float64]) -> Float64:
    return np.concatenate(parts) if parts else np.empty(0)
