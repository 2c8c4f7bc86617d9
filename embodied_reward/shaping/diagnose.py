"""Offset and scale of a potential before it shapes anything: what is legal and still harmful.

Every bounded potential keeps the optimal policy; how soon it is found depends on offset and
scale. Q-learning on a 12-state chain took 657 steps for its first ten episodes unshaped, 138 with
Phi = V*, 628 with V* + 1, 3117 with V* - 1, 1702 with 10 V* and 5000 (the cap) with -V*
(`tests/shaping/test_learning.py`). The rule that follows: Phi about as high as the optimal value,
rising along the demonstrations, never negative.
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.types import Float64

CONSTANT = 0.02  # smallest useful range of kappa Phi, as a share of the base reward's scale
TOO_HIGH, TOO_LOW = 3.0, 0.1  # range of kappa Phi over the scale of the base reward
OFFSET = 0.5  # largest excess of kappa Phi(s0) over the value of the start, same units


def potential_warnings(
    trajectories: Sequence[Float64], *, gamma: float, kappa: float = 1.0, base_scale: float = 1.0
) -> list[str]:
    """Return one line for each thing about the potential that will slow learning down.

    Args:
        trajectories: Phi of every state of each successful demonstration, Float64["t"].
        gamma: the learner's discount.
        kappa: scale of the potential.
        base_scale: what the base reward pays for success.

    Returns:
        Lines that say what was seen and what to do; empty where nothing stands out.
    """
    paths = [kappa * np.asarray(path, np.float64) for path in trajectories if len(path)]
    if not paths:
        return []
    low, high = min(p.min() for p in paths), max(p.max() for p in paths)
    if high - low < CONSTANT * base_scale:
        return [
            f"kappa Phi stays within [{low:.3g}, {high:.3g}] on the demonstrations: it tells no "
            "state from another; measure the reward model with `er eval-reward`"
        ]
    checks = (_sign(low, gamma), _scale(high - low, kappa, base_scale), _direction(paths),
              _start(paths, gamma, base_scale))  # fmt: skip
    return [line for line in checks if line]


def _sign(low: float, gamma: float) -> str:
    if low >= 0:
        return ""
    return (
        f"kappa Phi is negative on the demonstrations (down to {low:.3g}): standing still there "
        f"pays {(gamma - 1) * low:+.3g} per decision until the learner knows better; add "
        f"{-low:.3g} to Phi"
    )


def _scale(span: float, kappa: float, base_scale: float) -> str:
    ratio = span / base_scale
    if TOO_LOW <= ratio <= TOO_HIGH:
        return ""
    effect = "drown the base reward" if ratio > TOO_HIGH else "hardly be seen beside it"
    return (
        f"kappa Phi spans {span:.3g} on the demonstrations, the base reward {base_scale:g}: the "
        f"shaping will {effect}; try --reward.kappa={kappa / ratio:.2g}"
    )


def _direction(paths: Sequence[Float64]) -> str:
    falling = sum(path[-1] <= path[0] for path in paths)
    if 2 * falling <= len(paths):
        return ""
    return (
        f"Phi ends no higher than it began in {falling} of {len(paths)} demonstrations: it leads "
        "away from the goal; measure the reward model with `er eval-reward`"
    )


def _start(paths: Sequence[Float64], gamma: float, base_scale: float) -> str:
    start = float(np.mean([path[0] for path in paths]))
    value = float(np.mean([base_scale * gamma ** max(len(path) - 2, 0) for path in paths]))
    if start - value <= OFFSET * base_scale:
        return ""
    return (
        f"kappa Phi(start) is {start:.3g}, what the demonstrations are worth there {value:.3g}: "
        "for a critic that begins near 0 the offset buries the guidance; subtract "
        f"{start - value:.3g} from kappa Phi"
    )
