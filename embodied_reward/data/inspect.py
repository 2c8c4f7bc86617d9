"""What is in a dataset: counts, rates, ranges, and cameras that show nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data.dataset import EpisodeSequence
from embodied_reward.types import UInt8

SAMPLE = 20  # episodes whose pictures are decoded; a summary should take seconds
_DARK = 8.0  # mean brightness of a covered or dead camera, of 255
_OPTIONS = ("orientation", "colour", "value_range", "axes", "fps", "state", "environment_state")
_STILL = 0.5  # mean change against the first frame, of 255, below which nothing moves

type Summary = dict[str, Any]


def summarise(episodes: EpisodeSequence) -> Summary:
    """Return json-able facts about a dataset.

    Numbers come from every episode, pictures from at most `SAMPLE` of them, evenly spread.

    Keys: `root, format, reading` (how it is read: name -> [value, who says so]), `episodes, frames,
    fps, seconds, lengths {min, median, max}, success_rate` (None where unknown), `tasks, views,
    features, notes`; see `_view` and `_range` for the inner ones.

    Raises:
        DatasetError: a file that cannot be decoded.
    """
    lengths = np.array(episodes.lengths)
    known = [s for s in episodes.successes if s is not None]
    views, features = _views(episodes), _features(episodes)
    return {
        "root": episodes.root,
        "format": episodes.kind,
        "reading": {name: [_words(f.value), f.origin] for name, f in episodes.facts.items()},
        "episodes": len(episodes),
        "frames": int(lengths.sum()),
        "fps": episodes.fps,
        "seconds": float(lengths.sum() / episodes.fps),
        "lengths": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "max": int(lengths.max()),
        },
        "success_rate": float(np.mean(known)) if known else None,
        "tasks": list(episodes.tasks),
        "views": views,
        "features": features,
        "notes": [*episodes.notes, *_assumed(episodes), *_notes(views, features, known)],
    }


def spread(count: int, among: int) -> list[int]:
    """Return at most `count` evenly spaced indices below `among`, with the first and the last."""
    return sorted(set(np.linspace(0, among - 1, min(count, among)).round().astype(int).tolist()))


def _words(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _assumed(episodes: EpisodeSequence) -> list[str]:
    """Name what nobody said and the file does not show, with the option that says it."""
    names = [n for n, fact in episodes.facts.items() if fact.origin == "assumed" and n in _OPTIONS]
    if episodes.kind == "LeRobot v3" or not names:
        return []
    return [f"assumed: {', '.join(names)}; check and say with --layout.{names[0]}=..."]


def _views(episodes: EpisodeSequence) -> dict[str, Summary]:
    # Views of one episode at a time: those of all samples together may not fit into memory.
    stats: dict[str, list[tuple[tuple[int, ...], int, int, float, float]]] = {}
    for i in spread(SAMPLE, len(episodes)):
        episode = episodes[i]
        for view in episodes.views:
            frames = episode.views[view]
            stats.setdefault(view, []).append((frames.shape[1:3], *_picture_stats(frames)))
    return {view: _view(episodes, view, rows) for view, rows in stats.items()}


def _view(episodes: EpisodeSequence, view: str, stats: Sequence[tuple[Any, ...]]) -> Summary:
    """Summarise one camera: size (h, w), pixel range, mean brightness and mean motion of 255."""
    sizes, low, high, brightness, motion = zip(*stats, strict=True)
    return {
        "size": list(sizes[0]),
        "storage": episodes.storage(view),
        "min": int(min(low)),
        "max": int(max(high)),
        "brightness": float(np.mean(brightness)),
        "motion": float(np.mean(motion)),
    }


def _picture_stats(frames: UInt8) -> tuple[int, int, float, float]:
    # A few frames tell whether a camera lives; all of a long video would need too much memory.
    some = frames[spread(16, len(frames))].astype(np.int16)
    motion = np.abs(some - some[:1]).mean() if len(some) > 1 else 0.0
    return int(some.min()), int(some.max()), float(some.mean()), float(motion)


def _features(episodes: EpisodeSequence) -> dict[str, Summary]:
    names = ("action", "state", "environment_state", "progress")
    columns: dict[str, list[npt.NDArray]] = {name: [] for name in names}
    for episode in episodes:
        for name in names:
            if (values := getattr(episode, name)) is not None:
                columns[name].append(values.reshape(len(values), -1))
    return {name: _range(np.concatenate(rows)) for name, rows in columns.items() if rows}


def _range(rows: npt.NDArray) -> Summary:
    """Summarise a numeric feature: its width, range over finite values, and count of others."""
    finite = rows[np.isfinite(rows)]
    return {
        "size": rows.shape[1],
        "min": float(finite.min()) if finite.size else None,
        "max": float(finite.max()) if finite.size else None,
        "not_finite": int(rows.size - finite.size),
    }


def _notes(
    views: dict[str, Summary], features: dict[str, Summary], known: Sequence[bool]
) -> list[str]:
    notes = []
    for name, view in views.items():
        if view["brightness"] < _DARK:
            notes.append(f"view '{name}' is dark (mean {view['brightness']:.1f} of 255)")
        if view["min"] == view["max"] or view["motion"] < _STILL:
            notes.append(f"view '{name}' hardly changes (mean change {view['motion']:.2f} of 255)")
    for name, feature in features.items():
        if feature["not_finite"]:
            notes.append(f"{name} holds {feature['not_finite']} values that are not finite")
    if not known:
        notes.append(
            "episodes carry no 'next.success'; they count as demonstrations of unknown end"
        )
    notes.append("pictures should be upright: check the contact sheet")
    return notes
