"""Strengths from comparisons: values by hand and properties."""

import numpy as np
import pytest
from scipy.special import expit

from embodied_reward.math.bradley_terry import strengths


def test_two_items_by_hand():
    """One win: the slope vanishes where sigmoid(-2 s) = prior * s."""
    s = strengths(np.array([0]), np.array([1]), 2, prior=0.1)
    assert s[0] == pytest.approx(-s[1])
    assert expit(-2 * s[0]) == pytest.approx(0.1 * s[0], abs=1e-4)


def test_those_never_compared_stay_at_zero_and_nobody_is_infinite():
    s = strengths(np.array([0, 0, 1]), np.array([1, 2, 2]), 4)
    assert s[0] > s[1] > s[2]
    assert s[3] == 0
    assert np.abs(s).max() < 10
    np.testing.assert_array_equal(strengths(np.empty(0, int), np.empty(0, int), 3), np.zeros(3))


def test_strengths_are_recovered_from_many_comparisons():
    rng = np.random.default_rng(0)
    true = rng.normal(size=8)
    pairs = rng.integers(8, size=(4000, 2))
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    won = rng.random(len(pairs)) < expit(true[pairs[:, 0]] - true[pairs[:, 1]])
    better = np.where(won, pairs[:, 0], pairs[:, 1])
    worse = np.where(won, pairs[:, 1], pairs[:, 0])
    found = strengths(better, worse, 8)
    np.testing.assert_allclose(found, true - true.mean(), atol=0.25)
