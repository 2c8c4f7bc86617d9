"""Does the model mean what it says, and does it know where it is wrong?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_reward.metrics.calibration import (
    calibration_slope,
    expected_calibration_error,
    reliability,
)
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.pool import known, pool
from embodied_reward.metrics.risk import aurc, excess_aurc, oracle_aurc, random_aurc, risk_coverage
from embodied_reward.metrics.success import frame_success
from embodied_reward.types import Float64

POINTS = 101
"""Points of the drawn risk-coverage curve."""


def calibration(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the reliability of success and of progress; each has `reason` where undefined."""
    moving = known(judged)
    return {
        "success": _success_diagram(judged),
        "progress": _diagram(
            pool(j.potential for j in moving),
            pool(j.progress for j in moving),
            "the dataset has no true progress",
        ),
    }


def risk(judged: Sequence[Judged]) -> dict[str, Any]:
    """Return the risk-coverage curve of the progress error under the model's uncertainty."""
    error = pool(j.error for j in known(judged))
    unsure = pool(j.uncertainty for j in known(judged))
    if not len(error):
        return {"reason": "the dataset has no true progress"}
    curves = {"model": unsure, "oracle": error}
    return {
        "reason": "" if np.ptp(unsure) > 0 else "the model's uncertainty is constant",
        "curves": {name: _thinned(*risk_coverage(error, order)) for name, order in curves.items()},
        "aurc": aurc(error, unsure),
        "random": random_aurc(error),
        "oracle": oracle_aurc(error),
        "excess": excess_aurc(error, unsure),
    }


def _success_diagram(judged: Sequence[Judged]) -> dict[str, Any]:
    predicted, truth = frame_success(judged)
    if len(predicted) and not np.isfinite(predicted).any():
        return {"reason": "the model gives no probability of success"}
    missing = "the dataset does not say in which frames the task is done"
    return _diagram(predicted, truth, missing)


def _diagram(predicted: Float64, outcome: Float64, missing: str) -> dict[str, Any]:
    if not len(predicted):
        return {"reason": missing}
    bins = reliability(np.clip(predicted, 0.0, 1.0), outcome, 10)
    slope, intercept = calibration_slope(predicted, outcome)
    rows = zip(bins.predicted, bins.observed, bins.count, strict=True)
    return {
        "reason": "",
        "bins": [[float(p), float(o), int(c)] for p, o, c in rows if c],
        "ece": expected_calibration_error(bins),
        "slope": slope,
        "intercept": intercept,
        "frames": len(predicted),
        "base": float(outcome.mean()),
    }


def _thinned(coverage: Float64, values: Float64) -> list[list[float]]:
    picks = np.unique(np.round(np.linspace(0, len(coverage) - 1, POINTS)).astype(int))
    return [[round(float(coverage[i]), 4), round(float(values[i]), 4)] for i in picks]
