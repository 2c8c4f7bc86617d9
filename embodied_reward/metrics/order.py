"""Does the potential rise with time, and do single comparisons of two frames hold?

| metric               | meaning (higher is better unless said)                              |
|----------------------|---------------------------------------------------------------------|
| voc_plus, voc_minus  | value-order correlation, forward and swapped; successful episodes   |
| voc_min              | the smaller of the two per episode, averaged                        |
| voc_shuffled         | the same order from one anchor frame, frames in random order        |
| voc_min_failed       | voc_min on failed episodes, where a high value is *no* merit        |
| voc_undefined        | successful episodes in which a VOC was undefined and counts as 0    |
| hop_sign_accuracy    | right direction on sampled pairs that truly differ, both orders     |
| hop_sign_small ...   | the same for true |H| < 0.25, < 0.6 and above; ups and downs alike  |
| hop_false_motion     | share of still pairs with a predicted |H| > 0.05 (lower)            |
| hop_inconsistency    | |S(i, k) - S(i, j) - S(j, k)| in progress (lower)                   |
| hop_path_spread      | where the chain ends, largest minus smallest over strides (lower)   |
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.hop_probes import BANDS, FALSE_MOTION, band_of
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.pool import failed, known, pool
from embodied_reward.types import Float64


def order(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the VOC rows of the module's table."""
    # VOC asks whether progress rises, which is right only where it should.
    done = [j for j in judged if j.episode.success is not False]
    return {
        "voc_plus": finite_mean([j.voc.plus for j in done]),
        "voc_minus": finite_mean([j.voc.minus for j in done]),
        "voc_min": finite_mean([j.voc.least for j in done]),
        "voc_shuffled": finite_mean([j.shuffled.value for j in done]),
        "voc_min_failed": finite_mean([j.voc.least for j in failed(judged)]),
        "voc_undefined": float(sum(bool(j.voc.undefined) or j.shuffled.undefined for j in done)),
    }


def hops(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the hop rows of the module's table."""
    true = pool(j.answers.true for j in judged)
    said = pool(j.answers.said for j in judged)
    still = np.abs(said[true == 0]) > FALSE_MOTION
    return {
        "hop_sign_accuracy": finite_mean(pool(j.hop_signs for j in known(judged))),
        **{f"hop_sign_{name}": _sign_accuracy(true, said, name) for name in BANDS},
        "hop_false_motion": float(still.mean()) if len(still) else float("nan"),
        "hop_inconsistency": finite_mean([j.answers.inconsistency for j in judged]),
        "hop_path_spread": finite_mean([j.answers.path_spread for j in judged]),
    }


def _sign_accuracy(true: Float64, said: Float64, band: str) -> float:
    """Average over ups and downs, so that always saying one of them gives one half."""
    parts = []
    for sign in (1, -1):
        inside = band_of(true, band, sign)
        parts.append((np.sign(said[inside]) == sign).mean() if inside.any() else np.nan)
    return float(np.mean(parts))
