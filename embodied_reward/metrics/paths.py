"""Trajectory metrics (`trajectory.py`) averaged over successes and over failures.

| metric                    | meaning                                                          |
|---------------------------|------------------------------------------------------------------|
| path_NAME                 | mean over successful episodes                                    |
| path_NAME_failed          | mean over failed episodes                                        |
| path_NAME_error           | mean distance to the same number from true progress (lower)      |

with NAME one of mc, mp, ppl, cra, str.
"""

from collections.abc import Sequence

from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.pool import failed, known
from embodied_reward.metrics.trajectory import NAMES


def paths(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the module's table."""
    done = [j for j in judged if j.episode.success is True]
    lost, rows = failed(judged), known(judged)
    found = {}
    for name in NAMES:
        found[f"path_{name}"] = finite_mean([j.path[name] for j in done])
        found[f"path_{name}_failed"] = finite_mean([j.path[name] for j in lost])
        gaps = [abs(j.path[name] - j.true_path[name]) for j in rows]
        found[f"path_{name}_error"] = finite_mean(gaps)
    return found
