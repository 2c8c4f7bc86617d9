"""Formulas of the blends: known values, invariances, and what they do to the optimal policy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embodied_reward.math.blending import exploration_bonus, group_normalised, group_weight, trust


def test_the_bonus_is_the_largest_for_a_new_state_and_fades_as_one_over_the_root():
    found = exploration_bonus(np.array([0, 1, 99, 10**8]), largest=0.5, slope=2.0)
    np.testing.assert_allclose(found, 2 / np.sqrt(16 + np.array([0, 1, 99, 1e8])))
    assert found[0] == 0.5
    assert (found <= 2 / np.sqrt(np.maximum([1, 1, 99, 1e8], 1))).all()
    with pytest.raises(ValueError, match="positive"):
        exploration_bonus(np.zeros(1), largest=0.0)


def test_two_rewards_a_hundredfold_apart_move_a_policy_by_the_same_share():
    """Acceptance of ReFine's normalisation: 50 +- 5 % of the policy gradient each."""
    rng = np.random.default_rng(0)
    shares, plain = [], []
    for _ in range(200):
        logits = rng.normal(size=6)
        pi = np.exp(logits) / np.exp(logits).sum()
        actions = rng.choice(6, size=32, p=pi)
        score = np.eye(6)[actions] - pi  # d log pi(a) / d logits
        rewards = rng.normal(size=(2, 6)) * np.array([[1.0], [100.0]])
        drawn = rewards[:, actions] + 0.1 * rng.normal(size=(2, 32)) * np.array([[1.0], [100.0]])
        one, other = group_normalised(drawn[:1]), group_normalised(drawn[1:])
        np.testing.assert_allclose(group_normalised(drawn), one + other, atol=1e-12)
        sizes = [np.linalg.norm(score.T @ a) for a in (one, other)]
        shares.append(sizes[0] / sum(sizes))
        raw = [np.linalg.norm(score.T @ (r - r.mean())) for r in drawn]
        plain.append(raw[0] / sum(raw))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.05)
    assert np.mean(plain) < 0.02  # without it the second reward is nearly all there is


REWARDS = arrays(np.float64, (2, 7), elements=st.floats(-10, 10).map(lambda x: round(x, 3)))


@given(REWARDS, st.floats(0.01, 100), st.floats(-50, 50))
def test_an_affine_rescaling_of_any_reward_changes_nothing(rewards, scale, shift):
    other = rewards.copy()
    other[1] = scale * other[1] + shift
    weights = np.array([1.0, 0.3])
    np.testing.assert_allclose(
        group_normalised(rewards, weights), group_normalised(other, weights), atol=1e-6
    )
    assert abs(group_normalised(rewards).sum()) < 1e-6


def test_a_constant_reward_has_no_say_and_a_nan_is_not_hidden():
    rewards = np.array([[0.1] * 4, [1.0, 2.0, 3.0, 4.0]])
    np.testing.assert_array_equal(group_normalised(rewards), group_normalised(rewards[1:]))
    rewards[0, 2] = np.nan
    assert np.isnan(group_normalised(rewards)).all()


def test_the_group_weight_is_a_ratio_of_spreads_or_unknown():
    base, learned = np.array([0.0, 0, 0, 1]), np.array([3.0, 1, 1, 3])
    assert group_weight(base, learned) == pytest.approx(base.std() / learned.std())
    assert group_weight(base, 7 * learned + 2) == pytest.approx(base.std() / learned.std() / 7)
    assert np.isnan(group_weight(np.zeros(4), learned))
    assert np.isnan(group_weight(base, np.ones(4)))


def test_trust_halves_the_error_of_weights_learned_from_labels_of_unequal_noise():
    """Ctrl-U's toy: 30 % of labels have 30 times the noise; their uncertainty is known."""
    rng = np.random.default_rng(0)
    ratios = []
    for _ in range(50):
        x, true = rng.normal(size=(300, 5)), rng.normal(size=5)
        noise = np.where(rng.random(300) < 0.3, 3.0, 0.1)
        y = x @ true + noise * rng.normal(size=300)
        plain = np.linalg.lstsq(x, y, rcond=None)[0]
        root = np.sqrt(trust(noise, temperature=1.0))[:, None]
        weighted = np.linalg.lstsq(root * x, root[:, 0] * y, rcond=None)[0]
        ratios.append(np.linalg.norm(plain - true) / np.linalg.norm(weighted - true))
    assert np.mean(ratios) >= 1.8
    np.testing.assert_array_equal(trust(np.zeros(3), 0.2), np.ones(3))
    assert trust(np.array([0.2]), 0.2)[0] == pytest.approx(np.exp(-1))
    assert np.isnan(trust(np.array([np.nan]), 0.2))[0]
    with pytest.raises(ValueError, match="positive"):
        trust(np.zeros(1), 0.0)


def chain_episodes(bonus, seed, states=12, episodes=150, gamma=0.95):
    """Q-learning on ExploRS's kind of chain: 0.05 at the near left end, 1 at the far right end.

    Returns how many of the last 50 episodes ended at the far end.
    """
    rng, q, start = np.random.default_rng(seed), np.zeros((states, 2)), 2
    visits, ends = np.zeros(states), []
    for _ in range(episodes):
        s, steps = start, 0
        while 0 < s < states - 1 and steps < 60:
            best = np.flatnonzero(q[s] >= q[s].max() - 1e-12)
            a = int(rng.integers(2)) if rng.random() < 0.1 else int(rng.choice(best))
            after = s + (1 if a else -1)
            over = after in (0, states - 1)
            pay = 1.0 if after == states - 1 else 0.05 * (after == 0)
            if bonus and not over:
                pay += float(exploration_bonus(visits[after], bonus))
            visits[after] += 1
            q[s, a] += 0.5 * (pay + gamma * (not over) * q[after].max() - q[s, a])
            s, steps = after, steps + 1
        ends.append(s == states - 1)
    return sum(ends[-50:])


def test_the_count_bonus_finds_the_far_end_where_a_near_one_distracts():
    plain, curious = ([chain_episodes(b, seed) for seed in range(10)] for b in (0.0, 0.2))
    assert np.mean(plain) < 5
    assert np.mean(curious) > 35
