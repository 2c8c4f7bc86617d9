import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math import symlog

GRID = symlog.grid(41, 20.0)


@given(st.floats(-1e4, 1e4))
def test_symexp_inverts_symlog(value):
    x = torch.tensor(value, dtype=torch.float64)
    assert symlog.symexp(symlog.symlog(x)).item() == pytest.approx(value, rel=1e-12, abs=1e-12)


def test_bins_reach_from_zero_to_the_top_and_widen():
    assert GRID[0] == 0
    assert GRID[-1].item() == pytest.approx(20.0)
    assert (GRID.diff().diff() > 0).all()


@given(st.floats(0, 20), st.integers(3, 101))
def test_expectation_of_the_encoding_is_the_value(value, bins):
    centres = symlog.grid(bins, 20.0)
    weights = symlog.encode(torch.tensor([value], dtype=torch.float64), centres)
    assert (weights > 0).sum() <= 2
    assert weights.sum().item() == pytest.approx(1.0)
    mean, variance = symlog.expectation(weights.clamp(min=1e-300).log(), centres)
    assert mean.item() == pytest.approx(value, abs=1e-9)
    assert variance.item() <= centres.diff().max().item() ** 2 / 4 + 1e-9


def test_values_beyond_the_bins_are_clamped():
    weights = symlog.encode(torch.tensor([-3.0, 99.0]), GRID)
    assert weights[0].argmax() == 0
    assert weights[1].argmax() == 40
    assert torch.equal(weights.sum(-1), torch.ones(2, dtype=weights.dtype))


def test_a_perfect_prediction_costs_nothing_and_others_cost_more():
    value = torch.linspace(0, 20, 33, dtype=torch.float64)
    perfect = symlog.encode(value, GRID).clamp(min=1e-300).log()
    assert symlog.cross_entropy(perfect, value, GRID).abs().max() < 1e-9
    uniform = torch.zeros(33, 41, dtype=torch.float64)
    assert symlog.cross_entropy(uniform, value, GRID).min() > 1


def test_the_one_sided_loss_asks_for_mass_at_or_above_the_bound_only():
    uniform = torch.zeros(1, 41, dtype=torch.float64)
    # At centre 10 of 41 the bins 10..40 count: P = 31/41.
    loss = symlog.at_least(uniform, GRID[10:11], GRID)
    assert loss.item() == pytest.approx(-math.log(31 / 41))
    # Half-way between two centres, the lower one counts half.
    middle = (GRID[10:11] + GRID[11:12]) / 2
    assert symlog.at_least(uniform, middle, GRID).item() == pytest.approx(-math.log(30.5 / 41))
    assert symlog.at_least(uniform, GRID[:1], GRID).abs().item() < 1e-12
    above = symlog.encode(GRID[30:31], GRID).clamp(min=1e-300).log()
    assert symlog.at_least(above, GRID[10:11], GRID).abs().item() < 1e-12


def test_the_one_sided_loss_has_finite_gradients():
    logits = torch.zeros(2, 41, requires_grad=True)
    symlog.at_least(logits, torch.tensor([20.0, 7.0]), GRID.float()).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0, :-1] > 0).all()
    assert logits.grad[0, -1] < 0
