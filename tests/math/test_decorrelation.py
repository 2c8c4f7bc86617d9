"""Weights that break a spurious link where that is possible, and do nothing where it is not."""

import numpy as np
import pytest
import torch

from embodied_reward.math.decorrelation import decorrelate, environment_saliency

SALIENT = torch.tensor([False, False, False, True])


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def world(case, agree, rng, n=2000):
    """Three causes, and a feature that follows one of them, or the target, in most samples."""
    s = rng.normal(size=(n, 3))
    if case == "covariate":
        y = cause = np.sign(s[:, 0])
    elif case == "misspecified":
        y, cause = np.sign(s[:, 0] ** 2 - 1 + s[:, 1]), np.sign(s[:, 0] ** 2 - 1)
    elif case == "caused by the target":
        y = cause = np.where(rng.random(n) < 0.25, -np.sign(s[:, 0]), np.sign(s[:, 0]))
    else:
        cause = np.sign(s[:, 1] * s[:, 2])
        y = np.sign(s[:, 1] * s[:, 2] + 0.5 * s[:, 0])
    v = np.where(rng.random(n) < agree, cause, -cause) + 0.3 * rng.normal(size=n)
    return torch.tensor(np.column_stack([s, v])), torch.tensor((y > 0).astype(float))


def logistic(x, y, weights):
    b = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([b], max_iter=200)

    def closure():
        optimizer.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            x @ b[1:] + b[0], y, reduction="none"
        )
        loss = (weights * losses).mean() + 1e-3 * b.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return b.detach()


def accuracy(b, x, y):
    return float((((x @ b[1:] + b[0]) > 0) == (y > 0.5)).double().mean())


def study(case, seeds=5):
    """Mean over seeds: gain out of and in distribution, fall of correlation, effective share."""
    rows = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        x, y = world(case, 0.9, rng)
        shifted, same = world(case, 0.1, rng), world(case, 0.9, rng)
        found = decorrelate(x, SALIENT, generator=seeded(seed))
        plain, weighted = logistic(x, y, torch.ones_like(y)), logistic(x, y, found.weights)
        rows.append(
            [accuracy(weighted, *data) - accuracy(plain, *data) for data in (shifted, same)]
            + [found.before / found.after, found.effective]
        )
    return np.mean(rows, 0)


def test_a_spurious_feature_of_a_cause_is_broken():
    gain, same, fall, effective = study("covariate")
    assert gain >= 0.05
    assert same > -0.01
    assert fall >= 100
    assert 0.3 <= effective <= 0.9


def test_a_link_without_linear_correlation_needs_fourier_features():
    gain, _, fall, effective = study("misspecified")
    assert gain >= 0.15
    assert fall >= 100
    assert 0.3 <= effective <= 0.9


@pytest.mark.parametrize("case", ["caused by the target", "interaction"])
def test_where_reweighting_cannot_help_it_does_not(case):
    """These document the method's assumption: were they to pass, the docs would be wrong."""
    gain, *_ = study(case, seeds=3)
    assert abs(gain) < 0.02


def test_two_binary_features_are_balanced_and_not_collapsed():
    table = torch.tensor([[1.0, 1.0]] * 450 + [[1.0, -1.0]] * 50 + [[-1.0, 1.0]] * 50)
    table = torch.cat([table, torch.tensor([[-1.0, -1.0]] * 450)]).double()
    found = decorrelate(table, torch.tensor([True, False]), steps=600, generator=seeded(0))
    w = found.weights / found.weights.sum()
    mean = w @ table
    centred = table - mean
    assert abs(float((w * centred[:, 0] * centred[:, 1]).sum())) < 1e-4
    assert (w @ centred.square() >= 0.8).all()


def test_independent_features_keep_uniform_weights():
    z = torch.randn(2000, 4, generator=seeded(3), dtype=torch.float64)
    found = decorrelate(z, SALIENT, lr=0.02, generator=seeded(0))
    assert found.effective >= 0.95
    none = decorrelate(z, torch.zeros(4, dtype=torch.bool), generator=seeded(0))
    assert (none.weights == 1).all()
    assert none.effective == 1.0


def test_stable_net_decorrelates_all_pairs():
    rng = np.random.default_rng(0)
    x, _ = world("covariate", 0.9, rng)
    found = decorrelate(x, None, generator=seeded(0))
    assert found.before / found.after > 10


def test_a_warm_start_goes_on_and_a_seed_fixes_the_weights():
    x, _ = world("covariate", 0.9, np.random.default_rng(0))
    first = decorrelate(x, SALIENT, steps=40, generator=seeded(0))
    assert torch.equal(
        first.weights, decorrelate(x, SALIENT, steps=40, generator=seeded(0)).weights
    )
    later = decorrelate(x, SALIENT, steps=40, start=first.weights, generator=seeded(1))
    assert later.after < first.after


def test_features_that_shift_between_environments_are_salient():
    rng = np.random.default_rng(0)
    environment = rng.integers(0, 3, 3000)
    z = rng.normal(size=(3000, 16))
    z[:, 4] += 1.5 * environment
    z[:, 11] -= 1.5 * (environment == 1)
    found = environment_saliency(torch.tensor(z), torch.tensor(environment), generator=seeded(0))
    assert {4, 11} <= set(found.topk(3).indices.tolist())
