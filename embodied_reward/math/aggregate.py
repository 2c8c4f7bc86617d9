"""Scores of several runs on several tasks in one number, with bootstrap intervals.

After Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"
(arXiv:2108.13264), sections 4.2 and 4.3: the interquartile mean over all runs of all tasks, the
probability of improvement, and percentile intervals from a bootstrap that resamples the runs of
every task separately.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import trim_mean

from embodied_reward.types import Float64

type Scores = Mapping[str, Sequence[float]]
"""task -> the scores of its runs."""


def interquartile_mean(scores: Scores) -> float:
    """Return the mean of the middle half of all runs of all tasks; NaN without any.

    A quarter of the runs, rounded down, is cut off at either end.
    """
    everything = np.array([value for runs in scores.values() for value in runs], np.float64)
    return float(trim_mean(everything, 0.25)) if everything.size else float("nan")


def probability_of_improvement(scores: Scores, others: Scores) -> float:
    """Return P(a run of `scores` beats one of `others` on the same task), ties counted half.

    Averaged over tasks, each of which weighs the same; in [0, 1], NaN without common tasks.
    """
    shares = [_beats(runs, others[task]) for task, runs in scores.items() if task in others]
    return float(np.mean(shares)) if shares else float("nan")


def stratified_interval(
    groups: Sequence[Scores],
    statistic: Callable[..., float],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return the percentile interval of `statistic(*groups)`.

    Runs are drawn with replacement within every task of every group, so that no task gains
    or loses runs. (NaN, NaN) where no task has two runs, since nothing could vary.
    """
    if all(len(runs) < 2 for scores in groups for runs in scores.values()):
        return float("nan"), float("nan")
    drawn = [statistic(*(_resampled(s, rng) for s in groups)) for _ in range(resamples)]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _beats(runs: Sequence[float], others: Sequence[float]) -> float:
    a, b = np.asarray(runs, np.float64)[:, None], np.asarray(others, np.float64)[None, :]
    return float(((a > b) + 0.5 * (a == b)).mean())


def _resampled(scores: Scores, rng: np.random.Generator) -> dict[str, Float64]:
    return {
        t: np.asarray(r, np.float64)[rng.integers(len(r), size=len(r))] for t, r in scores.items()
    }
