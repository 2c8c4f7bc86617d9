import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math import two_hot


@given(st.floats(-1, 1), st.integers(3, 101))
def test_expectation_of_the_encoding_is_the_value(value, bins):
    weights = two_hot.encode(torch.tensor([value], dtype=torch.float64), bins)
    assert (weights > 0).sum() <= 2
    mean, variance = two_hot.expectation(weights.clamp(min=1e-300).log())
    assert abs(mean.item() - value) < 1e-12
    assert variance.item() <= (1 / (bins - 1)) ** 2 + 1e-12


def test_perfect_prediction_costs_nothing_and_others_cost_more():
    value = torch.linspace(-1, 1, 33, dtype=torch.float64)
    perfect = two_hot.encode(value, 41).clamp(min=1e-300).log()
    assert two_hot.cross_entropy(perfect, value).abs().max() < 1e-9
    assert two_hot.cross_entropy(torch.zeros(33, 41, dtype=torch.float64), value).min() > 1
