"""Is the potential wrong where the model says, or its readings show, that it is unsure?

| metric            | meaning                                                                  |
|-------------------|--------------------------------------------------------------------------|
| aurc              | area under risk (progress error) against coverage (lower is better)      |
| aurc_oracle       | the least any order of these errors can reach                            |
| aurc_random       | what a random order is expected to reach: the mean error                 |
| aurc_excess       | (aurc - oracle) / (random - oracle): 0 oracle, 1 random (lower)          |
| uncertainty_error | rank correlation of the uncertainty with the error (higher)              |
| views_error       | rank correlation of the spread over views with the error (higher)        |
| anchors_error     | rank correlation of |forward - backward| with the error (higher)         |

`aurc` itself is small for whoever errs little; only `aurc_excess` judges the uncertainty.
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.math.statistics import finite_pairs, spearman
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.pool import known, pool
from embodied_reward.metrics.risk import aurc, normalised, oracle_aurc, random_aurc
from embodied_reward.types import Float64


def uncertainty(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the module's table, all frames pooled."""
    rows = known(judged)
    error, spread = finite_pairs(pool(j.error for j in rows), pool(j.uncertainty for j in rows))
    area, best, chance = aurc(error, spread), oracle_aurc(error), random_aurc(error)
    return {
        "aurc": area,
        "aurc_oracle": best,
        "aurc_random": chance,
        "aurc_excess": normalised(area, best, chance),
        "uncertainty_error": spearman(spread, error),
        "views_error": _agreement(rows, [j.view_spread for j in rows]),
        "anchors_error": _agreement(rows, [j.anchor_gap for j in rows]),
    }


def _agreement(rows: Sequence[Judged], spreads: Sequence[Float64]) -> float:
    """Correlate over the episodes whose scores have the reading in question."""
    pairs = [(s, j.error) for s, j in zip(spreads, rows, strict=True) if len(s)]
    if not pairs:
        return float("nan")
    spread, error = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return spearman(*finite_pairs(spread, error))
