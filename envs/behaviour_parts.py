"""What scripted behaviours of several suites are made of."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.types import Float32, Float64

Act = Callable[[Mapping[str, Any]], Float32]


def sticky(
    rate: float, rng: np.random.Generator, *, count: int, seconds: float, strength: float
) -> Callable[[], Float64]:
    """Return a source of Ornstein-Uhlenbeck noise, Float64["count"] per decision.

    Args:
        rate: decisions per second [Hz].
        rng: draws it.
        count: how many numbers.
        seconds: correlation time [s].
        strength: standard deviation.
    """
    keep = float(np.exp(-1.0 / (seconds * rate)))
    value = rng.normal(0.0, strength, count)

    def draw() -> Float64:
        nonlocal value
        fresh = rng.normal(0.0, strength, count)
        value = keep * value + np.sqrt(1.0 - keep**2) * fresh
        return value

    return draw


def until(progress: Callable[[], float], enough: float, most: int, first: Act, then: Act) -> Act:
    """Act as `first` up to some progress or for `most` decisions, after that as `then`."""
    over, left = False, most

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal over, left
        left -= 1
        over = over or left < 0 or progress() >= enough
        return (then if over else first)(observation)

    return act
