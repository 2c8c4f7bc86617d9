"""Cloning by progress: how much each window of a demonstration counts (RA-BC)."""

import numpy as np

from embodied_reward.types import Float64

MINIMUM_SPREAD = 1e-6


def progress_deltas(potential: Float64, steps: int) -> Float64:
    """Return Phi(t + steps) - Phi(t) Float64["t"]; past the end the last value counts.

    Args:
        potential: Float64["t"] of one episode, as a reward model sees it.
        steps: actions that are carried out before the next plan.
    """
    later = np.minimum(np.arange(len(potential)) + steps, len(potential) - 1)
    return potential[later] - potential


def progress_weights(deltas: Float64, *, threshold: float = 0.01) -> Float64:
    """Return the weight Float64["n"] in [0, 1] of every window.

    w = 1 where r > kappa, soft(r) where 0 <= r <= kappa, and 0 where the progress falls, with
    soft(r) = clip((r - (mu - 2 sigma)) / (4 sigma + eps), 0, 1), mu floored at 0. A window whose
    progress is unknown (NaN) counts fully: not to know is no reason to drop it.

    Source: reward-aligned behaviour cloning of SARM (Chen et al. 2025, equations 8 and 9), with
    the constants of LeRobot's `RABCWeights`.

    Args:
        deltas: r, progress over the actions of one plan, of all windows together.
        threshold: kappa.
    """
    known = deltas[np.isfinite(deltas)]
    if not len(known):
        return np.ones(len(deltas))
    mean, spread = max(float(known.mean()), 0.0), max(float(known.std()), MINIMUM_SPREAD)
    soft = ((deltas - (mean - 2 * spread)) / (4 * spread + MINIMUM_SPREAD)).clip(0.0, 1.0)
    weights = np.where(deltas > threshold, 1.0, np.where(deltas >= 0, soft, 0.0))
    return np.where(np.isfinite(deltas), weights, 1.0)
