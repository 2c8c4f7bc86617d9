"""Losses of preferences against analytic values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.preference import (
    attenuated,
    bernoulli_kl,
    bradley_terry,
    expected_bradley_terry,
    gauss_hermite,
    marginal_bradley_terry,
    n_way,
    rao_kupper,
    soft_bradley_terry,
    strength,
    uncertainty_weight,
    voted_targets,
    win_tie,
)

D = torch.linspace(-6, 6, 41, dtype=torch.float64)
TIE, WIN = torch.ones(41, dtype=torch.bool), torch.zeros(41, dtype=torch.bool)


def test_bradley_terry_is_the_log_likelihood():
    assert torch.allclose(bradley_terry(D), -torch.sigmoid(D).log())
    assert torch.equal(soft_bradley_terry(D, torch.ones(41)), bradley_terry(D))
    assert torch.allclose(soft_bradley_terry(D, torch.zeros(41)), bradley_terry(-D))


@pytest.mark.parametrize("loss", [win_tie, rao_kupper])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_gradient_of_a_tie_at_zero_is_exactly_zero(loss, dtype):
    d = torch.zeros(1, dtype=dtype, requires_grad=True)
    loss(d, torch.tensor([True])).sum().backward()
    assert d.grad.item() == 0.0


def test_win_tie_is_flat_near_zero_and_without_margin_is_bradley_terry():
    small, large = torch.tensor([0.3, 5.0]).requires_grad_(), torch.tensor(3.0)
    win_tie(small, torch.tensor([True, True]), float(large)).sum().backward()
    assert abs(small.grad[0]) < 0.05
    assert small.grad[1] > 0.8
    assert torch.equal(win_tie(D, WIN, 0.0), bradley_terry(D))


@pytest.mark.parametrize("k", [1.5, 5.0])
def test_the_three_outcomes_of_rao_kupper_add_up_to_one(k):
    win, lose = (-rao_kupper(D, WIN, k)).exp(), (-rao_kupper(-D, WIN, k)).exp()
    tie = (-rao_kupper(D, TIE, k)).exp()
    assert torch.allclose(win + lose + tie, torch.ones(41, dtype=torch.float64), atol=1e-12)


@given(st.lists(st.floats(-50, 50), min_size=2, max_size=2), st.integers(0, 1))
def test_two_candidates_are_bradley_terry_in_value_and_gradient(pair, best):
    a = torch.tensor(pair, requires_grad=True)
    b = torch.tensor(pair, requires_grad=True)
    left = n_way(a, torch.tensor([0, 0]), torch.tensor([best]))
    right = bradley_terry(b[best] - b[1 - best])
    left.sum().backward()
    right.backward()
    assert torch.allclose(left[0], right, atol=1e-5)
    assert (a.grad - b.grad).abs().max() <= 1e-6


def test_n_way_is_the_cross_entropy_of_ragged_sets():
    scores = torch.tensor([1.0, -2.0, 0.5, 300.0, 299.0], requires_grad=True)
    loss = n_way(scores, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 3]))
    first = torch.nn.functional.cross_entropy(scores[None, :3], torch.tensor([2]))
    second = torch.nn.functional.cross_entropy(scores[None, 3:], torch.tensor([0]))
    assert torch.allclose(loss, torch.stack([first, second]))


@pytest.mark.parametrize(("std", "error"), [(0.3, 1e-12), (1.0, 3e-6), (2.0, 1e-3)])
def test_eight_points_integrate_the_expected_loss(std, error):
    z = np.linspace(-14, 14, 200_001)
    weight = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    for mean in (-2.0, 0.0, 0.7, 3.0):
        exact = float((np.logaddexp(0, -(mean + std * z)) * weight).sum())
        values = [torch.tensor([v], dtype=torch.float64) for v in (mean, std)]
        assert abs(float(expected_bradley_terry(*values)) - exact) <= error


def test_gauss_hermite_is_exact_for_polynomials_and_without_spread():
    mean, std = torch.tensor([1.5], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    assert gauss_hermite(lambda z: z**2, mean, std).item() == pytest.approx(1.5**2 + 4, abs=1e-12)
    assert torch.allclose(expected_bradley_terry(D, torch.zeros_like(D)), bradley_terry(D))


def test_no_uncertainty_leaves_the_loss_alone():
    loss = torch.tensor([0.3, 2.0])
    assert torch.equal(attenuated(loss, torch.zeros(2)), loss)
    assert torch.equal(uncertainty_weight(torch.zeros(2)), torch.ones(2))
    assert torch.equal(bernoulli_kl(D, D), torch.zeros_like(D))
    p, q = torch.sigmoid(D), torch.sigmoid(D.flip(0))
    exact = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    assert torch.allclose(bernoulli_kl(D, D.flip(0)), exact)


def test_uncertain_readings_are_trusted_less():
    """30 % of the targets are 30 times as noisy; exp(-U) of two readings finds them."""
    ratio = [_error_ratio(np.random.default_rng(seed)) for seed in range(10)]
    assert np.median(ratio) >= 1.8


def _error_ratio(rng):
    w, x = rng.normal(size=6), rng.normal(size=(300, 6))
    std = np.where(rng.random(300) < 0.3, 3.0, 0.1)
    readings = x @ w + std * rng.normal(size=(2, 300))
    u = readings.var(0, ddof=1)
    weighted = uncertainty_weight(torch.from_numpy(u), tau=0.5).numpy()

    def error(weight):
        root = np.sqrt(weight)
        found = np.linalg.lstsq(root[:, None] * x, root * readings.mean(0), rcond=None)[0]
        return np.linalg.norm(found - w)

    return error(np.ones(300)) / error(weighted)


def test_strength_and_votes():
    mean, std = strength(np.array([[1.0, -2.0], [3.0, -2.0]]))
    assert mean.tolist() == [2.0, -2.0]
    assert std.tolist() == [1.0, 0.0]
    votes = np.array([-3.0, -1.0, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    target = voted_targets(votes, flip=0.3, soften=0.2, smoothing=0.2)
    # flipped only where the vote contradicts; the weak rest is softened
    assert target.tolist() == [0.0, 0.0, 0.8, 0.8, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]


def test_the_expected_loss_never_rewards_spread_and_the_marginal_one_does_for_mistakes():
    mean, spread = torch.tensor([-3.0, 3.0]), [torch.full((2,), s) for s in (0.1, 1.0, 2.0)]
    expected = torch.stack([expected_bradley_terry(mean, s) for s in spread])
    marginal = torch.stack([marginal_bradley_terry(mean, s) for s in spread])
    assert (expected.diff(dim=0) > 0).all()
    assert (marginal[:, 0].diff() < 0).all()
    assert (marginal[:, 1].diff() > 0).all()
    assert (marginal <= expected + 1e-6).all()
    assert torch.isfinite(marginal_bradley_terry(torch.tensor([-500.0]), spread[1][:1])).all()
