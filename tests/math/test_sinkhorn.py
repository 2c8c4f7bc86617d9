"""Values of optimal transport that can be worked out by hand, and its laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.math import sinkhorn
from embodied_reward.math.sinkhorn import band, context_cost, cosine_cost, step_rewards, transport


def random_cost(seed, *shape, dtype=torch.float64):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks(*lengths, size):
    return torch.arange(size) < torch.tensor(lengths)[:, None]


def distance(cost, **options):
    return -step_rewards(cost, transport(cost, **options).plan).sum(-1)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize(
    ("epsilon", "stay"), [(1.0, 0.7310586), (0.5, 0.8807971), (0.1, 0.9999546)]
)
def test_two_by_two(epsilon, stay, detach):
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    found = transport(cost, epsilon, detach=detach, iterations=100)
    p = 1 / (1 + math.exp(-1 / epsilon))
    assert p == pytest.approx(stay, abs=1e-7)
    expected = torch.tensor([[p, 1 - p], [1 - p, p]], dtype=torch.float64) / 2
    torch.testing.assert_close(found.plan[0], expected, atol=1e-9, rtol=0)
    assert found.converged.all()


def test_constant_cost_gives_the_uniform_plan():
    cost = torch.full((1, 5, 7), 0.3, dtype=torch.float64)
    found = transport(cost, 0.05)
    torch.testing.assert_close(found.plan, torch.full_like(cost, 1 / 35))
    assert float(step_rewards(cost, found.plan).sum()) == pytest.approx(-0.3)


@pytest.mark.parametrize("epsilon", [0.0, 0.005])
def test_translation_on_a_line_costs_its_length(epsilon):
    points = torch.arange(6, dtype=torch.float64)
    cost = (points[:, None] - points[None] - 0.37).abs()[None]
    assert float(distance(cost, epsilon=epsilon)) == pytest.approx(0.37, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 12),
    st.integers(1, 12),
    st.sampled_from([0.3, 1.0]),
)
def test_marginals(seed, t, s, epsilon):
    cost = 2 * random_cost(seed, 3, t, s)
    found = transport(cost, epsilon, iterations=20_000, tolerance=1e-8)
    assert found.converged.all()
    np.testing.assert_allclose(found.plan.sum(2), 1 / t, atol=1e-6)
    np.testing.assert_allclose(found.plan.sum(1), 1 / s, atol=1e-6)
    assert (found.plan >= 0).all()
    assert (step_rewards(cost, found.plan) <= 0).all()


def test_a_batch_of_ragged_items_is_its_items():
    rows, columns = masks(4, 9, 1, size=9), masks(7, 7, 2, size=7)
    cost = random_cost(0, 3, 9, 7)
    batch = transport(cost, 0.1, rows=rows, columns=columns, tolerance=1e-11)
    for k in range(3):
        alone = cost[k : k + 1, rows[k]][:, :, columns[k]]
        single = transport(alone, 0.1, tolerance=1e-11).plan[0]
        inside = batch.plan[k][rows[k]][:, columns[k]]
        torch.testing.assert_close(inside, single, atol=1e-8, rtol=0)
        assert float(batch.plan[k].sum()) == pytest.approx(1)
    assert not batch.plan[~(rows[:, :, None] & columns[:, None, :])].any()


def test_padding_may_hold_anything():
    rows = masks(3, 5, size=5)
    cost = random_cost(1, 2, 5, 4)
    dirty = torch.where(rows[:, :, None], cost, torch.nan)
    clean, found = (transport(c, 0.1, rows=rows).plan for c in (cost, dirty))
    assert torch.equal(clean, found)


def test_scaling_and_logarithms_agree_where_the_plain_kernel_underflows(monkeypatch):
    cost = 8 + 12 * random_cost(2, 2, 12, 12)
    assert not (-cost / 0.01).exp().any()  # the plain kernel is nothing but zeros
    fast = transport(cost, 0.01, iterations=3000)
    monkeypatch.setattr(sinkhorn, "LARGEST_SCALING", 1.0)  # logarithms throughout
    slow = transport(cost, 0.01, iterations=3000)
    torch.testing.assert_close(fast.plan, slow.plan, atol=1e-8, rtol=0)
    exact = distance(cost, epsilon=0)
    np.testing.assert_allclose(distance(cost, epsilon=0.01, iterations=3000), exact, rtol=0.01)


def test_single_precision():
    cost = random_cost(3, 4, 16, 16)
    double, single = (transport(c, 0.05).plan for c in (cost, cost.float()))
    torch.testing.assert_close(single.double(), double, atol=1e-5, rtol=0)


def test_more_entropy_never_costs_less_than_the_exact_plan():
    cost = random_cost(4, 1, 10, 10)
    exact = float(distance(cost, epsilon=0))
    costs = [float(distance(cost, epsilon=e, iterations=5000)) for e in (0.01, 0.1, 1.0)]
    assert exact <= costs[0] <= costs[1] <= costs[2]


def test_the_detached_gradient_is_the_plan():
    cost = random_cost(5, 1, 6, 6).requires_grad_()
    plan = transport(cost, 0.1).plan
    assert not plan.requires_grad
    (cost * plan).sum().backward()
    torch.testing.assert_close(cost.grad, plan)


def test_the_unrolled_gradient_is_that_of_finite_differences():
    cost = random_cost(6, 2, 3, 4).requires_grad_()
    rows = masks(3, 2, size=3)

    def value(c):
        plan = transport(c, 0.5, rows=rows, iterations=50, detach=False).plan
        return (plan * c).sum()

    assert torch.autograd.gradcheck(value, cost)


def video(seed=0, t=24, d=8):
    """A smooth path of unit vectors."""
    rng = np.random.default_rng(seed)
    a, b = np.linalg.qr(rng.normal(size=(d, 2)))[0].T
    angle = np.linspace(0, 2.5, t)[:, None]
    return torch.from_numpy(np.cos(angle) * a + np.sin(angle) * b)


def against(demo, other, *, epsilon=0.0, **options):
    cost = cosine_cost(other[None], demo[None])
    return -float(distance(cost, epsilon=epsilon, **options))


def test_plain_transport_is_blind_to_order_and_a_band_or_context_is_not():
    """Section A.4: same, reversed and shuffled videos score the maximum 0."""
    demo = video()
    shuffled = demo[torch.randperm(len(demo), generator=torch.Generator().manual_seed(0))]
    still = demo[:1].expand_as(demo)
    noise = torch.randn(24, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for other in (demo, demo.flip(0), shuffled):
        assert against(demo, other) == pytest.approx(0, abs=1e-9)
    assert against(demo, noise) < -0.3
    assert against(demo, still) < -0.3
    banded = {"allowed": band((1, 24, 24), 2)}
    assert against(demo, demo, **banded) == pytest.approx(0, abs=1e-9)
    assert against(demo, demo.flip(0), **banded) < -0.3
    assert against(demo, shuffled, **banded) < -0.1


def test_context_tells_a_reversed_video_from_the_same():
    demo = video()
    forward, backward = (
        float(distance(context_cost(cosine_cost(v[None], demo[None]), 5), epsilon=0))
        for v in (demo, demo.flip(0))
    )
    assert forward == pytest.approx(0, abs=1e-9)
    assert backward > forward + 0.01


def test_an_identical_video_has_no_cost_at_any_step():
    cost = cosine_cost(video()[None], video()[None])
    rewards = step_rewards(cost, transport(cost, 0.0).plan)
    np.testing.assert_allclose(rewards, 0, atol=1e-12)


def test_context_stops_at_the_last_valid_frame():
    cost = random_cost(7, 1, 5, 4)
    rows, columns = masks(3, size=5), masks(4, size=4)
    found = context_cost(cost, 3, rows, columns)
    assert float(found[0, 1, 0]) == pytest.approx(
        float((cost[0, 1, 0] + cost[0, 2, 1] + cost[0, 2, 2]) / 3)
    )
    assert torch.equal(context_cost(cost, 1), cost)


@pytest.mark.parametrize(("t", "s"), [(6, 6), (5, 9), (31, 4)])
def test_the_band_always_leaves_a_plan(t, s):
    allowed = band((1, t, s), 0)
    found = transport(
        random_cost(8, 1, t, s), 0.5, allowed=allowed, iterations=20_000, tolerance=1e-8
    )
    assert found.converged.all()
    assert not found.plan[~allowed].any()
    if t == s:
        assert torch.equal(allowed[0], torch.eye(t, dtype=torch.bool))


def test_a_mask_without_any_plan_is_flagged():
    allowed = torch.ones(2, 3, 3, dtype=torch.bool)
    allowed[1, 0] = False
    found = transport(random_cost(9, 2, 3, 3), 0.1, allowed=allowed)
    assert found.converged.tolist() == [True, False]


def test_best_reference_has_the_largest_sum():
    rewards = torch.tensor([[[-1.0, -1.0], [-0.5, 0.0]], [[0.0, 0.0], [-3.0, 0.0]]])
    assert sinkhorn.best_reference(rewards).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": -1.0}, "need >= 0"),
        ({"epsilon": 0.0}, "equally many"),
        ({"epsilon": 1.0, "rows": torch.zeros(1, 2, dtype=torch.bool)}, "no valid row"),
        ({"epsilon": 1.0, "rows": torch.ones(1, 3, dtype=torch.bool)}, "masks"),
    ],
)
def test_what_cannot_be_computed(options, words):
    with pytest.raises(ValueError, match=words):
        transport(torch.zeros(1, 2, 3), **options)
    with pytest.raises(ValueError, match="expected"):
        transport(torch.zeros(2, 3), 0.1)


def test_an_exact_plan_that_the_mask_forbids():
    allowed = torch.zeros(1, 2, 2, dtype=torch.bool)
    allowed[0, :, 0] = True
    with pytest.raises(ValueError, match=r"infeasible"):
        transport(torch.zeros(1, 2, 2), 0.0, allowed=allowed)
