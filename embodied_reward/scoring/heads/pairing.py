"""Pairs from single pass/fail labels, across prompts (SoliReward) and so across tasks."""

from collections.abc import Sequence

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.types import Bool, Int64


def cross_prompt_pairs(
    labels: Sequence[int], count: int, rng: np.random.Generator, *, tie_share: float = 0.25
) -> tuple[Int64, Int64, Bool]:
    """Draw pairs of a passed and a failed item, whatever their prompts, and ties of two passed.

    Two failed items are never called equal: there are many ways to fail. With labels of robot
    episodes these are pairs of a successful and a failed episode.

    Args:
        labels: 1 passed or 0 failed, per item.
        count: pairs wanted.
        rng: source of randomness.
        tie_share: share of tie pairs; none where fewer than two items passed.

    Returns:
        winner Int64["count"], loser Int64["count"], tie Bool["count"], places in `labels`.

    Raises:
        DatasetError: all labels are the same.
    """
    values = np.asarray(labels)
    good, bad = np.flatnonzero(values == 1), np.flatnonzero(values == 0)
    if not len(good) or not len(bad):
        raise DatasetError(
            f"all {len(values)} labels are {'0' if not len(good) else '1'}: pairs need items that "
            "passed (label 1) and items that failed (label 0)"
        )
    tie = rng.random(count) < (tie_share if len(good) > 1 else 0.0)
    first = rng.integers(0, len(good), count)
    shift = rng.integers(1, max(len(good), 2), count)
    other = good[(first + shift) % len(good)]
    loser = np.where(tie, other, bad[rng.integers(0, len(bad), count)])
    return good[first], loser, tie
