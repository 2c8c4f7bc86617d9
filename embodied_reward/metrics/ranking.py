"""Does the final potential order whole episodes by quality?

| metric           | meaning (higher is better)                                                 |
|------------------|----------------------------------------------------------------------------|
| kendall_tau_a    | concordant minus discordant pairs over all pairs; needs given qualities    |
| kendall_by_class | tau_a averaged over all picks of one episode per quality                   |
| ranking_accuracy | pairs of different quality in the right order; ties count as wrong         |

The last two take failure and success as the two qualities where none are given. Source:
Robometer's evaluation; its docstring says tau_b, its code computes tau_a.
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.math.statistics import kendall_by_class, kendall_tau_a, ranking_accuracy
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.pool import labelled


def ranking(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the module's table; an episode's score is its last potential."""
    ranked = [j for j in judged if np.isfinite(j.quality) and len(j.potential)]
    final, quality = [j.potential[-1] for j in ranked], [j.quality for j in ranked]
    tau = kendall_tau_a(final, quality)
    if not ranked:
        rows, quality = labelled(judged)
        final = [j.potential[-1] for j in rows]
    return {
        "kendall_tau_a": tau,
        "kendall_by_class": kendall_by_class(final, quality),
        "ranking_accuracy": ranking_accuracy(final, quality),
    }
