"""Aggregates over tasks and runs, against numbers worked out by hand."""

import numpy as np
import pytest

from embodied_reward.math.aggregate import (
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)


def test_the_interquartile_mean_cuts_a_quarter_of_all_runs_at_either_end():
    # Eight runs of two tasks: 0, 0 and 1, 1 fall away.
    assert interquartile_mean({"a": [0, 0, 0.2, 0.4], "b": [0.6, 0.8, 1, 1]}) == pytest.approx(0.5)
    # Of six runs one falls away at either end, of three none.
    assert interquartile_mean({"a": [0, 1, 0.1], "b": [0.5, 0.7, 0.3]}) == pytest.approx(0.4)
    assert interquartile_mean({"a": [0, 0.3, 0.9]}) == pytest.approx(0.4)
    assert np.isnan(interquartile_mean({}))


def test_the_probability_of_improvement_counts_ties_half_and_tasks_alike():
    ours, theirs = {"a": [1, 0.5], "b": [0]}, {"a": [0.5, 0.7], "b": [0.1, 0.2, 0.3]}
    # Task a: 1 beats both, 0.5 ties with one: 2.5 of 4 pairs. Task b: none.
    assert probability_of_improvement(ours, theirs) == pytest.approx((2.5 / 4 + 0) / 2)
    assert probability_of_improvement(theirs, ours) == pytest.approx(1 - 0.3125)
    assert probability_of_improvement(ours, ours) == pytest.approx(0.5)
    assert np.isnan(probability_of_improvement(ours, {"c": [1]}))


def test_a_task_that_one_side_lacks_does_not_count():
    assert probability_of_improvement({"a": [1], "b": [0]}, {"a": [0]}) == 1


def test_the_bootstrap_resamples_within_tasks():
    rng = np.random.default_rng(0)
    # Between tasks the runs differ widely, within them not at all: nothing can vary.
    still = {"a": [0.0] * 3, "b": [1.0] * 3}
    assert stratified_interval([still], interquartile_mean, rng) == (0.5, 0.5)
    low, high = stratified_interval([{"a": [0.0, 0.5, 1.0]}], interquartile_mean, rng)
    # The mean of three draws is 0 or 1 with probability 1/27 each, beyond 2.5 %.
    assert (low, high) == (0.0, 1.0)


@pytest.mark.slow
def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(200):
        runs = {t: rng.normal(0.5, 0.1, 12) for t in "ab"}
        low, high = stratified_interval([runs], interquartile_mean, rng, resamples=200)
        covered += low <= 0.5 <= high
    assert 0.85 < covered / 200 <= 0.99


def test_one_run_per_task_has_no_interval():
    rng = np.random.default_rng(0)
    assert all(np.isnan(stratified_interval([{"a": [1.0], "b": [0.0]}], interquartile_mean, rng)))


def test_the_same_generator_gives_the_same_interval():
    groups = [{"a": [0.1, 0.5, 0.9]}, {"a": [0.2, 0.4, 0.3]}]
    first, again = (
        stratified_interval(groups, probability_of_improvement, np.random.default_rng(3))
        for _ in range(2)
    )
    assert first == again
    assert first[0] < first[1]
