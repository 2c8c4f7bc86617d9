"""What a policy made of a reward: numbers over finished episodes and whole runs, as pure functions.

| function                | question                                                            |
|-------------------------|---------------------------------------------------------------------|
| hover_rate              | how often does it end where the reward is high and nothing is done?  |
| reward_hack_gap         | how much more does the reward promise than the task says?            |
| false_gold, true_gold   | how often would `Phi >= 1 - delta` pay without, and with, a success? |
| invariance_gap          | what did shaping cost or gain in final success?                      |
| episodes_to             | how many episodes until 80 % of the final success rate?              |
| curve_area              | mean success rate over training                                      |
| iqm, iqm_interval       | the middle half of the runs, and how sure                            |

Sources: hover rate, gap and false gold follow from Robo-Dopamine's semantic trap (arXiv:2512.23703,
Eq. 14 and 28, delta = 0.05), `episodes_to` is the "rollouts" of its tables; IQM with a
stratified bootstrap is rliable's (Agarwal et al. 2021, arXiv:2108.13264). Trap: a constant low
potential has no hover, no hack gap worth the name and no false gold; read these beside
`true_gold` and the success rate, never alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest, trim_mean

from embodied_reward.types import Float64

HOVERING = 0.8
"""Final potential above which an episode without success counts as hovering."""

GOLD_DELTA = 0.05
"""Robo-Dopamine pays its automated gold reward where Phi >= 1 - 0.05."""


class Interval(NamedTuple):
    """A number with the bounds of its interval; all NaN where undefined."""

    value: float
    low: float
    high: float


UNDEFINED = Interval(float("nan"), float("nan"), float("nan"))


def rate(happened: npt.ArrayLike, level: float = 0.95) -> Interval:
    """Return the share of true entries with Wilson's interval; undefined for none."""
    happened = np.asarray(happened, bool)
    if len(happened) == 0:
        return UNDEFINED
    found = binomtest(int(happened.sum()), len(happened))
    bounds = found.proportion_ci(level, method="wilson")
    return Interval(float(happened.mean()), float(bounds.low), float(bounds.high))


def hover_rate(
    final_potential: npt.ArrayLike, success: npt.ArrayLike, threshold: float = HOVERING
) -> Interval:
    """Return the share of episodes that end with Phi > threshold and never succeeded.

    Args:
        final_potential: [n] in [0, 1].
        success: [n], whether the episode ever succeeded.
        threshold: of the potential.
    """
    final, success = _paired(final_potential, success)
    return rate((final > threshold) & (success == 0))


def reward_hack_gap(final_potential: npt.ArrayLike, success: npt.ArrayLike) -> float:
    """Return E[Phi_T] - success rate, in [-1, 1]; NaN without episodes."""
    final, success = _paired(final_potential, success)
    return float(final.mean() - success.mean()) if len(final) else float("nan")


def pays_gold(potential: Float64, delta: float = GOLD_DELTA) -> bool:
    """Tell whether Phi >= 1 - delta anywhere in Float64["t"]."""
    return bool((potential >= 1 - delta).any())


def false_gold(
    potentials: Sequence[Float64], success: npt.ArrayLike, delta: float = GOLD_DELTA
) -> Interval:
    """Return the share of failed episodes in which Phi >= 1 - delta would have paid.

    Measure it on episodes of the *policy*: demonstrations do not look for false jackpots.

    Args:
        potentials: per episode Float64["t"]; frames that are NaN pay nothing.
        success: [n], whether the episode ever succeeded.
        delta: see `GOLD_DELTA`.
    """
    return _gold(potentials, success, delta, succeeded=False)


def true_gold(
    potentials: Sequence[Float64], success: npt.ArrayLike, delta: float = GOLD_DELTA
) -> Interval:
    """Return the share of successful episodes in which Phi >= 1 - delta would have paid."""
    return _gold(potentials, success, delta, succeeded=True)


def invariance_gap(
    shaped: npt.ArrayLike,
    sparse: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return mean final success rate with shaping minus that without, over seeds.

    Train both long enough to converge: then 0 is what policy invariance promises, and anything
    else is optimisation or a broken wrapper.

    Args:
        shaped: [n] success rate per seed.
        sparse: [m] success rate per seed.
        rng: of the bootstrap over seeds.
        resamples: bootstrap resamples.
        level: of the interval.
    """
    shaped, sparse = np.asarray(shaped, np.float64), np.asarray(sparse, np.float64)
    if not len(shaped) or not len(sparse):
        return UNDEFINED
    means = [rng.choice(x, (resamples, len(x))).mean(1) for x in (shaped, sparse)]
    return _interval(float(shaped.mean() - sparse.mean()), means[0] - means[1], level)


def episodes_to(
    episodes: npt.ArrayLike, success_rate: npt.ArrayLike, fraction: float = 0.8
) -> float:
    """Return the first evaluation point at which the rate reaches `fraction` of its last value.

    NaN where the run never succeeded, for then every point would do.

    Args:
        episodes: [n] increasing, episodes done at each evaluation.
        success_rate: [n] in [0, 1].
        fraction: of the final rate.
    """
    episodes, curve = _paired(episodes, success_rate)
    if len(curve) == 0 or not curve[-1] > 0:
        return float("nan")
    # 0.64 must count as 80 % of 0.8, which rounding denies.
    reached = curve >= fraction * curve[-1] - 1e-12
    return float(episodes[int(np.argmax(reached))])


def curve_area(episodes: npt.ArrayLike, success_rate: npt.ArrayLike) -> float:
    """Return the mean height of the curve (trapezoids), in [0, 1]; NaN without two points."""
    episodes, curve = _paired(episodes, success_rate)
    span = np.ptp(episodes) if len(episodes) else 0.0
    return float(np.trapezoid(curve, episodes) / span) if span > 0 else float("nan")


def iqm(values: npt.ArrayLike) -> float:
    """Return the mean of the middle half of all entries; NaN when empty or any is NaN."""
    values = np.asarray(values, np.float64).ravel()
    return float(trim_mean(values, 0.25)) if len(values) else float("nan")


def iqm_interval(
    values: npt.ArrayLike, rng: np.random.Generator, *, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Return the IQM over runs and tasks; runs are resampled within each task.

    Args:
        values: [runs] or [runs, tasks], one score per run.
        rng: of the bootstrap.
        resamples: bootstrap resamples.
        level: of the interval.
    """
    values = np.asarray(values, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.size == 0 or np.isnan(values).any():
        return UNDEFINED
    picks = rng.integers(len(values), size=(resamples, *values.shape))
    drawn = np.take_along_axis(values[None], picks, axis=1).reshape(resamples, -1)
    return _interval(iqm(values), trim_mean(drawn, 0.25, axis=1), level)


def _gold(
    potentials: Sequence[Float64], success: npt.ArrayLike, delta: float, *, succeeded: bool
) -> Interval:
    wanted = np.asarray(success, bool) == succeeded
    if len(potentials) != len(wanted):
        raise ValueError(f"{len(potentials)} potentials and {len(wanted)} outcomes do not match")
    paid = np.array([pays_gold(p, delta) for p in potentials], bool)
    return rate(paid[wanted])


def _interval(value: float, drawn: Float64, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> tuple[Float64, Float64]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two arrays of one length, got shapes {a.shape} and {b.shape}")
    return a, b
