"""One episode as one predictor sees it: scores, VOC and hop directions beside the truth."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.math.statistics import spearman
from embodied_reward.metrics.predictor import Predictor, hop_function
from embodied_reward.metrics.voc import SampledHops, Voc, auto_interval, sample_hops, voc_of_hops
from embodied_reward.types import Bool, Episode, EpisodeScores, Float64

TRUE_MOTION = 0.01
"""Pairs whose true progress differs by less than this count as not moving."""

LEAST_RANGE = 0.05
"""True progress that spans less than this within an episode has no order worth ranking."""


@dataclass(frozen=True)
class Judged:
    """One episode as one predictor sees it, with everything the metrics need.

    Attributes:
        episode: without its frames, so that many of these fit in memory.
        scores: what the predictor said.
        voc: VOC+ and VOC- of the predictor's hops.
        hop_signs: 1.0 or 0.0 per sampled pair that truly differs; empty without true progress.
        quality: rank of the episode, NaN where not given.
    """

    episode: Episode
    scores: EpisodeScores
    voc: Voc
    hop_signs: Float64
    quality: float

    # The bootstrap asks for these hundreds of times, hence the cache.
    @cached_property
    def finite(self) -> Bool:
        """Bool["t"]: frames that were scored, for success too if the model judges that at all."""
        success = np.isfinite(self.scores.success)
        return np.isfinite(self.scores.potential) & (success | ~success.any())

    @cached_property
    def potential(self) -> Float64:
        """Potential of the scored frames."""
        return self.scores.potential[self.finite]

    @cached_property
    def success(self) -> Float64:
        """Success probability of the scored frames; NaN from a model without a success head."""
        return self.scores.success[self.finite]

    @cached_property
    def progress(self) -> Float64:
        """True progress of the scored frames; empty where the dataset does not know it."""
        if self.episode.progress is None:
            return np.empty(0)
        return np.asarray(self.episode.progress, np.float64)[self.finite]

    @cached_property
    def mae(self) -> float:
        """Mean absolute error to true progress; NaN where unknown."""
        return mean_error(self.potential, self.progress)

    @cached_property
    def spearman(self) -> float:
        """Rank correlation with true progress; NaN where that is unknown or hardly moves."""
        if len(self.progress) == 0 or np.ptp(self.progress) < LEAST_RANGE:
            return float("nan")
        return spearman(self.potential, self.progress)

    @cached_property
    def outcome(self) -> str:
        """What the potential alone says: `SE`, `PSE` or `FE`."""
        return outcome(self.potential)


def judge(
    predictor: Predictor,
    episode: Episode,
    *,
    interval: int | None = None,
    quality: float = float("nan"),
) -> Judged:
    """Score one episode and keep what the metrics need.

    Args:
        predictor: a reward model or a baseline.
        episode: at least two frames.
        interval: frames between VOC samples; None samples about 30 frames per episode.
        quality: optional rank of the episode, higher is better.

    Raises:
        DatasetError: the episode is too short, or the predictor returned another length.
    """
    length = len(episode)
    if length < 2:
        raise DatasetError(f"'{episode.source}' has {length} frame(s); metrics need two")
    scores = predictor.score_episode(episode)
    if len(scores.potential) != length:
        raise DatasetError(
            f"'{episode.source}' has {length} frames but was given {len(scores.potential)} "
            "scores; one per frame is expected"
        )
    hop_fn = hop_function(predictor, episode, scores)
    sampled = sample_hops(hop_fn, length, interval or auto_interval(length))
    return Judged(
        dataclasses.replace(episode, views={}),
        scores,
        voc_of_hops(sampled),
        _hop_signs(sampled, episode),
        quality,
    )


def outcome(potential: Float64) -> str:
    """Label a potential curve `SE`, `PSE` or `FE`: success, partial success, failure.

    Source: Robo-Dopamine Eq. 58, after SARM: success if the last value is above 0.8 and the
    mean of the last third above 0.6; partial if the mean is at least 0.4.
    """
    if len(potential) == 0:
        return "FE"
    tail = potential[-max(len(potential) // 3, 1) :]
    if potential[-1] > 0.8 and tail.mean() > 0.6:
        return "SE"
    return "PSE" if potential.mean() >= 0.4 else "FE"


def mean_error(potential: Float64, progress: Float64) -> float:
    """Return the mean absolute error; NaN when `progress` is empty (unknown)."""
    return float(np.abs(potential - progress).mean()) if len(progress) else float("nan")


def _hop_signs(sampled: SampledHops, episode: Episode) -> Float64:
    """Return 1.0 per sampled pair whose direction is right, 0.0 where wrong, in both orders."""
    if episode.progress is None:
        return np.empty(0)
    change = np.diff(np.asarray(episode.progress, np.float64)[sampled.frames])
    moving = np.abs(change) >= TRUE_MOTION
    right = [
        np.sign(hops[moving]) == np.sign(true[moving])
        for hops, true in ((sampled.forward, change), (sampled.inverse, -change))
    ]
    return np.concatenate(right).astype(np.float64)
