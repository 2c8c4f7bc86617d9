import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.math.video_weights import (
    ANCHORS,
    attenuation_weights,
    clip_time,
    segment_sample,
)


def smooth_clip(length):
    t = np.linspace(0, 1, length)
    return 0.5 + 0.3 * t + 0.2 * np.sin(5 * t)


@pytest.mark.parametrize(("length", "segments"), [(64, 8), (61, 8), (64, 7), (10, 9)])
def test_segmental_mean_is_unbiased_with_less_variance_than_uniform_sampling(length, segments):
    scores, draws = smooth_clip(length), 4000
    rng = np.random.default_rng(0)
    segmental = np.array(
        [scores[segment_sample(length, segments, rng)].mean() for _ in range(draws)]
    )
    uniform = np.array([scores[rng.integers(0, length, segments)].mean() for _ in range(draws)])
    error = segmental.std() / np.sqrt(draws)
    assert abs(segmental.mean() - scores.mean()) <= 2 * error
    assert segmental.var() < 0.2 * uniform.var()


@given(st.integers(1, 50), st.integers(1, 60), st.integers(0, 5))
def test_one_frame_of_every_segment(length, segments, seed):
    drawn = segment_sample(length, segments, np.random.default_rng(seed))
    assert len(drawn) == min(length, segments)
    assert (np.diff(drawn) >= 0).all()
    assert drawn[0] >= 0
    assert drawn[-1] < length
    low = np.floor(np.arange(len(drawn)) * length / max(segments, len(drawn)))
    if segments < length:
        assert (drawn >= low).all()
        assert (drawn <= low + length / segments + 1).all()


@pytest.mark.parametrize("anchor", ANCHORS.values())
def test_weights_sum_to_one_and_peak_at_the_anchor(anchor):
    time = np.linspace(0, 1, 33)
    for rate in (0.5, 3.0, 1e6):
        weights = attenuation_weights(time, rate=rate, anchor=anchor)
        assert weights.sum() == pytest.approx(1)
        assert time[weights.argmax()] == anchor
        order = np.argsort(np.abs(time - anchor), kind="stable")
        assert (np.diff(weights[order]) <= 1e-15).all()


def test_rate_zero_is_the_plain_mean_and_the_rate_is_the_decay():
    scores = smooth_clip(17)
    time = np.linspace(0, 1, 17)
    assert attenuation_weights(time) @ scores == pytest.approx(scores.mean(), abs=1e-15)
    weights = attenuation_weights(time, rate=3.0, anchor=1.0)
    assert weights[0] / weights[-1] == pytest.approx(np.exp(-3))


def test_times_become_shares_of_the_clip():
    assert clip_time(np.array([2.0, 3.0, 6.0])).tolist() == [0, 0.25, 1]
    assert clip_time(np.zeros(3)).tolist() == [0, 0.5, 1]
    assert clip_time(np.array([7.0])).tolist() == [0.5]


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="rate"):
        attenuation_weights(np.zeros(2), rate=-1)
    with pytest.raises(ValueError, match="segments"):
        segment_sample(5, 0, np.random.default_rng(0))
