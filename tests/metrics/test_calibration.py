import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_reward.metrics.calibration import (
    calibration_slope,
    expected_calibration_error,
    reliability,
)

unit = st.floats(0, 1)
pairs = st.integers(1, 30).flatmap(
    lambda n: st.tuples(arrays(float, n, elements=unit), arrays(float, n, elements=unit))
)


def test_bins_hold_means_and_empty_ones_are_nan():
    found = reliability([0.05, 0.15, 0.15, 1.0], [0, 1, 0, 1], bins=10)
    assert found.centre == pytest.approx(np.linspace(0.05, 0.95, 10))
    assert found.count.tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0, 1]
    assert found.predicted[[0, 1, 9]] == pytest.approx([0.05, 0.15, 1.0])
    assert found.observed[[0, 1, 9]] == pytest.approx([0, 0.5, 1])
    assert np.isnan(found.predicted[2:9]).all()
    assert np.isnan(found.observed[2:9]).all()
    # (0.05 + 2 * 0.35 + 0) / 4
    assert expected_calibration_error(found) == pytest.approx(0.1875)


def test_a_constant_at_the_base_rate_has_no_calibration_error():
    found = reliability(np.full(10, 0.3), [1, 1, 1] + [0] * 7)
    assert expected_calibration_error(found) == pytest.approx(0, abs=1e-12)
    assert expected_calibration_error(reliability(np.ones(10), np.zeros(10))) == 1.0


@given(pairs)
def test_error_is_between_0_and_1_and_0_for_the_truth(pair):
    predicted, outcome = pair
    assert 0 <= expected_calibration_error(reliability(predicted, outcome)) <= 1
    assert expected_calibration_error(reliability(predicted, predicted)) == pytest.approx(0)
    assert reliability(predicted, outcome).count.sum() == len(predicted)


def test_unknown_numbers_are_left_out_and_nothing_left_is_nan():
    assert reliability([0.1, np.nan, 0.9], [0, 1, np.nan]).count.sum() == 1
    empty = reliability([], [])
    assert np.isnan(expected_calibration_error(empty))
    assert np.isnan(empty.predicted).all()


def test_predictions_outside_0_to_1_count_as_they_are():
    found = reliability([1.5, -0.5], [1, 0])
    assert (found.count[0], found.count[-1]) == (1, 1)
    assert expected_calibration_error(found) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="at least one"):
        reliability([0.5], [1], bins=0)


@given(st.floats(-3, 3), st.floats(-1, 1))
def test_slope_and_intercept_of_a_line(slope, intercept):
    x = np.linspace(0, 1, 9)
    assert calibration_slope(x, slope * x + intercept) == pytest.approx((slope, intercept))


def test_predictions_twice_too_extreme_have_slope_one_half():
    y = np.linspace(0.25, 0.75, 11)
    assert calibration_slope(0.5 + 2 * (y - 0.5), y) == pytest.approx((0.5, 0.25))


@given(unit)
def test_a_constant_has_no_slope(value):
    assert np.isnan(calibration_slope(np.full(7, value), np.linspace(0, 1, 7))).all()
    assert np.isnan(calibration_slope([value], [1.0])).all()
    assert np.isnan(calibration_slope([], [])).all()
