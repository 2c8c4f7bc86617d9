"""One episode as one predictor sees it: scores, VOC and hop directions beside the truth."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.metrics.predictor import Predictor, hop_function
from embodied_reward.metrics.voc import HopFn, Voc, auto_interval, sample_indices, voc_pair
from embodied_reward.types import Bool, Episode, EpisodeScores, Float64

TRUE_MOTION = 0.01
"""Pairs whose true progress differs by less than this count as not moving."""


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

    @cached_property
    def finite(self) -> Bool:
        """Bool["t"]: frames that were scored."""
        return np.isfinite(self.scores.potential) & np.isfinite(self.scores.success)

    @cached_property
    def potential(self) -> Float64:
        """Potential of the scored frames."""
        return self.scores.potential[self.finite]

    @cached_property
    def success(self) -> Float64:
        """Success probability of the scored frames."""
        return self.scores.success[self.finite]

    @cached_property
    def progress(self) -> Float64:
        """True progress of the scored frames; empty where the dataset does not know it."""
        if self.episode.progress is None:
            return np.empty(0)
        return np.asarray(self.episode.progress, np.float64)[self.finite]


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
    if len(episode) < 2:
        raise DatasetError(f"'{episode.source}' has {len(episode)} frame(s); metrics need two")
    scores = predictor.score_episode(episode)
    if len(scores.potential) != len(episode):
        raise DatasetError(
            f"'{episode.source}' has {len(episode)} frames but was given {len(scores.potential)} "
            "scores; one per frame is expected"
        )
    hops = hop_function(predictor, episode, scores)
    interval = interval or auto_interval(len(episode))
    return Judged(
        dataclasses.replace(episode, views={}),
        scores,
        voc_pair(hops, len(episode), interval),
        _hop_signs(hops, episode, interval),
        quality,
    )


def _hop_signs(hops: HopFn, episode: Episode, interval: int) -> Float64:
    """Return 1.0 per sampled pair whose direction is right, 0.0 where wrong, in both orders."""
    if episode.progress is None:
        return np.empty(0)
    frames = sample_indices(len(episode), len(episode) // interval)
    progress = np.asarray(episode.progress, np.float64)
    signs = []
    for before, after in ((frames[:-1], frames[1:]), (frames[1:], frames[:-1])):
        change = progress[after] - progress[before]
        right = np.sign(hops(before, after)) == np.sign(change)
        signs.append(right[np.abs(change) >= TRUE_MOTION].astype(np.float64))
    return np.concatenate(signs)
