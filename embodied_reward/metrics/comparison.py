"""Set a reward model beside the trivial baselines: which is best, and is any baseline better?"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embodied_reward.metrics.catalogue import METRICS

HEADLINE = (
    "voc_min",
    "mae",
    "spearman",
    "spearman_episode",
    "hop_sign_accuracy",
    "success_auc",
    "frame_success_auc",
    "success_gap",
)
"""Metrics on which a reward model must beat every baseline."""

LOWER_IS_BETTER = frozenset(name for name, m in METRICS.items() if m.better == "lower")

BY_DEFINITION = frozenset(
    ("time index", name) for name in ("voc_plus", "voc_minus", "voc_min", "voc_shuffled")
)
"""VOC *is* correlation with time: a clock scores 1 and cannot be beaten, so it is not compared."""


@dataclass(frozen=True)
class Beaten:
    """A baseline that is better than the model on one metric."""

    metric: str
    baseline: str
    baseline_value: float
    model_value: float

    def __str__(self) -> str:
        return self.against("the model")

    def against(self, model: str) -> str:
        """Return the finding in words, with a name for the model."""
        return (
            f"'{self.baseline}' beats {model} on {self.metric}: "
            f"{self.baseline_value:.3f} against {self.model_value:.3f}"
        )


def beaten_by(model: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]) -> list[Beaten]:
    """Return every (headline metric, baseline) where the baseline is strictly better.

    Args:
        model: the `metrics` of `evaluate`: name -> {"value", ...}.
        baselines: baseline name -> the same.
    """
    found = []
    for metric in HEADLINE:
        ours = model[metric]["value"]
        for name, metrics in baselines.items():
            theirs = metrics[metric]["value"]
            if (name, metric) not in BY_DEFINITION and _better(theirs, ours, metric):
                found.append(Beaten(metric, name, theirs, ours))
    return found


def best(metric: str, table: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Return the names that share the best defined value of a metric."""
    values = {
        name: metrics[metric]["value"]
        for name, metrics in table.items()
        if math.isfinite(metrics[metric]["value"]) and (name, metric) not in BY_DEFINITION
    }
    if not values:
        return set()
    top = min(values.values()) if metric in LOWER_IS_BETTER else max(values.values())
    return {name for name, value in values.items() if math.isclose(value, top, abs_tol=1e-9)}


def _better(a: float, b: float, metric: str) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return False
    margin = b - a if metric in LOWER_IS_BETTER else a - b
    return margin > 1e-9
