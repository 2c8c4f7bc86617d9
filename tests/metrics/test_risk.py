import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_reward.metrics.risk import (
    aurc,
    excess_aurc,
    oracle_aurc,
    random_aurc,
    risk_coverage,
)

# Whole numbers, so that ties are common and sums exact.
errors = st.integers(1, 25).flatmap(
    lambda n: st.tuples(
        arrays(float, n, elements=st.integers(0, 20)), arrays(float, n, elements=st.integers(0, 3))
    )
)


def test_the_most_certain_are_accepted_first():
    coverage, risk = risk_coverage([4.0, 1.0, 2.0, 3.0], [0.9, 0.1, 0.2, 0.3])
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert risk.tolist() == [1.0, 1.5, 2.0, 2.5]
    assert aurc([4.0, 1.0, 2.0, 3.0], [0.9, 0.1, 0.2, 0.3]) == 1.75
    assert oracle_aurc([4.0, 1.0, 2.0, 3.0]) == 1.75


def test_ties_share_their_mean_error():
    _, risk = risk_coverage([0.0, 4.0, 1.0], [0.5, 0.5, 0.1])
    assert risk == pytest.approx([1.0, 1.5, 5 / 3])


@given(errors, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(pair, random):
    error, uncertainty = pair
    order = list(range(len(error)))
    random.shuffle(order)
    assert aurc(error[order], uncertainty[order]) == pytest.approx(aurc(error, uncertainty))


@given(errors)
def test_a_constant_uncertainty_is_exactly_random_and_nothing_beats_the_oracle(pair):
    error, uncertainty = pair
    assert aurc(error, np.full(len(error), 0.7)) == random_aurc(error)
    assert random_aurc(error) == pytest.approx(error.mean())
    assert oracle_aurc(error) <= aurc(error, uncertainty) + 1e-9
    assert oracle_aurc(error) <= aurc(error, -error) + 1e-9


def test_random_is_the_mean_over_orders():
    error, rng = np.array([0.0, 1.0, 5.0, 2.0]), np.random.default_rng(0)
    drawn = [aurc(error, rng.random(4)) for _ in range(4000)]
    assert np.mean(drawn) == pytest.approx(random_aurc(error), abs=0.03)


def test_excess_is_0_for_the_oracle_1_for_random_and_more_for_the_reverse():
    error = np.array([0.1, 0.4, 0.2, 0.9])
    assert excess_aurc(error, error) == pytest.approx(0)
    assert excess_aurc(error, np.ones(4)) == pytest.approx(1)
    assert excess_aurc(error, -error) > 1


def test_undefined_cases_are_nan():
    assert np.isnan(aurc([], []))
    assert np.isnan(random_aurc([np.nan]))
    assert np.isnan(excess_aurc([0.5, 0.5], [0.1, 0.2]))
    assert aurc([1.0, np.nan, 3.0], [0.0, 0.0, np.nan]) == 1.0
    with pytest.raises(ValueError, match="one length"):
        aurc([1.0], [1.0, 2.0])
