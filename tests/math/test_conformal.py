import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.math.conformal import (
    conformal_threshold,
    episode_score,
    failures_needed,
    persistent,
    pooled_frames,
    strictest_threshold,
)


def test_persistent_score_is_the_lowest_of_the_last_frames():
    scores = [0.1, 0.9, 0.8, 0.95, 0.2, 0.9]
    np.testing.assert_array_equal(persistent(scores, 1), scores)
    np.testing.assert_array_equal(persistent(scores, 3)[2:], [0.1, 0.8, 0.2, 0.2])
    assert np.isneginf(persistent(scores, 3)[:2]).all()
    assert episode_score(scores, 3) == 0.8
    assert episode_score(scores[:2], 3) == -np.inf
    assert episode_score([], 2) == -np.inf


def test_a_frame_without_a_score_interrupts_a_run():
    assert episode_score([0.9, np.nan, 0.9, 0.8], 2) == 0.8
    assert episode_score([0.9, np.nan, 0.9], 2) == -np.inf


@given(st.lists(st.floats(0, 1), max_size=20), st.integers(1, 5), st.floats(0, 1))
def test_reaching_a_threshold_means_so_many_frames_in_a_row(scores, frames, threshold):
    run, fires = 0, []
    for score in scores:
        run = run + 1 if score >= threshold else 0
        fires.append(run >= frames)
    assert (persistent(scores, frames) >= threshold).tolist() == fires


@pytest.mark.parametrize(
    ("rate", "needed"), [(0.01, 99), (0.05, 19), (0.5, 1), (0.1, 9), (0.02, 49)]
)
def test_the_fewest_failures_that_allow_a_threshold(rate, needed):
    assert failures_needed(rate) == needed
    scores = np.linspace(0, 1, needed)
    assert math.isfinite(conformal_threshold(scores, rate))
    assert conformal_threshold(scores[1:], rate) == math.inf


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from([0.0, 0.2, 0.5, 0.9, 1.0]), min_size=1, max_size=60),
    st.floats(0.01, 0.99),
)
def test_the_rank_argument_holds_exactly_with_ties(scores, rate):
    """Leave one out: of n + 1 exchangeable scores, at most alpha (n + 1) exceed their threshold."""
    scores = np.asarray([*scores, 0.5])
    fired = sum(
        scores[i] >= conformal_threshold(np.delete(scores, i), rate) for i in range(len(scores))
    )
    assert fired <= rate * len(scores) + 1e-9


@pytest.mark.parametrize(("count", "rate"), [(99, 0.01), (150, 0.05), (40, 0.2), (99, 0.3)])
@pytest.mark.slow
def test_coverage_on_exchangeable_episodes(count, rate):
    """False-positive rate over many draws of calibration and test episodes of 30 frames."""
    rng = np.random.default_rng(0)

    def episodes(n):
        # Frames of one episode share a level: far from independent.
        return np.tanh(rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, 30)))

    rates = []
    for _ in range(300):
        threshold = conformal_threshold([episode_score(e, 3) for e in episodes(count)], rate)
        new = [episode_score(e, 3) for e in episodes(60)]
        rates.append(np.mean(np.asarray(new) >= threshold))
    error = 4 * np.std(rates) / math.sqrt(len(rates))
    promised = math.floor(rate * (count + 1)) / (count + 1)
    assert abs(np.mean(rates) - promised) < error + 1e-3  # tight: no needless caution either


def test_per_frame_rate_on_independent_frames():
    rng = np.random.default_rng(1)
    threshold = conformal_threshold(pooled_frames(list(rng.random((20, 50))), 1), 0.05)
    assert np.mean(rng.random(20_000) >= threshold) == pytest.approx(0.05, abs=0.02)


def test_too_few_failures_get_the_strictest_threshold_and_its_rate():
    threshold, rate = strictest_threshold([0.2, 0.7, 0.4])
    assert threshold > 0.7
    assert threshold == pytest.approx(0.7)
    assert rate == 0.25
    with pytest.raises(ValueError, match="at least one"):
        strictest_threshold([])


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_impossible_rates(rate):
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_threshold([0.5], rate)
    with pytest.raises(ValueError, match="at least one frame"):
        persistent([0.5], 0)
