"""What the server tells Prometheus."""

import threading
from collections import deque
from collections.abc import Iterator, Mapping

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.transport.core import Core, Reply

RECENT = 4096
"""Scores that the mean and standard deviation of a scorer are taken over."""
SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
LEVELS = {"queued": "frames and items of unfinished requests", "unfinished": "unfinished requests"}
"""Counters of the core that may fall."""


class Metrics:
    """Counts what is served; `page()` shows it together with the core's own counters."""

    def __init__(self, core: Core) -> None:
        self._core, self._lock = core, threading.Lock()
        self._recent: dict[str, deque[float]] = {}
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "er_requests", "HTTP requests", ["route", "code"], registry=self.registry
        )
        self._latency = Histogram(
            "er_request_seconds",
            "time per request",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "er_stage_seconds",
            "time per stage of a reply",
            ["scorer", "stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter("er_received_bytes", "bytes of bodies", registry=self.registry)
        self.registry.register(_CoreCounters(self))  # type: ignore[arg-type]

    def count(self, route: str, code: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(route, str(code)).inc()
        self._latency.labels(route).observe(seconds)

    def received(self, count: int) -> None:
        """Count bytes of a body."""
        self._bytes.inc(count)

    def scored(self, reply: Reply) -> None:
        """Note stage times and scores of a reply."""
        for name, batch in reply.items():
            for stage, seconds in batch.seconds.items():
                self._stages.labels(name, stage).observe(seconds)
            self._remember(name, batch)

    def page(self) -> bytes:
        """Return the page in Prometheus' text format."""
        return generate_latest(self.registry)

    def families(self) -> Iterator[Metric]:
        """Yield the core's counters and the spread of recent scores."""
        sums = self._core.stats()
        yield from _plain(sums)
        yield _items(sums)
        yield _fill(sums)
        yield from self._spread()

    def _remember(self, name: str, batch: ScoreBatch) -> None:
        with self._lock:
            recent = self._recent.setdefault(name, deque(maxlen=RECENT))
            recent.extend(batch.score[batch.ok].tolist())

    def _spread(self) -> Iterator[Metric]:
        with self._lock:
            recent = {name: np.array(scores) for name, scores in self._recent.items() if scores}
        about = f"of the last {RECENT} scores served"
        mean = GaugeMetricFamily("er_score_mean", f"mean {about}", labels=["scorer"])
        std = GaugeMetricFamily("er_score_std", f"standard deviation {about}", labels=["scorer"])
        for name, scores in recent.items():
            mean.add_metric([name], float(scores.mean()))
            std.add_metric([name], float(scores.std()))
        yield from (mean, std)


class _CoreCounters:
    """Reads the core when the page is asked for."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        """Name nothing in advance: scorers come and go."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `Metrics.families`."""
        return self._metrics.families()


def _plain(sums: Mapping[str, float]) -> Iterator[Metric]:
    for name, value in sorted(sums.items()):
        if name in LEVELS:
            yield GaugeMetricFamily(f"er_{name}", LEVELS[name], value=value)
        elif "/" not in name:
            yield CounterMetricFamily(f"er_core_{name}", "counter of the core", value=value)


def _items(sums: Mapping[str, float]) -> Metric:
    items = CounterMetricFamily("er_items", "items by outcome", labels=["scorer", "status"])
    for key, value in sums.items():
        if key.startswith("status/"):
            _, status, name = key.split("/", 2)
            items.add_metric([name, status], value)
    return items


def _fill(sums: Mapping[str, float]) -> Metric:
    slots = sums.get("trunk_slots", 0.0)
    share = sums.get("trunk_images", 0.0) / slots if slots else float("nan")
    return GaugeMetricFamily(
        "er_batch_fill", "pictures per place of the trunks' batches", value=share
    )
