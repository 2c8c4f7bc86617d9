"""The chain 0..9: from which success probability on does a reward make trying worth it?

States 0 to 9 with Phi = s / 10. "go" moves one state up; in state 9 it tries: with probability p
the goal (Phi = 1, terminal), else back to state 2. "stay" hovers. gamma = 0.99. For every reward
the smallest p is found by bisection at which trying is optimal in state 9 (a tie counts).
"""

import math
from collections.abc import Callable

import numpy as np

from embodied_reward.cli.trap.mdp import Process, horizon_values, optimal_values
from embodied_reward.shaping import MODES

STATES, THROWN, GOAL = 10, 2, 10
GO, STAY = 0, 1
GAMMA = 0.99
BONUSES = (1.0, 10.0, 64.0, 100.0)  # B, what success pays
STEPS_LEFT = (1, 2, 5, 10)
_TIE = 1e-9

# Row of the table -> (reward mode, whether success pays B).
ROWS = {
    "sparse": ("success", True),
    "PBRS": ("potential", True),
    "difference, no success reward": ("difference", False),
    "difference + success": ("difference", True),
    "absolute + success": ("absolute", True),
}


def chain(p: float) -> Process:
    """Build the chain whose last step succeeds with probability `p`."""
    chances = np.zeros((STATES + 1, 2, STATES + 1))
    for s in range(STATES):
        chances[s, STAY, s] = 1.0
        chances[s, GO, s + 1] = 1.0
    chances[STATES - 1, GO] = 0.0
    chances[STATES - 1, GO, [GOAL, THROWN]] = p, 1.0 - p
    chances[GOAL, :, GOAL] = 1.0
    return Process(chances, GOAL, np.arange(STATES + 1) / STATES, GAMMA)


def threshold(tries: Callable[[float], bool]) -> float:
    """Return the smallest p in [0, 1] for which `tries(p)`, by bisection; inf if none."""
    if tries(0.0):
        return 0.0
    if not tries(1.0):
        return math.inf
    low, high = 0.0, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (low, middle) if tries(middle) else (middle, high)
    return high


def infinite_threshold(row: str, bonus: float) -> float:
    """Return the threshold of one of `ROWS` without a time limit."""
    mode, paid = ROWS[row]

    def tries(p: float) -> bool:
        process = chain(p)
        base = process.success_pays(bonus * paid)
        return _prefers_trying(optimal_values(process, process.rewards(MODES[mode], base)))

    return threshold(tries)


def timeout_threshold(steps: int, *, keep_potential: bool, bonus: float = 1.0) -> float:
    """Return the threshold of PBRS with `steps` decisions left, where the time-out is terminal.

    Args:
        steps: decisions until the time-out, which cuts the value bootstrap.
        keep_potential: the mistake: Phi(s') is kept at the time-out. Otherwise it is zeroed
            there, as everywhere that the bootstrap is cut.
        bonus: what success pays.
    """

    def tries(p: float) -> bool:
        process = chain(p)
        base, mode = process.success_pays(bonus), MODES["potential"]
        right = process.rewards(mode, base)
        everywhere = np.ones(STATES + 1, bool)
        last = right if keep_potential else process.rewards(mode, base, everywhere)
        return _prefers_trying(horizon_values(process, right, last, steps)[-1])

    return threshold(tries)


def table() -> dict[str, dict[str, float]]:
    """Return row -> column -> threshold, for every bonus and every number of steps left."""
    rows = {
        row: {f"B={bonus:g}": infinite_threshold(row, bonus) for bonus in BONUSES} for row in ROWS
    }
    for ends, keep in (("Phi zeroed", False), ("Phi kept (bug)", True)):
        rows[f"PBRS, time-out terminal, {ends}"] = {
            f"{n} left": timeout_threshold(n, keep_potential=keep) for n in STEPS_LEFT
        }
    return rows


def _prefers_trying(q: np.ndarray) -> bool:
    return bool(q[STATES - 1, GO] >= q[STATES - 1, STAY] - _TIE)
