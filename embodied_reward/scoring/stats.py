"""Counters of the engine, read by `stats()` and by the metrics page of the server."""

import threading
from collections import Counter


class Stats:
    """Named sums; safe to add to from any thread."""

    def __init__(self) -> None:
        self._sums: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, **amounts: float) -> None:
        """Add to several sums at once."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount  # type: ignore[assignment]

    def read(self) -> dict[str, float]:
        """Return a copy of all sums."""
        with self._lock:
            return dict(self._sums)
