import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from embodied_reward.math.statistics import (
    auc,
    average_precision,
    bootstrap,
    finite_mean,
    finite_pairs,
    kendall_by_class,
    kendall_tau_a,
    pearson,
    ranking_accuracy,
    recall_at,
    spearman,
    wilson,
)

seeds = st.integers(0, 100_000)


def draw(seed, count, levels=6):
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, count).astype(float), rng.integers(0, levels, count).astype(
        float
    )


@given(seeds, st.integers(3, 40))
def test_spearman_agrees_with_scipy_including_ties(seed, count):
    a, b = draw(seed, count)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(spearman(a, b))
    else:
        assert spearman(a, b) == pytest.approx(spearmanr(a, b)[0], abs=1e-12)


@given(seeds, st.integers(2, 30))
def test_spearman_sees_only_order(seed, count):
    a, b = np.random.default_rng(seed).random((2, count))
    assert spearman(np.exp(3 * a), b) == pytest.approx(spearman(a, b), abs=1e-12)
    assert spearman(-a, b) == pytest.approx(-spearman(a, b), abs=1e-12)


@pytest.mark.parametrize("a", [[], [1.0], [2.0, 2.0, 2.0]])
def test_spearman_is_nan_where_undefined(a):
    assert np.isnan(spearman(a, np.arange(len(a))))


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        spearman([1, 2], [1, 2, 3])


@given(seeds, st.integers(2, 30))
def test_auc_is_the_probability_of_right_order(seed, count):
    scores, _ = draw(seed, count)
    labels = np.random.default_rng(seed + 1).random(count) < 0.5
    if labels.all() or not labels.any():
        assert np.isnan(auc(scores, labels))
        return
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0 for p in scores[labels] for n in scores[~labels]
    ]
    assert auc(scores, labels) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_auc_of_a_constant_score_is_one_half():
    assert auc([0.3] * 5, [1, 0, 0, 1, 0]) == 0.5


@given(seeds, st.integers(2, 20))
def test_kendall_tau_a_counts_pairs(seed, count):
    a, b = draw(seed, count)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    expected = sum(np.sign(a[i] - a[j]) * np.sign(b[i] - b[j]) for i, j in pairs) / len(pairs)
    assert kendall_tau_a(a, b) == pytest.approx(expected, abs=1e-12)


def test_kendall_tau_a_ties_count_as_neither():
    # tau-b would be 1 here; tau-a divides by all three pairs.
    assert kendall_tau_a([1, 1, 2], [1, 1, 2]) == pytest.approx(2 / 3)
    assert np.isnan(kendall_tau_a([1], [1]))


def test_finite_mean_ignores_nan_and_says_nan_for_nothing():
    assert finite_mean([1.0, np.nan, 3.0, np.inf]) == 2.0
    assert np.isnan(finite_mean([np.nan]))
    assert np.isnan(finite_mean([]))


def test_bootstrap_covers_the_mean_about_95_percent_of_the_time():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(150):
        items = list(rng.normal(1.0, 2.0, 40))
        low, high = bootstrap(items, lambda x: {"mean": float(np.mean(x))}, rng, resamples=200)[
            "mean"
        ]
        hits += low <= 1.0 <= high
    assert 0.87 <= hits / 150 <= 0.99


def test_bootstrap_repeats_with_its_seed_and_flags_what_is_mostly_undefined():
    def statistics(items):
        return {"mean": float(np.mean(items)), "never": float("nan")}

    items = [0.0, 1.0, 2.0, 5.0]
    first, again = (bootstrap(items, statistics, np.random.default_rng(3)) for _ in range(2))
    assert first["mean"] == again["mean"]
    assert first["mean"][0] < np.mean(items) < first["mean"][1]
    assert np.isnan(first["never"]).all()


def test_pearson():
    assert pearson([0, 1, 2], [5, 7, 9]) == pytest.approx(1.0)
    assert pearson([0, 1, 2, 3], [1, 0, 0, 1]) == pytest.approx(0.0)
    # A constant that no binary fraction holds exactly is still a constant.
    assert np.isnan(pearson([0.1] * 7, np.arange(7)))
    assert np.isnan(pearson([1], [1]))


def test_average_precision_by_steps():
    # Precisions 1, 2/3 at the two positives.
    assert average_precision([0.9, 0.8, 0.7, 0.1], [1, 0, 1, 0]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.9, 0.8], [1, 0]) == 1.0
    assert average_precision(np.full(8, 0.3), [1, 1, 0, 0, 0, 0, 0, 0]) == pytest.approx(0.25)
    assert np.isnan(average_precision([0.1, 0.2], [1, 1]))
    assert np.isnan(average_precision([np.nan, 0.2], [1, 0]))
    assert np.isnan(average_precision([], []))


def test_recall_at_a_false_positive_rate():
    scores = np.r_[np.linspace(0.5, 1, 10), np.linspace(0, 0.6, 200)]
    labels = np.r_[np.ones(10), np.zeros(200)]
    # Two of two hundred false alarms are allowed: 0.6 and 0.597 pass, above lie 0.611 to 1.
    assert recall_at(scores, labels) == pytest.approx(0.8)
    assert recall_at([0.9, 0.5, 0.7], [1, 1, 0]) == 0.5
    assert recall_at(np.ones(6), [1, 1, 1, 0, 0, 0]) == 0.0
    assert np.isnan(recall_at([1.0], [1]))


def test_ranking_accuracy_counts_ties_as_wrong():
    assert ranking_accuracy([0.1, 0.5, 0.9], [1, 2, 3]) == 1.0
    assert ranking_accuracy([0.5, 0.5, 0.9], [1, 2, 3]) == pytest.approx(2 / 3)
    assert ranking_accuracy([0.5, 0.5, 0.9], [1, 1, 3]) == 1.0
    assert ranking_accuracy(np.ones(3), [1, 2, 3]) == 0.0
    assert np.isnan(ranking_accuracy([0.1, 0.2], [1, 1]))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=3, max_size=9).filter(
        lambda rows: len({q for _, q in rows}) > 1
    )
)
def test_kendall_by_class_is_the_average_over_one_item_per_class(rows):
    values, quality = np.array(rows, float).T
    groups = [values[quality == q] for q in np.unique(quality)]
    taus = [kendall_tau_a(pick, range(len(pick))) for pick in itertools.product(*groups)]
    assert kendall_by_class(values, quality) == pytest.approx(np.mean(taus))


def test_kendall_by_class_of_a_constant_is_0_and_of_one_class_undefined():
    assert kendall_by_class(np.ones(4), [1, 1, 2, 3]) == 0.0
    assert np.isnan(kendall_by_class([0.1, 0.2], [1, 1]))


def test_finite_pairs_keep_what_both_sides_know():
    a, b = finite_pairs([1, np.nan, 3, 4], [1, 2, np.inf, 4])
    assert a.tolist() == b.tolist() == [1, 4]
    with pytest.raises(ValueError, match="one length"):
        finite_pairs([1], [1, 2])


def test_wilson_interval_of_known_counts():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert np.isnan(wilson(0, 0)).all()
