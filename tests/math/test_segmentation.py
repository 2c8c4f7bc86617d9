"""Cuts against brute force, and planted steps (notes of B.7)."""

from itertools import combinations

import numpy as np
import pytest

from embodied_reward.math.segmentation import segment

SHORT = 5


def cost_of(x, objective):
    if objective == "paper":
        return x.std(axis=0).mean()
    return np.square(x - x.mean(axis=0)).sum()


def brute_force(x, steps, objective):
    """Return the least cost over all cuts."""
    cuts = [(0, *c, len(x)) for c in combinations(range(1, len(x)), steps - 1)]
    cuts = [c for c in cuts if np.diff(c).min() >= SHORT]
    pieces = [[x[i:j] for i, j in zip(c, c[1:], strict=False)] for c in cuts]
    costs = [sum(cost_of(piece, objective) for piece in p) for p in pieces]
    return cuts[int(np.argmin(costs))], min(costs)


@pytest.mark.parametrize("objective", ["variance", "paper"])
@pytest.mark.parametrize("seed", range(20))
def test_the_dynamic_programme_finds_the_best_of_all_cuts(seed, objective):
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.normal(size=(int(rng.integers(15, 28)), 3)), axis=0)
    bounds, cost = segment(x, 3, shortest=SHORT, objective=objective)
    expected, least = brute_force(x, 3, objective)
    assert tuple(bounds) == expected
    assert cost == pytest.approx(least)


def jaccard(a, b):
    """Mean overlap of the steps of two segmentations."""

    def one(k):
        both = max(0, min(a[k + 1], b[k + 1]) - max(a[k], b[k]))
        return both / (max(a[k + 1], b[k + 1]) - min(a[k], b[k]))

    return float(np.mean([one(k) for k in range(len(a) - 1)]))


def planted(lengths, sd, seed):
    """64 features, of which 16 have another level in every step."""
    rng = np.random.default_rng(seed)
    x = sd * rng.normal(size=(sum(lengths), 64))
    x[:, :16] += np.repeat(rng.normal(size=(len(lengths), 16)), lengths, axis=0)
    return x


CASES = [((30, 30, 30), 0.3), ((30, 30, 30), 1.5), ((10, 20, 60), 0.6), ((60, 20, 10), 0.6)]


def score(lengths, sd, objective):
    truth = np.cumsum((0, *lengths))
    cuts = [
        segment(planted(lengths, sd, s), 3, shortest=SHORT, objective=objective)[0]
        for s in range(5)
    ]
    return float(np.mean([jaccard(c, truth) for c in cuts]))


@pytest.mark.parametrize(("lengths", "sd"), CASES)
def test_planted_steps_are_found(lengths, sd):
    assert score(lengths, sd, "variance") >= 0.95


def test_the_papers_objective_sticks_to_the_ends_where_noise_is_high():
    assert score(*CASES[1], "paper") < 0.5
    ramp = np.arange(90.0)[:, None]
    assert segment(ramp, 3, shortest=SHORT)[0].tolist() == [0, 30, 60, 90]


def test_ordered_random_cuts_are_the_baseline():
    rng = np.random.default_rng(0)
    truth = np.array([0, 30, 60, 90])
    draws = [
        np.r_[0, np.sort(rng.choice(np.arange(1, 90), 2, replace=False)), 90] for _ in range(4000)
    ]
    assert np.mean([jaccard(d, truth) for d in draws]) == pytest.approx(0.47, abs=0.02)


def test_an_unknown_objective():
    with pytest.raises(ValueError, match="variance, paper"):
        segment(np.zeros((9, 1)), 2, objective="paperr")
