import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.hops import hop_label
from embodied_reward.metrics.voc import (
    accumulate,
    auto_interval,
    hops_of_potential,
    sample_indices,
    voc,
    voc_pair,
)

LENGTH = 40


def constant(value):
    return lambda before, after: np.full(len(before), value)


def oracle(before, after):
    phi = np.arange(LENGTH) / (LENGTH - 1)
    return hop_label(phi[before], phi[after])


@pytest.mark.parametrize(
    ("name", "hop_fn", "plus", "minus"),
    [
        ("constant up", constant(0.1), 1.0, 0.0),
        ("constant down", constant(-0.1), 0.0, 1.0),
        ("zero", constant(0.0), 0.0, 0.0),
        ("oracle", oracle, 1.0, 1.0),
    ],
)
def test_reproduces_the_published_predictors(name, hop_fn, plus, minus):
    result = voc_pair(hop_fn, LENGTH, interval=1)
    assert (result.plus, result.minus) == pytest.approx((plus, minus), abs=1e-12), name
    assert result.least == min(result.plus, result.minus)


def test_random_hops_average_near_zero():
    rng = np.random.default_rng(0)
    results = [voc_pair(lambda b, a: rng.uniform(-1, 1, len(b)), LENGTH, 1) for _ in range(600)]
    plus, minus = np.mean([r.plus for r in results]), np.mean([r.minus for r in results])
    # The walk begins at 0 (forward) or 1 (inverse), so a few early steps lean the right way.
    assert plus == pytest.approx(minus, abs=0.03)
    assert 0.0 < plus < 0.12


def test_constant_curves_count_as_zero_and_are_named():
    assert voc(np.full(9, 0.4)) == 0.0
    assert voc_pair(constant(0.1), LENGTH, 1).undefined == ("voc_minus",)
    assert voc_pair(constant(0.0), LENGTH, 1).undefined == ("voc_plus", "voc_minus")
    assert voc_pair(oracle, LENGTH, 1).undefined == ()


def test_a_failed_hop_makes_voc_undefined_not_plausible():
    def broken(before, after):
        hops = oracle(before, after)
        hops[[10, -10]] = np.nan
        return hops

    result = voc_pair(broken, LENGTH, 1)
    assert result == (0.0, 0.0, 0.0, ("voc_plus", "voc_minus"))


def test_hops_outside_the_range_are_clipped():
    assert accumulate(np.array([5.0, -5.0]), start=0.5).tolist() == [1.0, 0.0]


@given(st.integers(2, 2000), st.integers(2, 200))
def test_samples_include_both_ends_evenly(length, count):
    count = min(count, length)
    frames = sample_indices(length, count)
    assert (frames[0], frames[-1], len(frames)) == (0, length - 1, count)
    gaps = np.diff(frames)
    assert gaps.min() >= 1
    assert np.ptp(gaps) <= 1


def test_the_source_samples_one_frame_in_thirty():
    seen = []

    def spy(before, after):
        seen.append((before, after))
        return np.full(len(before), 0.1)

    voc_pair(spy, 300)
    ((before, after),) = seen
    pairs = 300 // 30 - 1
    assert len(before) == 2 * pairs
    assert (before[0], after[pairs - 1]) == (0, 299)
    assert np.array_equal(before[:pairs], after[pairs:])
    assert np.array_equal(after[:pairs], before[pairs:])


def test_an_episode_too_short_for_the_interval_is_undefined():
    assert voc_pair(oracle, LENGTH, interval=30).undefined == ("voc_plus", "voc_minus")
    assert len(sample_indices(LENGTH, LENGTH // auto_interval(LENGTH))) >= 30


@given(st.lists(st.floats(0, 1), min_size=3, max_size=60))
def test_forward_progress_of_a_potential_that_starts_at_zero_is_that_potential(values):
    phi = np.array([0.0, *values])
    index = np.arange(len(phi))
    rebuilt = accumulate(hops_of_potential(phi)(index[:-1], index[1:]), start=0.0)
    assert rebuilt == pytest.approx(phi[1:], abs=1e-9)
