"""Expectiles of a few values: between their mean and their largest."""

import torch
from torch import Tensor


def expectile(values: Tensor, tau: float) -> Tensor:
    """Return the tau-expectile of the last axis, Tensor["... n"] -> Tensor["..."].

    The v with sum_i |tau - 1[x_i < v]| (x_i - v) = 0 (Newey and Powell 1987): the mean at
    tau = .5, the largest value as tau approaches 1. The condition is piecewise linear and
    monotone, so reweighted means reach it after at most n + 1 steps.

    Raises:
        ValueError: tau is not in (0, 1), or there are no values.
    """
    if not 0 < tau < 1:
        raise ValueError(f"tau must be in (0, 1), got {tau}")
    if values.shape[-1] == 0:
        raise ValueError("no values to take an expectile of")
    found = values.mean(dim=-1)
    for _ in range(values.shape[-1] + 1):
        weights = asymmetry(values, found, tau)
        new = (weights * values).sum(dim=-1) / weights.sum(dim=-1)
        if torch.equal(new, found):
            break
        found = new
    return found


def asymmetry(values: Tensor, center: Tensor, tau: float) -> Tensor:
    """Return |tau - 1[x_i < center]|, Tensor["... n"], of values [... n] and centers [...]."""
    below = values < center.unsqueeze(-1)
    return torch.where(below, 1 - tau, tau).to(values.dtype)
