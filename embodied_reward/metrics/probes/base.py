"""What every probe is given and what it returns."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from embodied_reward.metrics.edits import Picture, stills
from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode, EpisodeScores, Float64, UInt8

Verdict = Literal["pass", "warn", "fail", "undefined"]
SEVERITY: tuple[Verdict, ...] = ("undefined", "pass", "warn", "fail")

HOLD = 5
"""Frames for which a still is shown before it is read, so that filters over time settle."""


@dataclass(frozen=True)
class Measure:
    """One number of a probe and how it is judged.

    Attributes:
        name: what was measured.
        value: NaN where undefined; infinite where, for example, nothing was found.
        warn: the verdict is `pass` up to here.
        fail: the verdict is `warn` up to here, `fail` beyond.
        higher_is_better: whether "beyond" means below.
        percent: shown as a percentage.
    """

    name: str
    value: float
    warn: float
    fail: float
    higher_is_better: bool = False
    percent: bool = False

    @property
    def verdict(self) -> Verdict:
        """Judge the value."""
        if math.isnan(self.value):
            return "undefined"
        sign = -1.0 if self.higher_is_better else 1.0
        if sign * self.value <= sign * self.warn:
            return "pass"
        return "warn" if sign * self.value <= sign * self.fail else "fail"


@dataclass(frozen=True)
class Shown:
    """A moment that the predictor saw, for the reader of a report.

    Attributes:
        caption: what it is and what the predictor said.
        picture: view -> UInt8["h w 3"].
    """

    caption: str
    picture: Picture


@dataclass(frozen=True)
class ProbeResult:
    """What was done to a predictor, what it should have said, and what it said.

    Attributes:
        name: key in `PROBES`.
        title: the same in words.
        done: what was done.
        expected: what a sound reward does.
        got: what this one did, in one sentence.
        measures: the numbers that were judged; the worst verdict counts.
        shown: some of what the predictor saw.
        queries: pictures or episodes that were scored for it.
    """

    name: str
    title: str
    done: str
    expected: str
    got: str
    measures: tuple[Measure, ...]
    shown: tuple[Shown, ...] = ()
    queries: int = 0

    @property
    def verdict(self) -> Verdict:
        """Return the worst verdict of the measures; `undefined` where none has a value."""
        found = {m.verdict for m in self.measures}
        return SEVERITY[max((SEVERITY.index(v) for v in found), default=0)]


@dataclass(frozen=True)
class Case:
    """An episode and what the predictor says of it as it is."""

    episode: Episode
    scores: EpisodeScores


@dataclass
class Bench:
    """A predictor on the bench, with the material that probes need.

    Attributes:
        predictor: what is probed.
        episodes: a few decoded episodes, successes and failures, all with `views`.
        goals: view -> UInt8["h w 3"], a picture of the finished task.
        views: the views that the predictor uses.
        threshold: success counts as claimed from this probability on.
        seed: of everything random.
        budget: scored pictures that each patch search may use.
        queries: pictures and episodes scored so far.
    """

    predictor: Predictor
    episodes: Sequence[Episode]
    goals: Mapping[str, UInt8]
    views: Sequence[str]
    threshold: float = 0.5
    seed: int = 0
    budget: int = 150
    queries: int = field(default=0, init=False)

    @cached_property
    def cases(self) -> list[Case]:
        """Every episode with its untouched scores."""
        return [Case(e, self.score(e)) for e in map(self._only_views, self.episodes)]

    @property
    def successes(self) -> list[Case]:
        """Episodes that succeeded, or of which the dataset says nothing."""
        return [c for c in self.cases if c.episode.success is not False]

    @property
    def failures(self) -> list[Case]:
        """Episodes that are known to have failed."""
        return [c for c in self.cases if c.episode.success is False]

    def rng(self, *stream: int) -> np.random.Generator:
        """Return a generator of its own for each stream."""
        return np.random.default_rng([self.seed, *stream])

    def score(self, episode: Episode) -> EpisodeScores:
        """Score one episode and count it."""
        self.queries += 1
        return self.predictor.score_episode(episode)

    def look(self, episode: Episode, picture: Picture) -> tuple[float, float]:
        """Return (potential, success) of a picture in an episode that begins as this one does.

        The predictor sees the episode's first frame, then the picture `HOLD` times; the last
        reading counts.
        """
        first = {view: episode.views[view][0] for view in self.views}
        scores = self.score(stills(episode, [first, *[picture] * HOLD]))
        return float(scores.potential[-1]), float(scores.success[-1])

    def _only_views(self, episode: Episode) -> Episode:
        views = {view: np.asarray(episode.views[view]) for view in self.views}
        return dataclasses.replace(episode, views=views)


Probe = Callable[[Bench], ProbeResult]


def newly_fires(before: Float64, after: Float64, case: Case, threshold: float) -> Float64:
    """Tell frame by frame, as 0 or 1, whether an edit made success fire where it must not.

    A frame counts where success is claimed now, was not claimed before, and is not true.
    """
    fires = (after >= threshold) & ~(before >= threshold)
    if case.episode.success_frames is not None:
        fires &= ~case.episode.success_frames[: len(fires)]
    return fires.astype(np.float64)
