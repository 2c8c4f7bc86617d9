"""What the metrics ask of anything that is measured: a reward model or a trivial baseline."""

from typing import Protocol, runtime_checkable

from embodied_reward.metrics.voc import HopFn, hops_of_potential
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64


class Predictor(Protocol):
    """Scores every frame of an episode. `RewardModel` satisfies this."""

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Return one potential and one success probability per frame."""
        ...


@runtime_checkable
class HopPredictor(Protocol):
    """A predictor that compares two frames directly; optional."""

    def hops(self, episode: Episode, before: Int64, after: Int64) -> Float64:
        """Return hops Float64["p"] in [-1, 1] between frames before and after, Int64["p"]."""
        ...


def hop_function(predictor: Predictor, episode: Episode, scores: EpisodeScores) -> HopFn:
    """Return the predictor's own hops, or those that its potential implies."""
    if isinstance(predictor, HopPredictor):
        native = predictor
        return lambda before, after: native.hops(episode, before, after)
    return hops_of_potential(scores.potential)
