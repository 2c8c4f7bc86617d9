"""Does the potential equal the simulator's true progress?

| metric                | meaning (higher is better unless said)                                |
|-----------------------|-----------------------------------------------------------------------|
| mae                   | mean absolute error, all frames pooled (lower)                        |
| mae_episode           | the same per episode, averaged (lower)                                |
| mae_failed            | the same over failed episodes only (lower)                            |
| pearson, spearman     | correlation and rank correlation, all frames pooled                   |
| spearman_episode      | per episode, averaged over those whose progress spans 0.05+           |
| spearman_failed       | the same over failed episodes: the honest test of going back          |
| calibration_slope     | of the line progress = slope potential + intercept; 1 is calibrated   |
| calibration_intercept | its intercept; 0 is calibrated                                        |
"""

from collections.abc import Sequence

from embodied_reward.math.statistics import finite_mean, pearson, spearman
from embodied_reward.metrics.calibration import calibration_slope
from embodied_reward.metrics.judge import Judged, mean_error
from embodied_reward.metrics.pool import failed, known, pool


def truth(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the module's table."""
    rows = known(judged)
    potential, progress = pool(j.potential for j in rows), pool(j.progress for j in rows)
    slope, intercept = calibration_slope(potential, progress)
    return {
        "mae": mean_error(potential, progress),
        "mae_episode": finite_mean([j.mae for j in rows]),
        "mae_failed": finite_mean([j.mae for j in failed(rows)]),
        "pearson": pearson(potential, progress),
        "spearman": spearman(potential, progress),
        "spearman_episode": finite_mean([j.spearman for j in rows]),
        "spearman_failed": finite_mean([j.spearman for j in failed(rows)]),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
    }
