r"""STARC: a distance between rewards of a finite MDP that knows what can happen in it.

    C(R)(s, a, s') = E_{S' ~ P(s, a)}[R(s, a, S') - V(s) + gamma V(S')]   V = value of R under pi
    S(R)           = C(R) / ||C(R)||_2          (0 where C(R) is 0: all policies are equal)
    D(R1, R2)      = ||S(R1) - S(R2)||_2 / 2    in [0, 1]

Source: Skalse et al. 2024, "STARC: A General Framework For Quantifying Differences Between
Reward Functions", arXiv:2309.15257, value-adjusted levelling with the L2 norm.
Halving makes the range [0, 1] as EPIC's. 0: both rewards order all policies alike, for any
shaping, positive scale, and any split of R(s, a, S') among the s' with the same expectation; 1:
opposite orders.

Where it differs from EPIC: the expectation uses the true dynamics, so what a reward says of
impossible transitions does not count, and it bounds the regret from both sides. Price: it needs
P, so it is for tabular checks.
"""

import numpy as np

from embodied_reward.types import Float64

TRIVIAL = 1e-12
"""C(R) smaller than this share of R is rounding: the reward prefers no policy."""


def canonical_values(
    reward: Float64, dynamics: Float64, gamma: float, policy: Float64 | None = None
) -> Float64:
    """Return value-adjusted levelling C(R), Float64["s a"]; it does not depend on s'.

    Args:
        reward: Float64["s a s"], or what broadcasts to it.
        dynamics: P(s' | s, a), Float64["s a s"], rows sum to 1.
        gamma: discount in [0, 1).
        policy: pi(a | s), Float64["s a"]; None is uniform. Any fixed one is valid.

    Raises:
        ValueError: shapes differ, rows of `dynamics` do not sum to 1, gamma is not in [0, 1).
    """
    _check(reward, dynamics, gamma)
    s, a, _ = dynamics.shape
    policy = np.full((s, a), 1 / a) if policy is None else policy
    expected = (dynamics * reward).sum(2)
    following = np.einsum("sa,sak->sk", policy, dynamics)
    value = np.linalg.solve(np.eye(s) - gamma * following, (policy * expected).sum(1))
    return expected - value[:, None] + gamma * dynamics @ value


def starc(
    first: Float64,
    second: Float64,
    dynamics: Float64,
    gamma: float,
    policy: Float64 | None = None,
) -> float:
    """Return the STARC distance of two rewards Float64["s a s"], in [0, 1].

    A reward that prefers no policy is 0.5 from every reward that does and 0 from its like, by
    the source's definition. Arguments and errors are those of `canonical_values`.
    """
    units = [_unit(r, canonical_values(r, dynamics, gamma, policy)) for r in (first, second)]
    return float(np.linalg.norm(units[0] - units[1]) / 2)


def _unit(reward: Float64, canonical: Float64) -> Float64:
    norm = np.linalg.norm(canonical)
    trivial = norm <= TRIVIAL * max(float(np.abs(reward).max()), 1e-300) * canonical.size
    return np.zeros_like(canonical) if trivial else canonical / norm


def _check(reward: Float64, dynamics: Float64, gamma: float) -> None:
    if reward.ndim != 3 or np.broadcast_shapes(reward.shape, dynamics.shape) != dynamics.shape:
        raise ValueError(
            f"expected reward and dynamics of one shape [s a s], got {reward.shape} and "
            f"{dynamics.shape}"
        )
    if not np.allclose(dynamics.sum(2), 1.0):
        raise ValueError("rows of the dynamics P(s' | s, a) must sum to 1")
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma = {gamma:g}; values need a discount in [0, 1)")
