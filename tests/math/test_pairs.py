import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.math.hops import hop_label
from embodied_reward.math.pairs import PairSampler, balance, sample_pairs


def draw(states=200, seed=0, **fields):
    frames = np.arange(states) * 3
    return frames, sample_pairs(frames, PairSampler(**fields), np.random.default_rng(seed))


def test_labels_follow_the_states():
    frames, pairs = draw(zero_ratio=0.0)
    phi = np.searchsorted(frames, np.stack([pairs.before, pairs.after])) / (len(frames) - 1)
    np.testing.assert_allclose(pairs.hop, hop_label(phi[0], phi[1]), atol=1e-12)


def test_skewed_candidates_come_out_level_over_hops_and_gaps():
    rng = np.random.default_rng(0)
    hop, gap = rng.beta(2, 3, 60_000) * 2 - 1, 1 + (99 * rng.beta(1, 4, 60_000)).astype(int)
    assert np.ptp(np.histogram(hop[:1000], 25, (-1, 1))[0]) > 40  # as they come
    chosen = balance(hop, gap, 720, PairSampler(hop_bins=18), rng)
    counts = np.histogram(hop[chosen], 18, (-1, 1))[0]
    assert np.ptp(counts) <= 1
    inside = gap[chosen][(hop[chosen] > -0.9) & (hop[chosen] < 0.3)]
    gaps = np.histogram(inside, 4, (1, gap.max()))[0]
    assert gaps.min() > 0.6 * gaps.max()


def test_what_a_bin_cannot_supply_is_refilled_from_the_centre():
    hop = np.concatenate([np.full(5, -0.9), np.zeros(500), np.full(500, 0.9)])
    chosen = balance(
        hop, np.ones(1005, int), 300, PairSampler(hop_bins=3), np.random.default_rng(0)
    )
    assert len(chosen) == 300
    assert (hop[chosen] == -0.9).sum() == 5
    assert (hop[chosen] == 0.0).sum() == 195
    assert (hop[chosen] == 0.9).sum() == 100


def test_zero_hops_are_a_twentieth_and_stay_near():
    frames = np.arange(30) * 40
    pairs = sample_pairs(frames, PairSampler(pairs=400), np.random.default_rng(0))
    zero = pairs.hop == 0
    assert zero.sum() == 20
    shift = np.abs(pairs.after - pairs.before)[zero]
    assert 0 < shift.max() <= 0.075 * 80


@given(st.integers(2, 40), st.integers(2, 500), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_pairs_are_distinct_and_inside_the_episode(states, wanted, seed):
    frames, pairs = draw(states, seed, pairs=wanted, zero_ratio=0.0)
    assert len(pairs) == min(wanted, states * (states - 1))
    assert len(set(zip(pairs.before, pairs.after, strict=True))) == len(pairs)
    assert np.isin(pairs.before, frames).all()
    assert (pairs.before != pairs.after).all()


def test_same_seed_same_pairs():
    _, a = draw(seed=3)
    _, b = draw(seed=3)
    _, c = draw(seed=4)
    np.testing.assert_array_equal(a.before, b.before)
    assert not np.array_equal(a.before, c.before)
    assert len(a) == 1000
