"""When is attempting the goal optimal? The hovering trap of Robo-Dopamine, mode by mode.

Chain 0..9 with Phi = state / 10. From state 9 an attempt reaches the goal (Phi 1, pays 1, ends)
with chance p and else falls back to state 2; or the agent hovers at 9. Elsewhere it moves or stays.
"""

import numpy as np
import pytest

from embodied_reward.shaping import mode_named, shaping_reward
from embodied_reward.shaping.potential import RewardMode

GAMMA, TOP, GOAL = 0.99, 9, 10
PHI = np.append(np.arange(10) / 10, 1.0)


def transitions(p):
    """Chances Float[s a s'] of: 0 stay or hover, 1 step back, 2 step on or attempt."""
    chance = np.zeros((11, 3, 11))
    for s in range(10):
        chance[s, 0, s] = chance[s, 1, max(s - 1, 0)] = 1.0
        chance[s, 2, s + 1 if s < TOP else GOAL] = 1.0 if s < TOP else p
    chance[TOP, 2, 2] = 1 - p
    chance[GOAL, :, GOAL] = 1.0
    return chance


def attempts(mode: RewardMode, p, bonus, left=None):
    """Whether attempting at 9 is optimal: for ever (exact), or with `left` decisions left."""
    ends = np.arange(11) == GOAL
    base = np.where(ends, bonus, 0.0)[None, None, :] * ~ends[:, None, None]
    reward = mode.total(base, PHI[:, None, None], PHI[None, None, :], ends, GAMMA, 1.0)
    chance, v = transitions(p), np.zeros(11)
    for _ in range(left or 4000):
        q = (chance * (reward + GAMMA * np.where(ends, 0.0, v))).sum(2)
        v = np.where(ends, 0.0, q.max(1))
    return q[TOP, 2] > q[TOP, :2].max() + 1e-9


def threshold(mode, bonus, left=None):
    """Smallest p in steps of 0.01 at which attempting is optimal; inf for never."""
    grid = np.arange(1, 101) / 100
    low, high = 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if attempts(mode, grid[middle], bonus, left) else (middle + 1, high)
        )
    return grid[low] if low < len(grid) else np.inf


@pytest.mark.parametrize("bonus", [1, 10, 64])
def test_invariant_modes_attempt_at_any_chance(bonus):
    for name in ("success", "potential", "delayed"):
        assert threshold(mode_named(name), bonus) == 0.01, name


def test_paying_the_level_hovers_whatever_success_pays():
    for bonus in (1, 10, 64):
        assert threshold(mode_named("absolute"), bonus) == np.inf
    assert threshold(mode_named("absolute"), 100) == pytest.approx(0.2, abs=0.011)


def test_the_level_alone_attempts_from_a_fair_chance_and_never_looks_at_success():
    """It pays at most 0, so ending is never put off; what it costs to fall back decides."""
    for bonus in (0, 1, 64):
        assert threshold(mode_named("level"), bonus) == pytest.approx(0.22, abs=0.001)


def test_differences_need_a_good_chance_and_the_gold_of_phi_hides_that():
    chances = [threshold(mode_named("difference"), bonus) for bonus in (0, 1, 10)]
    assert chances == pytest.approx([0.22, 0.03, 0.01], abs=0.001)
    assert threshold(mode_named("difference_gold"), 1) == pytest.approx(0.03, abs=0.001)


class TimeOut:
    """PBRS with the time-out bug: nobody bootstraps at the limit, yet Phi(s_T) stays."""

    @staticmethod
    def total(base, phi, phi_next, terminated, gamma, kappa):
        return base + shaping_reward(phi, phi_next, terminated, gamma, kappa)


def test_a_time_out_taken_for_terminal_with_phi_kept_hovers_near_the_end():
    found = [threshold(TimeOut, 1, left) for left in (1, 2, 5, 10)]
    assert found == pytest.approx([0.87, 0.84, 0.67, 0.01], abs=0.011)
