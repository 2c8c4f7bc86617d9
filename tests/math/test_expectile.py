"""Expectiles: their defining balance, and their two ends."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.expectile import expectile


@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9),
    st.floats(0.05, 0.95),
)
def test_an_expectile_balances_its_values(values, tau):
    x = torch.tensor(values, dtype=torch.float64)
    v = expectile(x, tau)
    pull = torch.where(x < v, 1 - tau, tau) * (x - v)
    assert abs(pull.sum()) <= 1e-9 * (1 + x.abs().sum())
    assert x.min() - 1e-9 <= v <= x.max() + 1e-9


def test_expectiles_rise_from_the_mean_to_the_largest_value():
    x = torch.tensor([[0.0, 1.0, 4.0], [2.0, 2.0, 2.0]])
    rising = torch.stack([expectile(x, tau) for tau in (0.5, 0.8, 0.99, 0.9999)])
    assert rising[0].tolist() == pytest.approx([5 / 3, 2.0])
    assert (rising[1:, 0] > rising[:-1, 0]).all()
    assert rising[-1].tolist() == pytest.approx([4.0, 2.0], abs=1e-3)


def test_what_has_no_expectile_is_refused():
    with pytest.raises(ValueError, match="tau"):
        expectile(torch.ones(3), 1.0)
    with pytest.raises(ValueError, match="no values"):
        expectile(torch.ones(2, 0), 0.5)
