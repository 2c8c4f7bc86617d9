"""Rewards that are no potential difference, made invariant: paid now and taken back later.

An extra reward r_t (an intrinsic bonus, a learned level, an optimal-transport reward) is added
to an episode of N steps as F_t, such that its discounted total is the same for every trajectory:

    delayed   F_t = r_t - r_{t-1} / gamma,  and the last step refunds r_{N-1} as well
    matched   F_t = r_t,  and the last step pays  -gamma^-(N-1) sum_k gamma^k r_k  on top

`delayed_reward` is GRM with delay 1 and `matched_reward` is PBIM in its plain form (Forbes et al.
2024). Both totals are 0. The delayed form is the potential-based shaping of Devlin and Kudenko
(2012) with the history-dependent potential Phi_{t+1} = r_t / gamma, Phi_0 = Phi_N = 0: evaluated
when the state is entered, subtracted when it is left. That is why it keeps every policy's rank.

Prefer the delayed form. The last payment of the matched one grows as gamma^-(N-1): by 2.7 after
100 steps at gamma 0.99, by 4e19 after 4,500.

Both assume that r_t does not depend on actions after t. Optimal transport over a whole episode
violates that: the ranking of whole trajectories is kept all the same, the credit of single steps
means nothing.
"""

import numpy as np

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.types import Float64


def delayed_reward(extra: Float64, gamma: float, *, terminated: bool = True) -> Float64:
    """Return F of the delayed form for one episode.

    Args:
        extra: Float64["t"], the extra reward r of every step, not discounted.
        gamma: the learner's discount, in (0, 1].
        terminated: False at a truncation, where the learner bootstraps: there the last state
            keeps its potential r_{N-1} / gamma and nothing is refunded.

    Returns:
        Float64["t"]; sum_t gamma^t F_t is 0 if terminated, else gamma^(N-1) r_{N-1}.

    Raises:
        ConfigError: gamma outside (0, 1]. NonFiniteError: a NaN or infinity in `extra`.
    """
    extra = _checked(extra, gamma)
    out = extra.copy()
    out[1:] -= extra[:-1] / gamma
    if terminated and len(out):
        out[-1] -= extra[-1]
    return out


def matched_reward(extra: Float64, gamma: float) -> Float64:
    """Return F of the matched form for one terminated episode; see the module's warning.

    Args:
        extra: Float64["t"], the extra reward r of every step, not discounted.
        gamma: the learner's discount, in (0, 1].

    Returns:
        Float64["t"] with sum_t gamma^t F_t = 0.

    Raises:
        ConfigError: gamma outside (0, 1]. NonFiniteError: a NaN or infinity in `extra`.
    """
    extra = _checked(extra, gamma)
    out = extra.copy()
    if len(out):
        # gamma^-(N-1) sum_k gamma^k r_k, as one sum of powers of 1/gamma: nothing overflows twice.
        out[-1] -= (gamma ** -np.arange(len(out) - 1.0, -1.0, -1.0) * extra).sum()
    return out


def _checked(extra: Float64, gamma: float) -> Float64:
    if not 0 < gamma <= 1:
        raise ConfigError(f"gamma must be in (0, 1], got {gamma}")
    extra = np.asarray(extra, np.float64)
    if not np.isfinite(extra).all():
        row = int(np.argmin(np.isfinite(extra)))
        raise NonFiniteError(f"the extra reward is {extra[row]} at step {row}")
    return extra
