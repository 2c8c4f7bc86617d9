"""Bi-level rewards where everything is known exactly: gradients, and BARFI on a chain."""

import numpy as np
import pytest
import torch

from embodied_reward.errors import NonFiniteError
from embodied_reward.policies.blends.implicit import implicit_gradient, neumann

STATES, GAMMA, RIDGE = 6, 0.95, 0.01
ENV = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)  # weights of the reward that is meant


def zeros(*shape):
    return torch.zeros(*shape, dtype=torch.float64)


def chain():
    """Transitions [s a s], and rewards [k s a]: success at the right end, a helpful heuristic that
    pays for going right, a misleading one that pays three times as much for going left."""
    p, reward = zeros(STATES, 2, STATES), zeros(3, STATES, 2)
    for s in range(STATES - 1):
        for a, move in ((0, -1), (1, 1)):
            after = min(max(s + move, 0), STATES - 1)
            p[s, a, after] = 1.0
            reward[0, s, a] = float(after == STATES - 1)
    reward[1, :-1, 1], reward[2, :-1, 0] = 0.1, 0.3
    p[..., -1] = 0.0  # the right end is terminal
    return p, reward


MOVES, REWARD = chain()


def value(theta, weights):
    """The exact return of the softmax policy from the left end, differentiable."""
    pi = torch.softmax(theta, 1)
    moves = torch.einsum("sa,sat->st", pi, MOVES)
    paid = torch.einsum("k,ksa,sa->s", weights, REWARD, pi)
    return torch.linalg.solve(torch.eye(STATES, dtype=torch.float64) - GAMMA * moves, paid)[0]


def learn(theta, weights, steps):
    """The inner learner: gradient ascent on its own reward."""
    for _ in range(steps):
        goal = value(theta, weights) - RIDGE / 2 * theta.square().sum()
        theta = (theta + torch.autograd.grad(goal, theta)[0]).detach().requires_grad_()
    return theta


def start():
    return zeros(STATES, 2).requires_grad_()


def quadratic():
    """An inner problem whose optimum is known: theta* = (ridge + D)^-1 B phi."""
    rng = np.random.default_rng(0)
    d = torch.tensor(rng.random(5) + 0.5)
    b, target = torch.tensor(rng.normal(size=(5, 3))), torch.tensor(rng.normal(size=5))
    phi = torch.tensor(rng.normal(size=3), requires_grad=True)
    theta = ((b @ phi) / (0.3 + d)).detach().requires_grad_()
    outer = lambda: -(theta - target).square().sum()  # noqa: E731
    inner = lambda: theta @ b @ phi - 0.5 * (d * theta).dot(theta)  # noqa: E731
    expected = -2 * (theta - target).detach() @ (b / (0.3 + d)[:, None])
    return outer, inner, theta, phi, expected


def test_the_gradient_of_a_known_optimum():
    outer, inner, theta, phi, expected = quadratic()
    found = implicit_gradient(outer, inner, [theta], phi, ridge=0.3)
    torch.testing.assert_close(found, expected)


def test_the_series_tends_to_the_solution_and_its_first_term_is_one_step():
    outer, inner, theta, phi, expected = quadratic()
    rough, fine = (
        implicit_gradient(outer, inner, [theta], phi, ridge=0.3, terms=n, step=0.5) for n in (3, 80)
    )
    torch.testing.assert_close(fine, expected, rtol=1e-6, atol=1e-6)
    assert (rough - expected).abs().max() > 1e-3
    v = torch.arange(4.0)
    torch.testing.assert_close(neumann(lambda x: 7 * x, v, 1, 0.1), 0.1 * v)


def test_the_gradient_on_the_chain_is_that_of_finite_differences():
    weights = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64, requires_grad=True)
    theta = learn(start(), weights.detach(), 2000)
    found = implicit_gradient(
        lambda: value(theta, ENV), lambda: value(theta, weights), [theta], weights, ridge=RIDGE
    )
    for k in range(3):
        ends = []
        for sign in (1, -1):
            moved = weights.detach().clone()
            moved[k] += sign * 1e-3
            ends.append(value(learn(theta, moved, 500), ENV).item())
        assert found[k].item() == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("terms", [None, 1, 5])
@pytest.mark.slow
def test_a_misleading_heuristic_loses_its_weight_and_the_return_is_no_less_than_without(terms):
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    theta = start()
    for _ in range(60):
        theta = learn(theta, weights.detach(), 20)
        found = implicit_gradient(
            lambda theta=theta: value(theta, ENV),
            lambda theta=theta, weights=weights: value(theta, weights),
            *([theta], weights),
            ridge=RIDGE,
            terms=terms,
            step=1.0,
        )
        weights = (weights.detach() + 0.1 * found / found.norm()).clamp(min=0).requires_grad_()
    reached = value(theta, ENV).item()
    alone = value(learn(start(), ENV, 1200), ENV).item()
    trusting = value(learn(start(), torch.ones(3, dtype=torch.float64), 1200), ENV).item()
    assert weights[2].item() < 0.1
    assert weights[0].item() > 1
    assert reached >= alone
    assert trusting < 0.1 * alone  # the fixed blend is led astray for good


def test_an_objective_that_is_not_finite_stops_the_update():
    outer, _, theta, phi, _ = quadratic()
    with pytest.raises(NonFiniteError, match="not finite"):
        implicit_gradient(outer, lambda: theta.sum() * phi.sum() * torch.nan, [theta], phi)
