"""Discounts per decision and their rates in time."""

import math

from embodied_reward.errors import ConfigError


def gamma_of_rate(rate: float, period: float) -> float:
    """Return gamma = exp(-rate * period), so that a second is discounted alike at any control rate.

    Robo-Dopamine (2025, appendix A.3) derives this form from time consistency.

    Args:
        rate: discount rate lambda >= 0 [1/s]; 1 / lambda is the horizon in seconds.
        period: time between two decisions h > 0 [s].

    Returns:
        The discount per decision, in (0, 1].

    Raises:
        ConfigError: a value out of range, or a gamma that rounds to 0.
    """
    if not (0 <= rate < math.inf and 0 < period < math.inf):
        raise ConfigError(
            f"a discount rate must be >= 0 [1/s] and a period > 0 [s], got {rate}, {period}"
        )
    gamma = math.exp(-rate * period)
    if gamma == 0:
        raise ConfigError(f"a discount rate of {rate:g}/s leaves nothing after {period:g} s")
    return gamma


def rate_of_gamma(gamma: float, period: float) -> float:
    """Return lambda = -log(gamma) / period [1/s], the inverse of `gamma_of_rate`.

    Raises:
        ConfigError: gamma outside (0, 1] or a period that is not positive.
    """
    if not (0 < gamma <= 1 and 0 < period < math.inf):
        raise ConfigError(
            f"gamma must be in (0, 1] and a decision period > 0 [s], got {gamma}, {period}"
        )
    return 0.0 - math.log(gamma) / period
