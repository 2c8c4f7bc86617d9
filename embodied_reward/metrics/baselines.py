"""Trivial predictors. A reward model that does not beat them has learned nothing.

| name             | potential of frame t                        | hop(before, after)       |
|------------------|---------------------------------------------|--------------------------|
| constant up      | 1 - (1 - h)^t, i.e. hop +h at every frame    | +h                       |
| constant down    | 0, i.e. hop -h at every frame from 0         | -h                       |
| constant         | one value                                   | 0                        |
| random           | uniform in [0, 1], seeded by episode index  | uniform in [-1, 1]       |
| time index       | t / (longest episode of the dataset - 1)    | from the potential       |
| pixel distance   | 1 - |frame - goal| / |start - goal|         | from the potential       |

Each answers for success with its potential: it has nothing better.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied_reward.errors import DatasetError, did_you_mean
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64, UInt8


@dataclass(frozen=True)
class ConstantHop:
    """Answer the same hop, in (-1, 1), to every pair; progress accumulates from 0."""

    hop: float

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode."""
        steps = np.arange(len(episode), dtype=np.float64)
        # The first hop down already finds nothing to lose.
        return _only(1.0 - np.power(1.0 - max(self.hop, 0.0), steps))

    def hops(self, episode: Episode, before: Int64, after: Int64) -> Float64:
        """Return the constant hop for every pair."""
        return np.full(len(before), self.hop)


@dataclass(frozen=True)
class Constant:
    """Answer the same potential, in [0, 1], to every frame."""

    value: float = 0.5

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode."""
        return _only(np.full(len(episode), self.value))


@dataclass(frozen=True)
class Random:
    """Draw every answer uniformly; the same episode always gets the same answers."""

    seed: int = 0

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode."""
        return _only(self._rng(episode, 0).random(len(episode)))

    def hops(self, episode: Episode, before: Int64, after: Int64) -> Float64:
        """Return a uniform hop in [-1, 1] for every pair."""
        return self._rng(episode, 1).uniform(-1.0, 1.0, len(before))

    def _rng(self, episode: Episode, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, episode.index, stream])


@dataclass(frozen=True)
class TimeIndex:
    """Look at the clock only: t / (max_length - 1), max_length [frames]."""

    max_length: int

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode."""
        return _only(np.minimum(np.arange(len(episode)) / max(self.max_length - 1, 1), 1.0))


@dataclass(frozen=True)
class PixelDistance:
    """Compare raw pixels with a goal image per view (mean L1 distance), averaged over views.

    Attributes:
        goals: view -> Float64["h w 3"], usually the mean last frame of the demonstrations.
    """

    goals: Mapping[str, Float64]

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode by the views that it has.

        Raises:
            DatasetError: no view is left, or one has another size than its goal.
        """
        given = {v: g for v, g in self.goals.items() if v in episode.views} or self.goals
        per_view = {v: _approach(_frames(episode, v, g), g) for v, g in given.items()}
        scores = _only(np.mean(list(per_view.values()), axis=0))
        return EpisodeScores(scores.potential, scores.success, scores.uncertainty, {}, per_view)


def trivial(
    episodes: Sequence[Episode], reference: Iterable[Episode], *, views: Sequence[str], seed: int
) -> dict[str, Predictor]:
    """Return every baseline for a dataset, by name.

    Args:
        episodes: the episodes that will be scored.
        reference: demonstrations that pixel goals and the constant come from; without a
            successful one there is no `pixel distance`.
        views: camera views that the pixel distance may use.
        seed: of the random baseline.
    """
    demos = [_ending(e, views) for e in reference if e.success is not False]
    known = [e.progress for e in demos if e.progress is not None]
    baselines: dict[str, Predictor] = {
        "constant up": ConstantHop(0.05),
        "constant down": ConstantHop(-0.05),
        "constant": Constant(float(np.median(np.concatenate(known))) if known else 0.5),
        "random": Random(seed),
        "time index": TimeIndex(max(map(len, episodes))),
    }
    if demos:
        baselines["pixel distance"] = PixelDistance(mean_goals(demos, views))
    return baselines


def mean_goals(demos: Sequence[Episode], views: Sequence[str]) -> dict[str, Float64]:
    """Return the mean last frame Float64["h w 3"] of each view. Raises DatasetError."""
    goals: dict[str, Float64] = {}
    for view in views:
        lasts = [_view(e, view)[-1].astype(np.float64) for e in demos]
        if len({f.shape for f in lasts}) > 1:
            raise DatasetError(
                f"view '{view}' has frames of different sizes in the reference demonstrations: "
                f"{sorted({f.shape[:2] for f in lasts})}; use one size"
            )
        goals[view] = np.mean(lasts, axis=0)
    return goals


def _ending(episode: Episode, views: Sequence[str]) -> Episode:
    """Keep only the last frame of each view, so that whole datasets fit in memory."""
    return dataclasses.replace(episode, views={v: _view(episode, v)[-1:].copy() for v in views})


def _approach(frames: UInt8, goal: Float64) -> Float64:
    distance = np.array([np.abs(frame - goal).mean() for frame in frames])
    if distance[0] == 0:
        return np.where(distance == 0, 1.0, 0.0)
    return np.clip(1.0 - distance / distance[0], 0.0, 1.0)


def _frames(episode: Episode, view: str, goal: Float64) -> UInt8:
    frames = _view(episode, view)
    if frames.shape[1:] != goal.shape:
        raise DatasetError(
            f"'{episode.source}' view '{view}' is {frames.shape[1:3]} px, the reference "
            f"demonstrations are {goal.shape[:2]} px; record both at one size"
        )
    return frames


def _view(episode: Episode, view: str) -> UInt8:
    if view not in episode.views:
        raise DatasetError(
            f"'{episode.source}' has no view '{view}'; {did_you_mean(view, episode.views)}"
        )
    return episode.views[view]


def _only(potential: Float64) -> EpisodeScores:
    return EpisodeScores(potential, potential, np.zeros(len(potential)))
