"""What is lost when a camera is missing: the same episodes scored without one of the views."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from embodied_reward.errors import EmbodiedRewardError
from embodied_reward.metrics.edits import without_view
from embodied_reward.metrics.evaluate import aggregate
from embodied_reward.metrics.judge import Judged, judge
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode

DROP_METRICS = ("spearman", "spearman_episode", "mae", "voc_min", "success_auc", "success_gap")
"""Metrics of the drop-one-view table."""


@dataclass(frozen=True)
class Dropped:
    """Metrics without one view.

    Attributes:
        view: the missing view; empty where all are there.
        metrics: name in `DROP_METRICS` -> value, NaN where undefined; empty after an error.
        error: why the episodes could not be scored, in words; empty where they could.
    """

    view: str
    metrics: Mapping[str, float]
    error: str = ""


@dataclass
class DropOneView:
    """Collect scores episode by episode, so that pictures need not be kept.

    Attributes:
        predictor: what is measured.
        views: the views that are dropped, one at a time.
        interval: see `judge`.
    """

    predictor: Predictor
    views: Sequence[str]
    interval: int | None = None
    _judged: dict[str, list[Judged]] = field(default_factory=dict)
    _errors: dict[str, str] = field(default_factory=dict)

    def add(self, episode: Episode) -> None:
        """Score an episode without each view in turn."""
        for view in self.views:
            if view in self._errors:
                continue
            try:
                row = judge(self.predictor, without_view(episode, view), interval=self.interval)
                self._judged.setdefault(view, []).append(row)
            except EmbodiedRewardError as error:
                self._errors[view] = str(error)

    def rows(self, full: Sequence[Judged]) -> list[Dropped]:
        """Return the table: all views first (`full`), then each view missing."""
        return [Dropped("", _metrics(full)), *(self._row(view) for view in self.views)]

    def _row(self, view: str) -> Dropped:
        if view in self._errors:
            return Dropped(view, {}, self._errors[view])
        return Dropped(view, _metrics(self._judged.get(view, [])))


def _metrics(judged: Sequence[Judged]) -> dict[str, float]:
    found = aggregate(judged)
    return {name: found[name] for name in DROP_METRICS}
