"""What happens to the potential when a camera fails, moves a little, or the light changes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from embodied_reward.errors import DatasetError
from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.evaluate import READING_METRICS, aggregate
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.metrics.stability import PERTURBATIONS, stability
from embodied_reward.types import Episode


def without_view(predictor: Predictor, episode: Episode, judged: Judged, view: str) -> Judged:
    """Return the episode as judged when one camera is missing.

    Only the scores are new, so only `READING_METRICS` and others of the curve alone are valid.

    Raises:
        DatasetError: the predictor cannot do without that view.
    """
    rest = {name: episode.views[name] for name in episode.views if name != view}
    scores = predictor.score_episode(dataclasses.replace(episode, views=rest))
    return dataclasses.replace(judged, scores=scores)


@dataclass
class Robustness:
    """Collects the episodes of one predictor.

    Attributes:
        views: cameras to leave out one after the other; none if there is only one.
        draws: perturbations of each kind per episode.
        seed: of the perturbations.
    """

    views: Sequence[str]
    draws: int = 2
    seed: int = 0
    _whole: list[Judged] = field(default_factory=list)
    _without: dict[str, list[Judged]] = field(default_factory=dict)
    _reasons: dict[str, str] = field(default_factory=dict)
    _spreads: dict[str, list[float]] = field(default_factory=dict)

    def add(self, predictor: Predictor, episode: Episode, judged: Judged) -> None:
        """Score one episode again under every change; `episode` has its frames."""
        self._whole.append(judged)
        for view in self.views if len(self.views) > 1 else ():
            try:
                less = without_view(predictor, episode, judged, view)
            except DatasetError as error:
                self._reasons[view] = str(error)
            else:
                self._without.setdefault(view, []).append(less)
        for name, change in PERTURBATIONS.items():
            spread = stability(predictor, episode, change, draws=self.draws, seed=self.seed)
            self._spreads.setdefault(name, []).append(spread)

    def summary(self) -> dict[str, Any]:
        """Return plain numbers.

        Returns:
            `episodes` seen; `whole`: `READING_METRICS` with every view; `without`: view ->
            the same without it, or the `reason` why there are none; `stability`: perturbation
            -> standard deviation of the potential (`stability.py`).
        """
        lost: dict[str, Any] = {view: {"reason": why} for view, why in self._reasons.items()}
        left = {v: readable(js) for v, js in self._without.items() if v not in self._reasons}
        return {
            "episodes": len(self._whole),
            "whole": readable(self._whole) if self._whole else {},
            "without": {v: (left | lost)[v] for v in self.views if v in left or v in lost},
            "stability": {name: finite_mean(values) for name, values in self._spreads.items()},
        }


def readable(judged: Sequence[Judged]) -> dict[str, float]:
    """Return `READING_METRICS` over episodes."""
    metrics = aggregate(judged)
    return {name: metrics[name] for name in READING_METRICS}
