"""Is the predictor wrong where it says that it is unsure?

Predictions are accepted most certain first. Risk at coverage c is the mean error of the
accepted fraction c, and AURC the area under that curve (lower is better). A useful uncertainty
lies between the oracle (errors accepted smallest first) and random, whose expected AURC is the
mean error.

Source: El-Yaniv & Wiener 2010 (risk and coverage); Geifman et al. 2019, arXiv:1805.08206 (AURC
and its excess over the oracle). Deviation: tied uncertainties share their mean error, so the
order of the rows does not matter and a constant uncertainty scores exactly as random.
"""

import numpy as np
import numpy.typing as npt

from embodied_reward.math.statistics import finite_pairs
from embodied_reward.types import Float64


def risk_coverage(error: npt.ArrayLike, uncertainty: npt.ArrayLike) -> tuple[Float64, Float64]:
    """Return coverage Float64["n"] in (0, 1] and the risk Float64["n"] there.

    Pairs in which either number is not finite are left out; n counts the rest.

    Args:
        error: [n] >= 0, any loss.
        uncertainty: [n], higher is less certain.

    Raises:
        ValueError: the lengths differ.
    """
    error, uncertainty = finite_pairs(error, uncertainty)
    accepted = np.arange(1, len(error) + 1)
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    shared = np.repeat(np.bincount(group, error, len(size)) / size, size)
    return accepted / max(len(error), 1), np.cumsum(shared) / accepted


def aurc(error: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """Return the area under the risk-coverage curve, the mean risk; NaN when nothing is finite."""
    _, risk = risk_coverage(error, uncertainty)
    return float(risk.mean()) if len(risk) else float("nan")


def random_aurc(error: npt.ArrayLike) -> float:
    """Return the expected AURC of a random order, the mean error; NaN when nothing is finite."""
    return aurc(error, np.zeros(np.shape(error)))


def oracle_aurc(error: npt.ArrayLike) -> float:
    """Return the least AURC any order can reach: errors themselves as the uncertainty."""
    return aurc(error, error)


def excess_aurc(error: npt.ArrayLike, uncertainty: npt.ArrayLike) -> float:
    """Return (AURC - oracle) / (random - oracle): 0 is the oracle, 1 random, above 1 misleading.

    NaN when nothing is finite or all errors are equal, for then no order is better than another.
    """
    error, uncertainty = finite_pairs(error, uncertainty)
    return normalised(aurc(error, uncertainty), oracle_aurc(error), random_aurc(error))


def normalised(area: float, oracle: float, chance: float) -> float:
    """Return (area - oracle) / (chance - oracle); NaN where the two bounds coincide."""
    room = chance - oracle
    # Sums of equal errors differ by rounding.
    return (area - oracle) / room if room > 1e-12 * abs(chance) else float("nan")
