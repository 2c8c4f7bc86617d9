"""Decoded videos and preferences about them; a batch is a function of (seed, step).

Every video is read at the same number of times, one drawn in each equal span of the longest
training episode. A shorter episode goes on with its last frame: a solved one stays solved, and a
failed one gains nothing by being cut off early (as in `envs.tasks.preferences.true_return`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from embodied_reward.data.preferences import Pair, Preference, Triplet
from embodied_reward.errors import DatasetError
from embodied_reward.rewards.frame_batches import FrameBatch, Video, gather, video_of
from embodied_reward.types import Episode, Int64
from embodied_reward.vision.frames import decode_all

NOBODY = -1
"""The anchor of a pair, whose videos are compared to the references."""


@dataclass(frozen=True)
class Judgements:
    """Preferences as positions of videos, each Int64["p"] or Bool["p"].

    Attributes:
        anchor: what the two are compared to; `NOBODY` in a pair.
        better: the better video, or the closer one of a triplet.
        worse: the other one.
        same: neither is; then the order of the two means nothing.
    """

    anchor: Int64
    better: Int64
    worse: Int64
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.better)

    @property
    def decided(self) -> np.ndarray:
        """Bool["p"]: not a tie."""
        return ~self.same

    def take(self, rows: Int64) -> "Judgements":
        """Return some of them."""
        return Judgements(self.anchor[rows], self.better[rows], self.worse[rows], self.same[rows])


@dataclass(frozen=True, kw_only=True)
class PreferenceBatch(FrameBatch):
    """Frames of m videos, f each and in order of time, and judgements about these videos.

    Attributes:
        count: videos m.
        judged: positions inside the batch.
        references: Int64["r"], positions of the references inside the batch.
    """

    count: int
    judged: Judgements
    references: Int64


@dataclass
class PreferenceDataset:
    """Videos, judgements about them, and which of the videos are references.

    Attributes:
        videos: decoded episodes.
        indices: their `Episode.index`.
        judged: judgements about these videos.
        frames: frames per video f in a batch.
        horizon: frames to which shorter videos are continued.
        references: positions of reference videos; a batch holds up to `anchors` of them.
        anchors: see `references`.
    """

    videos: list[Video]
    indices: tuple[int, ...]
    judged: Judgements
    frames: int
    horizon: int
    anchors: int = 0
    references: Int64 = field(default_factory=lambda: np.empty(0, np.int64))

    def batch(self, preferences: int, seed: int, step: int) -> PreferenceBatch:
        """Return batch number `step`: some judgements, and each of their videos once."""
        rng = np.random.default_rng((seed, step))
        judged = self.judged.take(self._draw(preferences, rng))
        references = self._some_references(rng) if (judged.anchor == NOBODY).any() else []
        named = [judged.anchor, judged.better, judged.worse, np.asarray(references, np.int64)]
        used = np.setdiff1d(np.concatenate(named), [NOBODY])
        anchor, better, worse, references = (_positions(used, which) for which in named)
        videos = [self.videos[i] for i in used]
        chosen = [moments(len(v), self.frames, self.horizon, rng) for v in videos]
        return PreferenceBatch(
            **gather(videos, chosen),
            seed=int(rng.integers(2**62)),
            count=len(used),
            judged=Judgements(anchor, better, worse, judged.same),
            references=references,
        )

    def _draw(self, count: int, rng: np.random.Generator) -> Int64:
        """Draw judgements without replacement, one that is no tie among them."""
        order = rng.permutation(len(self.judged))
        first = order[np.argmax(self.judged.decided[order])]
        return np.append(first, order[order != first][: max(count, 1) - 1])

    def _some_references(self, rng: np.random.Generator) -> Int64:
        count = min(self.anchors, len(self.references))
        return rng.choice(self.references, count, replace=False)


def preference_dataset(
    episodes: Sequence[Episode],
    preferences: Sequence[Preference],
    *,
    views: Sequence[str],
    size: int,
    frames: int,
    horizon: int = 0,
    anchors: int = 0,
) -> PreferenceDataset:
    """Decode episodes; preferences that name others are left out.

    Args:
        episodes: training or held-out episodes.
        preferences: about episodes of the dataset.
        views: cameras.
        size: side of the pictures [px].
        frames: frames per video in a batch.
        horizon: frames of the longest training episode; 0 takes these episodes' own.
        anchors: references in a batch.

    Raises:
        DatasetError: an episode has none of the views.
    """
    decoded = decode_all(episodes, views, size)
    videos = [video_of(e, *pair) for e, pair in zip(episodes, decoded, strict=True)]
    indices = tuple(e.index for e in episodes)
    return PreferenceDataset(
        videos,
        indices,
        judgements(preferences, indices),
        frames,
        horizon or max(map(len, videos)),
        anchors,
    )


def judgements(preferences: Sequence[Preference], indices: Sequence[int]) -> Judgements:
    """Return the preferences among these episodes as positions in `indices`."""
    at = {index: position for position, index in enumerate(indices)}
    rows = [_row(p, at) for p in preferences if all(e in at for e in p.episodes)]
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Judgements(table[:, 0], table[:, 1], table[:, 2], table[:, 3].astype(bool))


def moments(length: int, count: int, horizon: int, rng: np.random.Generator) -> Int64:
    """Draw a frame in each of `count` equal spans of `horizon` frames, Int64["f"]."""
    at = (np.arange(count) + rng.random(count)) / count * max(horizon, length)
    return np.minimum(at.astype(np.int64), length - 1)


def evenly(length: int, count: int, horizon: int) -> Int64:
    """Return the frames in the middles of `count` equal spans of `horizon` frames, Int64["f"]."""
    at = (np.arange(count) + 0.5) / count * max(horizon, length)
    return np.minimum(at.astype(np.int64), length - 1)


def refuse_undecided(judged: Judgements, what: str) -> None:
    """Raise DatasetError where there is nothing to learn from."""
    if not len(judged):
        raise DatasetError(
            f"no preference is about {what} alone; answer more, or hold out fewer episodes "
            "(--val_fraction)"
        )
    if not judged.decided.any():
        raise DatasetError(
            f'all {len(judged)} preferences about {what} are ties ("same"), which tell no '
            "direction; answer more with `er label-preferences`"
        )


def _row(preference: Preference, at: dict[int, int]) -> tuple[int, int, int, bool]:
    if isinstance(preference, Triplet):
        anchor, closer, farther = (at[e] for e in preference.episodes)
        return anchor, closer, farther, preference.same
    assert isinstance(preference, Pair)
    better, worse = preference.better_worse or preference.episodes
    return NOBODY, at[better], at[worse], preference.preferred is None


def _positions(used: Int64, which: Int64) -> Int64:
    """Return where each of `which` stands in the sorted `used`; `NOBODY` stays."""
    return np.where(which == NOBODY, NOBODY, np.searchsorted(used, which))
