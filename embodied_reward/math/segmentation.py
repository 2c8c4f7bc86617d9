"""Cutting a demonstration into steps without labels.

After the step discovery of Sermanet et al. (arXiv:1612.06699, section 2.1): neighbouring frames
of one step look alike. The cost of a segment is its summed squared deviation from its own mean,
i.e. length times variance, and the best cuts are found exactly by dynamic programming in
O(n t^2).

Deviation: the paper averages the standard deviations of the segments without regard to their
lengths, which makes short segments at the ends cheap; the length-weighted form does not. The
paper's objective is there as `objective="paper"`; use it with `shortest` of t / 2n or more.
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.types import Float32, Float64, Int64

LEAST_SHARE = 0.1
"""A further step must remove at least this share of the whole sequence's cost."""


def segment(
    features: Float32 | Float64, steps: int, *, shortest: int = 2, objective: str = "variance"
) -> tuple[Int64, float]:
    """Cut a sequence into `steps` segments of least cost, by default summed squared deviation.

    Args:
        features: Float["t d"], any precision.
        steps: number of segments n >= 1.
        shortest: least frames per segment; n * shortest <= t.
        objective: `variance`, or `paper`: the mean over segments of the features' mean standard
            deviation, whatever the segments' lengths.

    Returns:
        Boundaries Int64["n+1"] from 0 to t, segment k is [b_k, b_{k+1}), and the summed cost.

    Raises:
        ValueError: the sequence is too short for so many segments, or an unknown objective.
    """
    length = len(features)
    if steps < 1 or shortest < 1 or steps * shortest > length:
        raise ValueError(f"cannot cut {length} frames into {steps} steps of >= {shortest}")
    if objective not in OBJECTIVES:
        raise ValueError(f"no objective '{objective}'; there are {', '.join(OBJECTIVES)}")
    cost = OBJECTIVES[objective](features, shortest)
    best = [cost[0]]  # best[k][e]: least cost of frames [0, e) in k + 1 segments
    cuts: list[Int64] = []
    for _ in range(steps - 1):
        total = best[-1][:, None] + cost
        cuts.append(np.argmin(total, axis=0))
        best.append(np.min(total, axis=0))
    bounds = [length]
    for cut in reversed(cuts):
        bounds.append(int(cut[bounds[-1]]))
    return np.array([0, *reversed(bounds)], np.int64), float(best[-1][length])


def choose_steps(
    sequences: Sequence[Float32] | Sequence[Float64],
    *,
    most: int = 6,
    least_gain: float = 0.4,
    shortest: int = 3,
) -> int:
    """Choose the number of steps: one more must explain `least_gain` of what is left.

    Args:
        sequences: features Float64["t d"] of every demonstration.
        most: largest number of steps tried.
        least_gain: smallest share of the remaining cost that a further step must remove, on
            average over the demonstrations.
        shortest: least frames per step.

    A motion at constant speed has no steps, although more cuts always fit it better: the cost of
    a straight line in n steps is 1 / n^2. Costs are therefore compared with a line's, after the
    share that no cut can remove, the difference between neighbouring frames, was taken off.
    """
    most = min([most, *(len(s) // shortest for s in sequences)])
    if most < 2:
        return 1
    mean = np.mean([_explainable(s, most, shortest) for s in sequences], axis=0)
    chosen = 1
    for steps in range(2, most + 1):
        before, after = mean[chosen - 1], mean[steps - 1]
        line = (chosen / steps) ** 2
        if after < (1 - least_gain) * line * before and before - after > LEAST_SHARE:
            chosen = steps
    return chosen


def _explainable(features: Float32 | Float64, most: int, shortest: int) -> Float64:
    """Return Float64["most"], costs of 1..most steps as shares of the whole, less the noise."""
    cost = [segment(features, n, shortest=shortest)[1] for n in range(1, most + 1)]
    noise = np.square(np.diff(features, axis=0)).sum(axis=1)
    floor = float(np.median(noise)) / 2 * len(features)
    return np.maximum(np.array(cost) - floor, 0.0) / max(cost[0], 1e-12)


def _costs(features: Float32 | Float64, shortest: int) -> Float64:
    """Return Float64["t+1 t+1"]: summed squared deviation of frames [i, j), inf if too short."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0)])
    squares = np.concatenate([[0.0], np.cumsum(np.square(x).sum(axis=1))])
    at = np.arange(len(x) + 1)
    length = at[None, :] - at[:, None]
    # |total_j - total_i|^2 without a t x t x d array.
    norm = np.square(total).sum(axis=1)
    summed = norm[None, :] + norm[:, None] - 2 * total @ total.T
    with np.errstate(divide="ignore", invalid="ignore"):
        cost = squares[None, :] - squares[:, None] - summed / length
    return np.where(length >= shortest, np.maximum(cost, 0.0), np.inf)


def _deviations(features: Float32 | Float64, shortest: int) -> Float64:
    """Return Float64["t+1 t+1"]: mean standard deviation of frames [i, j), inf if too short."""
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    cost = np.full((len(x) + 1, len(x) + 1), np.inf)
    for i in range(len(x) + 1 - shortest):
        count = np.arange(1, len(x) - i + 1)[:, None]
        mean = np.cumsum(x[i:], axis=0) / count
        variance = np.cumsum(np.square(x[i:]), axis=0) / count - np.square(mean)
        deviation = np.sqrt(np.maximum(variance, 0.0)).mean(axis=1)
        cost[i, i + shortest :] = deviation[shortest - 1 :]
    return cost


OBJECTIVES = {"variance": _costs, "paper": _deviations}
"""What a segment costs, by name."""
