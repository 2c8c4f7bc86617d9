"""What a potential curve says of the *trajectory*: how far, how directly, with how much loss.

| metric | formula                                                      | perfect run |
|--------|--------------------------------------------------------------|-------------|
| mc     | highest quartile reached: floor(4 max Phi) / 4               | 1           |
| mp     | max Phi                                                      | 1           |
| ppl    | Phi_T [Phi_T - Phi_0]+ / sum |dPhi|                          | 1           |
| cra    | mean over t of (max_{k <= t} Phi_k - Phi_t)                  | 0           |
| str    | share of steps with |dPhi| < 0.01                            | (pace)      |

Source: the outcome-process-diagnosis metrics of PRM-as-a-Judge (arXiv:2603.21669). Trap: they
describe the policy as far as the potential is right; a constant potential has cra 0. So each
is reported for the potential beside the same number computed from true progress.
"""

import numpy as np

from embodied_reward.types import Float64

STILL = 0.01
"""A step that changes the potential by less than this is stagnation."""

NAMES = ("mc", "mp", "ppl", "cra", "str")


def trajectory(potential: Float64, still: float = STILL) -> dict[str, float]:
    """Return every metric of the module's table for Float64["t"]; NaN with fewer than two frames.

    Raises:
        ValueError: a value that is not finite.
    """
    if len(potential) < 2:
        return dict.fromkeys(NAMES, float("nan"))
    if not np.isfinite(potential).all():
        raise ValueError("the potential has values that are not finite; leave those frames out")
    steps = np.abs(np.diff(potential))
    gained, walked = max(potential[-1] - potential[0], 0.0), steps.sum()
    peaks = np.maximum.accumulate(potential)
    return {
        "mc": float(np.floor(4 * peaks[-1]) / 4),
        "mp": float(peaks[-1]),
        "ppl": float(potential[-1] * gained / walked) if walked > 0 else 0.0,
        "cra": float((peaks - potential).mean()),
        "str": float((steps < still).mean()),
    }
