"""Rank statistics and bootstrap intervals; undefined results are NaN, never a plausible number."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, rankdata

from embodied_reward.types import Float64


def spearman(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation in [-1, 1], ties at their average rank.

    NaN when fewer than two pairs are given or either side is constant.
    """
    a, b = _paired(a, b)
    if len(a) < 2:
        return float("nan")
    return _pearson(rankdata(a), rankdata(b))


def pearson(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Return Pearson's correlation in [-1, 1].

    NaN when fewer than two pairs are given or either side is constant.
    """
    a, b = _paired(a, b)
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return _pearson(a, b)


def auc(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return P(score of a positive > score of a negative) + P(tie) / 2, in [0, 1].

    The Mann-Whitney form of the area under the ROC curve; NaN unless both classes occur.
    """
    scores, positive = _paired(scores, labels)
    positive = positive.astype(bool)
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if n_positive == 0 or n_negative == 0:
        return float("nan")
    rank_sum = rankdata(scores)[positive].sum()
    return float((rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def average_precision(scores: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the area under the precision-recall curve, in (0, 1], by steps in recall.

    Equal scores enter together, so a constant scores the share of positives. NaN unless both
    classes occur and every score is finite.
    """
    found = _sweep(scores, labels)
    if found is None:
        return float("nan")
    hits, false_alarms = found
    precision = hits / (hits + false_alarms)
    return float(np.diff(hits, prepend=0.0) @ precision / hits[-1])


def recall_at(scores: npt.ArrayLike, labels: npt.ArrayLike, false_rate: float = 0.01) -> float:
    """Return the highest true-positive rate whose false-positive rate is <= `false_rate`.

    Equal scores enter together, so a constant scores 0. With fewer than 1 / `false_rate`
    negatives no false alarm is allowed at all. NaN unless both classes occur and every score is
    finite.
    """
    found = _sweep(scores, labels)
    if found is None:
        return float("nan")
    hits, false_alarms = found
    allowed = hits[false_alarms <= false_rate * false_alarms[-1]]
    return float(allowed.max(initial=0.0) / hits[-1])


def ranking_accuracy(values: npt.ArrayLike, quality: npt.ArrayLike) -> float:
    """Return the share of pairs of different quality whose values are ordered alike, in [0, 1].

    Equal values are wrong, so a constant scores 0. NaN when no two qualities differ.
    """
    values, quality = _paired(values, quality)
    first, second = np.nonzero(quality[:, None] > quality[None, :])
    return float((values[first] > values[second]).mean()) if len(first) else float("nan")


def kendall_by_class(values: npt.ArrayLike, quality: npt.ArrayLike) -> float:
    """Return Kendall's tau_a averaged over all ways to pick one item of every quality, in [-1, 1].

    The average over picks equals the mean over pairs of classes of the mean sign between
    them, so nothing is enumerated and large classes weigh no more than small ones. NaN when
    fewer than two qualities occur.
    """
    values, quality = _paired(values, quality)
    groups = [values[quality == q] for q in np.unique(quality)]
    signs = [
        np.sign(high[:, None] - low[None, :]).mean()
        for i, low in enumerate(groups)
        for high in groups[i + 1 :]
    ]
    return float(np.mean(signs)) if signs else float("nan")


def kendall_tau_a(values: npt.ArrayLike, quality: npt.ArrayLike) -> float:
    """Return (concordant - discordant) / all pairs, in [-1, 1]; ties count as neither.

    NaN when fewer than two pairs are given.
    """
    values, quality = _paired(values, quality)
    first, second = np.triu_indices(len(values), k=1)
    if len(first) == 0:
        return float("nan")
    agreement = np.sign(values[first] - values[second]) * np.sign(quality[first] - quality[second])
    return float(agreement.mean())


def bootstrap[T](
    items: list[T],
    statistics: Callable[[list[T]], dict[str, float]],
    rng: np.random.Generator,
    *,
    resamples: int = 500,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Return percentile intervals of each statistic, resampling whole `items`.

    A resample in which a statistic is undefined (NaN) does not count; a statistic that is
    undefined in more than half of them gets (NaN, NaN).
    """
    drawn: dict[str, list[float]] = {}
    for _ in range(resamples):
        picks = rng.integers(len(items), size=len(items))
        for name, value in statistics([items[i] for i in picks]).items():
            drawn.setdefault(name, []).append(value)
    return {name: _interval(np.asarray(values), level) for name, values in drawn.items()}


def wilson(count: int, total: int, *, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's confidence interval of a share of `count` out of `total`.

    (NaN, NaN) where nothing was counted.
    """
    if total == 0:
        return float("nan"), float("nan")
    interval = binomtest(count, total).proportion_ci(confidence_level=level, method="wilson")
    return float(interval.low), float(interval.high)


def finite_mean(values: npt.ArrayLike) -> float:
    """Return the mean of the finite entries; NaN when there are none."""
    values = np.asarray(values, dtype=np.float64)
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def finite_pairs(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return the pairs of two arrays of one length in which both entries are finite.

    Raises:
        ValueError: the arrays have different lengths or more than one axis.
    """
    a, b = _paired(a, b)
    kept = np.isfinite(a) & np.isfinite(b)
    return a[kept], b[kept]


def _interval(values: Float64, level: float) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if 2 * len(finite) < len(values) or len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _sweep(scores: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[Float64, Float64] | None:
    """Return true and false positives when the threshold falls from score to distinct score."""
    scores, positive = _paired(scores, labels)
    positive = positive.astype(bool)
    if positive.all() or not positive.any() or not np.isfinite(scores).all():
        return None
    _, place = np.unique(-scores, return_inverse=True)
    counts = [np.bincount(place[positive == kind], minlength=place.max() + 1) for kind in (1, 0)]
    hits, false_alarms = (np.cumsum(c).astype(np.float64) for c in counts)
    return hits, false_alarms


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Float64, Float64]:
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two arrays of one length, got shapes {a.shape} and {b.shape}")
    return a, b


def _pearson(a: Float64, b: Float64) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(np.clip(a @ b / norm, -1.0, 1.0)) if norm > 0 else float("nan")
