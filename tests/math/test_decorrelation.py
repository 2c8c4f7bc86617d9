"""Weights that break a spurious link where that is possible, and do nothing where it is not."""

import re
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.math.decorrelation import decorrelate, effective_share, floored
from embodied_reward.math.environment_classifier import environment_saliency

ROOT = Path(__file__).parents[2]
STUDY = runpy.run_path(str(ROOT / "benchmarks" / "decorrelation.py"))
SALIENT, world = STUDY["SALIENT"], STUDY["world"]


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@cache
def study(case):
    """The five seeds of docs/decorrelation.md."""
    return STUDY["study"](case)


def gain(case, which="shifted"):
    found = study(case)
    return found[f"{which}, weighted"] - found[f"{which}, plain"]


def test_a_spurious_feature_of_a_cause_is_broken():
    found = study("covariate")
    assert gain("covariate") >= 0.05
    assert gain("covariate", "same") > -0.01
    assert found["correlation falls by"] >= 100
    assert 0.3 <= found["effective samples"] <= 0.9


@pytest.mark.slow
def test_a_link_without_linear_correlation_needs_fourier_features():
    found = study("misspecified")
    assert gain("misspecified") >= 0.15
    assert found["correlation falls by"] >= 100
    assert 0.3 <= found["effective samples"] <= 0.9


@pytest.mark.parametrize("case", ["caused by the target", "interaction"])
@pytest.mark.slow
def test_where_reweighting_cannot_help_it_does_not(case):
    """These document the method's assumption: were they to pass, the docs would be wrong."""
    assert abs(gain(case)) < 0.02


@pytest.mark.parametrize("case", list(STUDY["CASES"]))
@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(case):
    page = (ROOT / "docs" / "decorrelation.md").read_text()
    (shown,) = [
        line for line in page.splitlines() if line.startswith(f"| {STUDY['CASES'][case]} |")
    ]
    printed = STUDY["row"](case, study(case))
    numbers = [re.findall(r"\d+\.\d+", line) for line in (shown, printed)]
    assert len(numbers[0]) == 5
    assert np.allclose(*(np.array(found, float) for found in numbers), atol=0.011)


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


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0, 100), min_size=2, max_size=30).filter(lambda w: max(w) > 0.01),
    st.floats(0.05, 1.0),
)
def test_the_floor_holds_exactly_and_leaves_good_weights_alone(values, least):
    weights = torch.tensor(values, dtype=torch.float64)
    found = floored(weights, least)
    assert float(effective_share(found)) >= least - 1e-9
    assert (found >= -1e-12).all()
    assert torch.isclose(found.sum(), weights.sum())
    if float(effective_share(weights)) >= least:
        assert torch.equal(found, weights)
    # Mixing keeps the order: no sample overtakes another.
    assert torch.equal(found[weights.argsort()], found[weights.argsort()].sort().values)


def test_a_few_columns_at_a_time_estimate_the_same_objective():
    x, _ = world("covariate", 0.9, np.random.default_rng(0))
    z = torch.cat([x, torch.randn(len(x), 12, generator=seeded(5), dtype=torch.float64)], 1)
    salient = torch.arange(16) == 3
    found = decorrelate(z, salient, columns=4, generator=seeded(0))
    w = found.weights / found.weights.sum()
    centred = z - w @ z
    correlation = (w * centred[:, 3]) @ centred / (w @ centred.square()).sqrt()
    correlation = correlation / (w @ centred.square())[3].sqrt()
    assert abs(float(correlation[0])) < 0.05  # 0.63 with uniform weights
    assert 0.3 <= found.effective <= 0.9


def test_features_that_shift_between_environments_are_salient():
    rng = np.random.default_rng(0)
    environment = rng.integers(0, 3, 3000)
    z = rng.normal(size=(3000, 16))
    z[:, 4] += 1.5 * environment
    z[:, 11] -= 1.5 * (environment == 1)
    found = environment_saliency(torch.tensor(z), torch.tensor(environment), generator=seeded(0))
    assert {4, 11} <= set(found.topk(3).indices.tolist())
