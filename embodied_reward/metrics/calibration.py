"""Does a predicted probability or progress mean what it says?

Source: reliability diagrams and the expected calibration error as in Guo et al. 2017
(arXiv:1706.04599), with equally wide bins over [0, 1]. Trap: a constant predictor that says the
base rate has an error of 0 without telling anything apart, so neither number means anything
without one that measures discrimination (AUC, AUPRC) beside it.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embodied_reward.math.statistics import finite_pairs
from embodied_reward.types import Float64, Int64


@dataclass(frozen=True)
class Reliability:
    """What was predicted and what happened, bin by bin.

    Attributes:
        centre: Float64["k"], middle of each bin in [0, 1].
        predicted: Float64["k"], mean prediction in the bin; NaN where the bin is empty.
        observed: Float64["k"], mean outcome in the bin; NaN where the bin is empty.
        count: Int64["k"], predictions in the bin.
    """

    centre: Float64
    predicted: Float64
    observed: Float64
    count: Int64


def reliability(predicted: npt.ArrayLike, outcome: npt.ArrayLike, bins: int = 10) -> Reliability:
    """Sort predictions into equally wide bins over [0, 1]; bins include their lower edge.

    Pairs in which either number is not finite are left out. A prediction outside [0, 1] falls
    into the nearest bin and enters its mean as it is, so that the error shows it.

    Args:
        predicted: [n], normally in [0, 1].
        outcome: [n], what happened: 0 or 1, or the true progress in [0, 1].
        bins: at least one.

    Raises:
        ValueError: fewer than one bin, or unequal lengths.
    """
    predicted, outcome = finite_pairs(predicted, outcome)
    if bins < 1:
        raise ValueError(f"bins = {bins}; at least one is needed")
    place = np.clip((predicted * bins).astype(np.int64), 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean_predicted = np.bincount(place, predicted, bins) / count
        mean_observed = np.bincount(place, outcome, bins) / count
    return Reliability((np.arange(bins) + 0.5) / bins, mean_predicted, mean_observed, count)


def expected_calibration_error(reliability: Reliability) -> float:
    """Return the mean |predicted - observed| over bins weighted by count.

    In [0, 1] as long as the predictions are. NaN when nothing was predicted.
    """
    filled = reliability.count > 0
    if not filled.any():
        return float("nan")
    gap = np.abs(reliability.predicted - reliability.observed)[filled]
    return float(np.average(gap, weights=reliability.count[filled]))


def calibration_slope(predicted: npt.ArrayLike, observed: npt.ArrayLike) -> tuple[float, float]:
    """Return slope and intercept of the least-squares line observed = slope predicted + intercept.

    (1, 0) is calibrated; a slope below 1 says that predictions are too extreme, above 1 too
    timid. (NaN, NaN) when fewer than two finite pairs are given or `predicted` is constant.
    """
    predicted, observed = finite_pairs(predicted, observed)
    centred = predicted - predicted.mean() if len(predicted) else predicted
    spread = float(centred @ centred)
    # Rounding leaves a constant that no binary fraction equals a hair away from its mean.
    if len(predicted) < 2 or np.ptp(predicted) == 0 or spread == 0:
        return float("nan"), float("nan")
    slope = float(centred @ observed) / spread
    return slope, float(observed.mean() - slope * predicted.mean())
