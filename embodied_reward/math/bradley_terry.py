"""Strengths of items from comparisons between some of them: Bradley and Terry 1952, regularised."""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from embodied_reward.types import Float64, Int64


def strengths(better: Int64, worse: Int64, count: int, *, prior: float = 0.1) -> Float64:
    """Return the most probable strengths s of P(i beats j) = sigmoid(s_i - s_j), Float64["n"].

    Minimises sum log(1 + exp(s_worse - s_better)) + prior / 2 sum s^2. The Gaussian prior keeps
    strengths finite where somebody never lost, and leaves those that were never compared at 0.

    Args:
        better: Int64["p"], items in [0, count) that won; no comparison gives zeros.
        worse: Int64["p"], those that lost.
        count: number of items n.
        prior: inverse variance of the strengths, > 0.
    """

    def objective(s: Float64) -> tuple[float, Float64]:
        lead = s[better] - s[worse]
        slope = np.zeros(count)
        np.add.at(slope, better, -expit(-lead))
        np.add.at(slope, worse, expit(-lead))
        return float(np.logaddexp(0, -lead).sum() + prior / 2 * s @ s), slope + prior * s

    return minimize(objective, np.zeros(count), jac=True, method="L-BFGS-B").x
