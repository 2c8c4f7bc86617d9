"""Put episodes' numbers together."""

from collections.abc import Iterable, Sequence

import numpy as np

from embodied_reward.metrics.judge import Judged
from embodied_reward.types import Float64


def pool(parts: Iterable[Float64]) -> Float64:
    """Return all frames of all episodes in one array."""
    parts = list(parts)
    return np.concatenate(parts) if parts else np.empty(0)


def known(judged: Sequence[Judged]) -> list[Judged]:
    """Return the episodes whose true progress the dataset knows."""
    return [j for j in judged if j.episode.progress is not None]


def failed(judged: Sequence[Judged]) -> list[Judged]:
    """Return the episodes that never succeeded."""
    return [j for j in judged if j.episode.success is False]


def labelled(judged: Sequence[Judged]) -> tuple[list[Judged], list[bool]]:
    """Return the scored episodes whose outcome is known, and that outcome."""
    found = [j for j in judged if j.episode.success is not None and len(j.potential)]
    return found, [bool(j.episode.success) for j in found]
