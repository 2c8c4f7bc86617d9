r"""EPIC: how far apart two reward *functions* are, whatever shaping, scale and offset they carry.

    C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')]
    D(R1, R2)      = sqrt((1 - rho(C(R1), C(R2))) / 2)   in [0, 1]

with S, S' ~ D_S and A ~ D_A drawn independently and Pearson's rho taken over a coverage
distribution of transitions. 0: the same up to potential shaping, positive scale and constant;
1: opposite; about 0.707: unrelated. Source: Gleave et al. 2021, arXiv:2006.13900.

Traps: it knows no episode ends, so a potential that is kept at the terminal goes unnoticed
(`tests/shaping` proves that part); it looks at transitions that cannot happen as well (`starc`
does not); and it depends on the coverage distribution, which has to be reported with it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.types import Float64

RewardFn = Callable[[Any, Any, Any], Float64]
"""(state [n ...], action [n ...], next state [n ...]) -> reward Float64["n"]."""

FLAT = 1e-9
"""A canonical reward that varies by less than this share of the reward's size is constant."""


@dataclass(frozen=True)
class Triples:
    """n transitions (s, a, s'); every array has n rows of whatever the reward function takes."""

    state: npt.NDArray[Any]
    action: npt.NDArray[Any]
    next_state: npt.NDArray[Any]


def canonical_table(
    reward: Float64, gamma: float, states: Float64 | None = None, actions: Float64 | None = None
) -> Float64:
    """Return C(R) of a finite reward exactly, Float64["s a s"].

    Args:
        reward: Float64["s a s"].
        gamma: discount in [0, 1].
        states: D_S, Float64["s"], sums to 1; None is uniform.
        actions: D_A, Float64["a"], sums to 1; None is uniform.
    """
    s, a, _ = reward.shape
    states = np.full(s, 1 / s) if states is None else states
    actions = np.full(a, 1 / a) if actions is None else actions
    mean = np.einsum("sak,a,k->s", reward, actions, states)
    return reward + gamma * mean[None, None, :] - mean[:, None, None] - gamma * (states @ mean)


def epic_table(
    first: Float64,
    second: Float64,
    coverage: Float64,
    gamma: float,
    states: Float64 | None = None,
    actions: Float64 | None = None,
) -> float:
    """Return EPIC between two finite rewards Float64["s a s"], exactly.

    Args:
        first: Float64["s a s"], or what broadcasts to it.
        second: likewise.
        coverage: weights >= 0 of the transitions, Float64["s a s"]; need not sum to 1.
        gamma: discount in [0, 1].
        states: D_S, see `canonical_table`.
        actions: D_A, see `canonical_table`.

    Returns:
        Distance in [0, 1]; NaN when either reward is canonically constant on the coverage.
    """
    rewards = [np.broadcast_to(r, coverage.shape) for r in (first, second)]
    a, b = (canonical_table(r, gamma, states, actions).ravel() for r in rewards)
    return pearson_distance(a, b, coverage.ravel(), size=(_size(first), _size(second)))


def canonical_samples(
    reward: RewardFn, transitions: Triples, draws: Triples, gamma: float
) -> Float64:
    """Return C(R) of n transitions, Float64["n"], with expectations over m draws.

    Calls the reward on n x m and m x m triples. Shaping cancels exactly, not only on average,
    because the same draws serve every expectation.

    Args:
        reward: any batched reward function; must answer the same twice (no sampling inside).
        transitions: n of them, from the coverage distribution.
        draws: m triples whose parts were drawn independently: S and S' from D_S, A from D_A.
        gamma: discount in [0, 1].
    """
    here = _mean_reward(reward, transitions.state, draws)
    there = _mean_reward(reward, transitions.next_state, draws)
    total = _mean_reward(reward, draws.state, draws).mean()
    own = np.asarray(reward(transitions.state, transitions.action, transitions.next_state))
    return own + gamma * there - here - gamma * total


def epic_samples(
    first: RewardFn, second: RewardFn, transitions: Triples, draws: Triples, gamma: float
) -> float:
    """Return EPIC between two reward functions over sampled transitions, in [0, 1].

    Arguments are those of `canonical_samples`; NaN when either is canonically constant.
    """
    a, b = (canonical_samples(r, transitions, draws, gamma) for r in (first, second))
    own = (transitions.state, transitions.action, transitions.next_state)
    return pearson_distance(a, b, size=(_size(first(*own)), _size(second(*own))))


def pearson_distance(
    a: Float64,
    b: Float64,
    weights: Float64 | None = None,
    *,
    size: tuple[float, float] = (0.0, 0.0),
) -> float:
    """Return sqrt((1 - rho) / 2) in [0, 1] of Float64["n"] under weights Float64["n"].

    Computed as half the distance of the standardised vectors, which is the same number but
    does not lose half the digits near 0. NaN when either side is constant.

    Args:
        a: values.
        b: values.
        weights: >= 0; None is uniform.
        size: magnitude of what `a` and `b` were computed from; spread that is mere rounding
            of it counts as none.
    """
    given = np.ones(len(a)) if weights is None else np.asarray(weights, np.float64)
    used = given > 0
    shares = given[used] / given[used].sum()
    units = [_standard(x[used], shares, s) for x, s in zip((a, b), size, strict=True)]
    return float(np.clip(np.linalg.norm(units[0] - units[1]) / 2, 0.0, 1.0))


def _standard(values: Float64, weights: Float64, size: float) -> Float64:
    """Centre and scale to unit norm under the weights; NaN where constant."""
    centred = (values - weights @ values) * np.sqrt(weights)
    norm = np.linalg.norm(centred)
    return centred / norm if norm > FLAT * max(size, _size(values)) else centred * np.nan


def _mean_reward(reward: RewardFn, states: npt.NDArray[Any], draws: Triples) -> Float64:
    """Return E[R(s, A, S')] for every s, Float64["n"]."""
    n, m = len(states), len(draws.action)
    rows, columns = np.repeat(np.arange(n), m), np.tile(np.arange(m), n)
    values = reward(states[rows], draws.action[columns], draws.next_state[columns])
    return np.asarray(values, np.float64).reshape(n, m).mean(1)


def _size(values: npt.ArrayLike) -> float:
    return float(np.abs(values).max(initial=0.0))
