"""How several rewards become one: the formulas behind `--reward.blend`.

| blend         | formula                                         | source                       |
|---------------|-------------------------------------------------|------------------------------|
| `exploration` | b(s') = l / sqrt((l / b_max)^2 + N(s'))         | ExploRS, Devidze et al. 2022 |
| `group`       | sum_k w_k (r_k - mean_g r_k) / std_g r_k        | ReFine-RFT                   |
| `uncertainty` | weight exp(-U / tau)                            | Ctrl-U, 2024                 |

What each does to the optimal policy stands with each function.
"""

import numpy as np

from embodied_reward.types import Float64, Int64

SMALLEST_STD = 1e-12  # below it a reward does not tell the members of a group apart


def exploration_bonus(visits: Int64 | Float64, largest: float, slope: float = 1.0) -> Float64:
    """Return the bonus l / sqrt((l / b_max)^2 + N) for entering states that were visited N times.

    It is b_max for a new state and l / sqrt(N) later. It does *not* keep the optimal policy, but
    vanishes: no bonus is larger than l / sqrt(N).

    Args:
        visits: N >= 0, any shape.
        largest: b_max > 0.
        slope: l > 0.
    """
    if largest <= 0 or slope <= 0:
        raise ValueError(f"largest={largest} and slope={slope} must be positive")
    return slope / np.sqrt((slope / largest) ** 2 + np.asarray(visits, np.float64))


def group_normalised(rewards: Float64, weights: Float64 | None = None) -> Float64:
    """Return one advantage per member of a group from k rewards, each on a scale of its own.

    Each reward is centred and divided by its standard deviation within the group *before* the
    sum, so that every reward gets the share its weight says, whatever its unit: the result is the
    same for a_k r_k + b_k with any a_k > 0. A reward that is constant in the group has no say.

    For whole attempts at one problem (a bandit) centring changes nothing about which is best.
    Within an episode it does: subtracting a mean from every step pays for ending early or late,
    so `group_weight` only scales.

    Args:
        rewards: Float64["k g"]; a NaN makes the group's result NaN.
        weights: Float64["k"] >= 0; ones by default.

    Returns:
        Float64["g"], mean 0.
    """
    rewards = np.asarray(rewards, np.float64)
    weights = np.ones(len(rewards)) if weights is None else np.asarray(weights, np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    std = centred.std(axis=1, keepdims=True)
    told = std > SMALLEST_STD * np.maximum(1.0, np.abs(rewards).max(axis=1, keepdims=True))
    scaled = np.divide(centred, std, out=np.zeros_like(centred), where=told | np.isnan(std))
    return weights @ scaled


def group_weight(base: Float64, learned: Float64) -> float:
    """Return the weight that gives a learned reward the base reward's spread, std(r) / std(F).

    Only a scale: for a potential-based F any positive weight keeps the optimal policy.

    Args:
        base: Float64["n"], base rewards r of a group of decisions.
        learned: Float64["n"], what was added to them.

    Returns:
        A positive number, or NaN where one of the two is constant and their ratio means nothing.
    """
    one, other = float(np.std(base)), float(np.std(learned))
    return one / other if min(one, other) > SMALLEST_STD else float("nan")


def trust(uncertainty: Float64, temperature: float) -> Float64:
    """Return exp(-U / tau) in (0, 1], 1 for a reward that is sure; NaN stays NaN.

    Args:
        uncertainty: U >= 0, in units of the reward.
        temperature: tau > 0, the uncertainty at which the trust is 1 / e.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature} must be positive")
    return np.exp(-np.asarray(uncertainty, np.float64) / temperature)
