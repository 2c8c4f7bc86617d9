"""Known values of EPIC, and the table of a hover chain in which wrong shaping shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embodied_reward.metrics.epic import (
    Triples,
    canonical_samples,
    canonical_table,
    epic_samples,
    epic_table,
    pearson_distance,
)
from embodied_reward.shaping import MODES

S, A, GAMMA = 7, 3, 0.95
seeds = st.integers(0, 10_000)


def tables(seed, count=2):
    rng = np.random.default_rng(seed)
    coverage = rng.dirichlet(np.ones(S * S * A)).reshape(S, A, S)
    return [rng.normal(size=(S, A, S)) for _ in range(count)], rng.normal(size=S), coverage


def shaping(phi, gamma=GAMMA):
    return gamma * phi[None, None, :] - phi[:, None, None]


@given(seeds, st.floats(0.01, 100), st.floats(-10, 10), st.floats(-10, 10))
@settings(max_examples=40, deadline=None)
def test_shaping_positive_scale_and_offset_do_not_count(seed, scale, offset, height):
    (r, other), phi, coverage = tables(seed)
    same = scale * (r + height * shaping(phi)) + offset
    assert epic_table(r, same, coverage, GAMMA) < 1e-6
    # And so it does not matter either when a third reward is compared.
    far = epic_table(other, r, coverage, GAMMA)
    assert epic_table(other, same, coverage, GAMMA) == pytest.approx(far, abs=1e-6)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_distance_is_a_pseudometric_in_0_to_1_and_1_for_the_opposite(seed):
    (a, b, c), _, coverage = tables(seed, 3)
    d = {k: epic_table(*k_, coverage, GAMMA) for k, k_ in {"ab": (a, b), "bc": (b, c)}.items()}
    assert 0 <= d["ab"] <= 1
    assert epic_table(b, a, coverage, GAMMA) == pytest.approx(d["ab"])
    assert epic_table(a, c, coverage, GAMMA) <= d["ab"] + d["bc"] + 1e-12
    assert epic_table(a, -a, coverage, GAMMA) == pytest.approx(1.0)


def test_unrelated_rewards_are_at_one_over_root_two():
    uniform = np.ones((S, A, S))
    found = [epic_table(*tables(i)[0], uniform, GAMMA) for i in range(200)]
    assert np.mean(found) == pytest.approx(np.sqrt(0.5), abs=0.01)


def test_a_shaped_reward_is_far_without_canonicalising():
    (r, _), phi, coverage = tables(3)
    raw = pearson_distance(r.ravel(), (r + 3 * shaping(phi)).ravel(), coverage.ravel())
    assert raw > 0.4
    assert epic_table(r, r + 3 * shaping(phi), coverage, GAMMA) < 1e-7


def test_shaping_with_another_discount_is_seen():
    (r, _), phi, coverage = tables(4)
    assert epic_table(r, r + shaping(phi, 1.0), coverage, GAMMA) > 1e-3


def test_a_reward_that_says_nothing_has_no_distance():
    (r, _), phi, coverage = tables(5)
    assert np.isnan(epic_table(r, np.ones_like(r), coverage, GAMMA))
    assert np.isnan(epic_table(r, 1e6 * shaping(phi), coverage, GAMMA))
    assert np.isnan(pearson_distance(np.ones(3), np.arange(3.0)))


def test_samples_agree_with_the_exact_form():
    (a, b), _, _ = tables(6)
    rng = np.random.default_rng(0)

    def draw(n):
        return Triples(rng.integers(S, size=n), rng.integers(A, size=n), rng.integers(S, size=n))

    def of(table):
        return lambda s, action, s_next: table[s, action, s_next]

    exact = epic_table(a, b, np.ones((S, A, S)), GAMMA)
    assert epic_samples(of(a), of(b), draw(4000), draw(300), GAMMA) == pytest.approx(
        exact, abs=0.02
    )
    # Every state and action equally often: the expectations are exact.
    grid = np.indices((S, A, S)).reshape(3, -1)
    every = Triples(*grid)
    found = canonical_samples(of(a), every, every, GAMMA)
    assert found == pytest.approx(canonical_table(a, GAMMA).ravel())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_sampled_shaping_cancels_exactly_in_continuous_states(seed):
    rng = np.random.default_rng(seed)
    transitions, draws = (Triples(*(rng.normal(size=(n, 2)) for _ in range(3))) for n in (60, 8))

    def reward(s, a, s_next):
        return np.tanh(s[:, 0]) - 0.1 * (a**2).sum(1) + np.sin(s_next[:, 1])

    def shaped(s, a, s_next):
        phi = np.cos(s).sum(1)
        return 3 * (reward(s, a, s_next) + GAMMA * np.cos(s_next).sum(1) - phi) + 2

    assert epic_samples(reward, shaped, transitions, draws, GAMMA) < 1e-7
    flipped = epic_samples(reward, lambda *t: -shaped(*t), transitions, draws, GAMMA)
    assert flipped == pytest.approx(1.0)


# --- the hover chain: states 0..9 lead to the next; in 9 attempt (10 is the goal, half of the
# attempts fall back to 2) or hover. Phi = state / 10, and a goal pays 1. Every (state, action) is
# covered alike, gamma = 0.99.

STATES, CHAIN_GAMMA = 11, 0.99
PHI = np.arange(STATES) / 10
ATTEMPT, HOVER = 0, 1


def chain_coverage():
    coverage = np.zeros((STATES, 2, STATES))
    for s in range(9):
        coverage[s, ATTEMPT, s + 1] = 1.0
    coverage[9, ATTEMPT, [10, 2]] = 0.5
    coverage[9, HOVER, 9] = 1.0
    return coverage


def chain_reward(mode, gold):
    """The library's own shaping modes; the chain is infinite, so nothing is terminal."""
    added = MODES[mode].added(PHI[:, None, None], PHI[None, None, :], 0.0, CHAIN_GAMMA, 1.0)
    base = np.zeros((STATES, 2, STATES))
    base[:, :, 10] = 1.0
    return base * gold + added


@pytest.mark.parametrize(
    ("mode", "gold", "expected"),
    [
        ("success", 1, 0.0),
        ("potential", 1, 0.0),
        ("difference", 0, 0.572),
        ("absolute", 0, 0.572),
        ("absolute", 1, 0.352),
        ("difference", 1, 0.0064),
    ],
)
def test_distance_of_every_way_to_pay_progress_to_success_alone(mode, gold, expected):
    truth = chain_reward("success", 1)
    found = epic_table(truth, chain_reward(mode, gold), chain_coverage(), CHAIN_GAMMA)
    assert found == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(("sd", "expected"), [(0.02, 0.067), (0.05, 0.162), (0.10, 0.293)])
def test_an_inconsistent_potential_is_worse_than_the_wrong_formula(sd, expected):
    """Phi drawn anew at each use, as by a model with dropout: the analytic mean of many draws."""
    rng, n = np.random.default_rng(0), 200_000
    weights = chain_coverage()
    picks = rng.choice(weights.size, n, p=weights.ravel() / weights.sum())
    s, _, s_next = np.unravel_index(picks, weights.shape)
    gold = (s_next == 10).astype(float)
    noisy = gold + CHAIN_GAMMA * rng.normal(0, sd, n) - rng.normal(0, sd, n)
    # Consistent parts of Phi cancel in the canonical form, so they are left out.
    found = pearson_distance(gold, noisy)
    assert found == pytest.approx(expected, abs=3e-3)
    variance = gold.var()
    rho = np.sqrt(variance / (variance + (1 + CHAIN_GAMMA**2) * sd**2))
    assert found == pytest.approx(np.sqrt((1 - rho) / 2), abs=3e-3)
