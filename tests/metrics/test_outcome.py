import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.metrics import outcome

rng = np.random.default_rng


def test_hovering_is_a_high_potential_without_success():
    found = outcome.hover_rate([0.9, 0.9, 0.7, 0.95], [0, 1, 0, 0])
    assert found.value == 0.5
    assert found.low < 0.5 < found.high
    assert np.isnan(outcome.hover_rate([], [])).all()


def test_hack_gap_is_what_the_reward_promises_beyond_success():
    assert outcome.reward_hack_gap([0.9, 0.9], [1, 0]) == pytest.approx(0.4)
    assert np.isnan(outcome.reward_hack_gap([], []))
    with pytest.raises(ValueError, match="one length"):
        outcome.reward_hack_gap([0.5], [1, 0])


def test_gold_counts_an_episode_once_wherever_it_pays():
    curves = [np.array([0.1, 0.96, 0.2]), np.array([0.9, 0.94]), np.array([np.nan, 1.0])]
    assert outcome.false_gold(curves, [False, False, True]).value == 0.5
    assert outcome.true_gold(curves, [False, False, True]).value == 1.0
    assert outcome.false_gold(curves, [False, False, True], delta=0.1).value == 1.0
    assert np.isnan(outcome.true_gold(curves, [False] * 3).value)
    with pytest.raises(ValueError, match="3 potentials and 1"):
        outcome.false_gold(curves, [True])


def test_wilson_interval_of_zero_out_of_ten():
    found = outcome.rate(np.zeros(10))
    assert found.value == found.low == 0
    assert found.high == pytest.approx(0.2775, abs=1e-4)


def test_a_constant_potential_is_not_flattered():
    """It never hovers and never pays falsely, but it never pays at all either."""
    constant, success = [np.full(5, 0.5)] * 4, [1, 1, 0, 0]
    assert outcome.false_gold(constant, success).value == 0
    assert outcome.true_gold(constant, success).value == 0
    always = [np.ones(5)] * 4
    assert outcome.false_gold(always, success).value == 1
    assert outcome.hover_rate([1.0] * 4, success).value == 0.5


def test_episodes_to_80_percent_of_the_final_rate():
    x = [0, 50, 100, 150, 200]
    assert outcome.episodes_to(x, [0, 0.3, 0.64, 0.7, 0.8]) == 100
    assert outcome.episodes_to(x, [0.9, 0.3, 0.6, 0.7, 0.8]) == 0
    assert outcome.episodes_to(x, [0, 0.3, 0.64, 0.7, 0.8], fraction=1.0) == 200
    assert np.isnan(outcome.episodes_to(x, [0.0, 0.5, 0, 0, 0]))
    assert np.isnan(outcome.episodes_to([], []))


def test_curve_area_is_the_mean_rate():
    assert outcome.curve_area([0, 10, 30], [0, 1, 1]) == pytest.approx(25 / 30)
    assert np.isnan(outcome.curve_area([5], [1]))


def test_iqm_leaves_out_the_outer_quarters():
    assert outcome.iqm([0, 1, 2, 3, 4, 5, 6, 100]) == 3.5
    assert np.isnan(outcome.iqm([]))
    assert np.isnan(outcome.iqm([1.0, np.nan, 2.0, 3.0]))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=8), st.integers(0, 99))
def test_interval_holds_the_iqm_of_one_task_and_repeats(values, seed):
    found = outcome.iqm_interval(values, rng(seed), resamples=200)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert found == outcome.iqm_interval(values, rng(seed), resamples=200)


def test_runs_are_resampled_within_their_task():
    """Every run of a task is alike, so there is nothing to resample."""
    values = np.tile([0.1, 0.5, 0.9, 0.3], (5, 1))
    found = outcome.iqm_interval(values, rng(0))
    assert found.low == pytest.approx(found.high) == pytest.approx(found.value)
    assert np.isnan(outcome.iqm_interval([[0.1, np.nan]], rng(0))).all()
    assert np.isnan(outcome.iqm_interval([], rng(0))).all()


def test_invariance_gap_over_seeds():
    same = outcome.invariance_gap([0.8, 0.9, 1.0], [0.9, 0.8, 1.0], rng(0))
    assert same.value == pytest.approx(0)
    assert same.low < 0 < same.high
    trap = outcome.invariance_gap([0.1, 0.0, 0.05], [0.9, 0.8, 1.0], rng(0))
    assert trap.high < -0.6
    assert np.isnan(outcome.invariance_gap([], [1.0], rng(0))).all()
