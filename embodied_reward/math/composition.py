r"""One reward from several scores, such that no score can be bought with another.

Scores are in [0, 1]; outside of it the result is NaN. All rules are monotone in every score.

| rule                | r(a, b)                            | nothing in a gives                    |
|---------------------|------------------------------------|---------------------------------------|
| `base_and_bonus`    | a (1 + w b)                        | 0                                     |
| `threshold_bonus`   | a + w b [a >= threshold]           | 0                                     |
| `lambda_harmonic`   | 1 / (lambda / a + (1 - lambda) / b)| 0                                     |
| `additive`          | lambda a + (1 - lambda) b          | (1 - lambda) b: to be exploited       |

`base_and_bonus` is in the style of FIRM (arXiv:2603.12247), which lets consistency modulate the
execution of an edit but never stand for it; the published weights were not at hand, so `w` is a
parameter with the default 1. `threshold_bonus` is our hard form of it, for a base that is a
success probability. `lambda_harmonic` is the weighted harmonic mean that "lambda-harmonic"
(arXiv:2407.12164) names, rebuilt from that name.
"""

import numpy as np
import numpy.typing as npt

from embodied_reward.types import Float64


def base_and_bonus(base: npt.ArrayLike, bonus: npt.ArrayLike, weight: float = 1.0) -> Float64:
    """Return base (1 + weight bonus): the bonus scales what was achieved, and is nothing alone.

    Args:
        base: [0, 1], e.g. success or progress; 0 for a robot that does nothing.
        bonus: [0, 1], e.g. smoothness, or likeness to the picture before the edit.
        weight: w >= 0; the result is in [0, 1 + w].
    """
    _check(weight >= 0, f"weight={weight} must be >= 0")
    base, bonus = _unit(base), _unit(bonus)
    return base * (1 + weight * bonus)


def threshold_bonus(
    base: npt.ArrayLike, bonus: npt.ArrayLike, weight: float = 1.0, threshold: float = 0.5
) -> Float64:
    """Return base, plus weight bonus once the base has reached the threshold; in [0, 1 + w]."""
    _check(weight >= 0, f"weight={weight} must be >= 0")
    base, bonus = _unit(base), _unit(bonus)
    return base + np.where(base >= threshold, weight * bonus, 0 * bonus)


def lambda_harmonic(image: npt.ArrayLike, text: npt.ArrayLike, balance: float = 0.5) -> Float64:
    """Return 1 / (lambda / image + (1 - lambda) / text), 0 if a score that counts is 0.

    Args:
        image: [0, 1], e.g. likeness to the reference picture.
        text: [0, 1], e.g. agreement with the instruction.
        balance: lambda in [0, 1], the weight of `image`.

    Returns:
        At least the smaller score; at most the larger, the weighted arithmetic mean, image / lambda
        and text / (1 - lambda). So a score near 0 cannot be outweighed.
    """
    _check(0 <= balance <= 1, f"balance={balance} must be in [0, 1]")
    image, text = np.broadcast_arrays(_unit(image), _unit(text))
    if balance in (0, 1):
        # 0 / 0 of a score that does not count; what it is not is known.
        return np.where(np.isnan(image + text), np.nan, image if balance else text)
    with np.errstate(divide="ignore", over="ignore"):
        mean = 1 / (balance / image + (1 - balance) / text)
    # Rounding may leave the bounds by one unit in the last place.
    return np.clip(mean, np.minimum(image, text), np.maximum(image, text))


def additive(first: npt.ArrayLike, second: npt.ArrayLike, balance: float = 0.5) -> Float64:
    """Return the weighted arithmetic mean, the baseline that lets one score pay for the other."""
    _check(0 <= balance <= 1, f"balance={balance} must be in [0, 1]")
    return balance * _unit(first) + (1 - balance) * _unit(second)


def _unit(scores: npt.ArrayLike) -> Float64:
    scores = np.asarray(scores, np.float64)
    return np.where((scores >= 0) & (scores <= 1), scores, np.nan)


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)
