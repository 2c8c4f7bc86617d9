"""The potential as the learner met it: how high it rises on rollouts that fail and succeed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from embodied_reward.types import Float64

HIGH = 0.8
"""A failed rollout that the potential calls nearly finished."""

REPLAY = Path("checkpoints", "last", "training_state", "replay.safetensors")


def potential_summary(run: Path) -> dict[str, float | None] | None:
    """Return what the replay of a run says of its potential; None where it paid none.

    Rollouts whose last decision is in the replay count; that of the last one is stored after the
    checkpoint.

    Returns:
        Means over rollouts, None where there is none: `failed_highest` and `failed_variation` (the
        sum of |change of the potential|) of those that fail, `failed_high`, their share above
        `HIGH`, `succeeded_variation`, and `succeeded_last`, the potential before success pays.
    """
    rows = load_file(run / REPLAY)
    if not rows["potentials"].any():
        return None
    failed: list[tuple[float, float]] = []
    succeeded: list[tuple[float, float]] = []
    for phi, won in _rollouts(rows):
        variation = float(np.abs(np.diff(phi)).sum())
        if won:
            succeeded.append((float(phi[-1]), variation))
        else:
            failed.append((float(phi.max()), variation))
    highest, failed_variation = zip(*failed, strict=True) if failed else ((), ())
    last, variation = zip(*succeeded, strict=True) if succeeded else ((), ())
    return {
        "failed_highest": _mean(highest),
        "failed_high": _mean([float(x > HIGH) for x in highest]),
        "failed_variation": _mean(failed_variation),
        "succeeded_variation": _mean(variation),
        "succeeded_last": _mean(last),
    }


def _rollouts(rows: Mapping[str, Any]) -> list[tuple[Float64, bool]]:
    """Return potentials Float64["t"] before every decision and whether success was paid."""
    ids, found = rows["episode_ids"][:, 0], []
    for one in dict.fromkeys(ids.tolist()):
        at = np.flatnonzero(ids == one)
        if rows["dones"][at[-1], 0]:
            found.append((rows["potentials"][at, 0], bool(rows["rewards"][at, 0].any())))
    return found


def _mean(values: Any) -> float | None:
    return float(np.mean(values)) if len(values) else None
