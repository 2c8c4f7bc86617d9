"""Refuse data that would spoil a training run, before it starts."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from embodied_reward.errors import DatasetError
from embodied_reward.types import Episode, blocks_of

Sizes = dict[str, tuple[int, int]]
"""View name -> (height, width) of its pictures [px]."""


def check_dataset(episodes: Sequence[Episode], *, views: Iterable[str] | None = None) -> None:
    """Decode and check every episode: pictures, numbers, sizes, frame rates.

    Pass `list(open_dataset(...))` to keep what was decoded for later use.

    Args:
        episodes: an opened dataset, or a list of its episodes.
        views: the views that will be used; None for all of the first episode.

    Raises:
        DatasetError: no episodes, a missing view, a value that is not finite, progress outside
            [0, 1], episodes of different sizes or frame rates, or a file that cannot be decoded;
            names file, episode and frame.
    """
    first: Episode | None = None
    sizes: Sizes = {}
    for episode in episodes:
        first = first or episode
        names = list(first.views if views is None else views)
        found = _check_views(episode, names)
        sizes = sizes or found
        _check_numbers(episode)
        _check_alike(first, episode, {name: (sizes[name], found[name]) for name in names})
    if first is None:
        raise DatasetError("the dataset holds no episodes; record some with 'er collect'")


def _check_views(episode: Episode, names: list[str]) -> Sizes:
    """Decode all pictures; returns the (height, width) of every view."""
    sizes: Sizes = {}
    if len(episode) == 0:
        raise DatasetError(f"{episode.source} has no rows; delete the episode")
    for name in names:
        if name not in episode.views:
            known = ", ".join(episode.views) or "none"
            raise DatasetError(f"{episode.source} has no view '{name}'; its views: {known}")
        count, sizes[name] = _shape(episode, name)
        if count != len(episode):
            raise DatasetError(
                f"view '{name}' of {episode.source} has {count} frames for {len(episode)} rows"
            )
    return sizes


def _shape(episode: Episode, name: str) -> tuple[int, tuple[int, int]]:
    """Return the number of frames of a view and their (height, width); holds few of them."""
    shapes = [block.shape for block in blocks_of(episode.views, name)]
    _, height, width, _ = shapes[0]
    return sum(shape[0] for shape in shapes), (height, width)


def _check_numbers(episode: Episode) -> None:
    for key in ("action", "state", "environment_state", "progress"):
        values = getattr(episode, key)
        if values is None:
            continue
        rows = values.reshape(len(values), -1)
        _refuse(episode, key, rows, ~np.isfinite(rows), "is not finite")
        if key == "progress":
            _refuse(episode, key, rows, (rows < 0) | (rows > 1), "is outside [0, 1]")


def _refuse(
    episode: Episode, key: str, rows: npt.NDArray, bad: npt.NDArray[np.bool_], what: str
) -> None:
    if bad.any():
        t, column = (int(i) for i in np.argwhere(bad)[0])
        raise DatasetError(
            f"{key}[{column}] of {episode.source}, frame {t} {what} ({rows[t, column]}); "
            "delete the episode (lerobot-edit-dataset) or record it again"
        )


def _check_alike(
    first: Episode, episode: Episode, sizes: Mapping[str, tuple[tuple[int, int], tuple[int, int]]]
) -> None:
    facts: dict[str, tuple[object, object]] = {"fps": (first.fps, episode.fps)}
    for key in ("action", "state", "environment_state"):
        facts[f"size of {key}"] = (_width(first, key), _width(episode, key))
    facts |= {f"picture size of view '{name}'": pair for name, pair in sizes.items()}
    wrong = [f"{what} is {a} and {b}" for what, (a, b) in facts.items() if a != b]
    if wrong:
        raise DatasetError(
            f"{first.source} and {episode.source} do not fit together: {'; '.join(wrong)}; "
            "train on one kind at a time"
        )


def _width(episode: Episode, key: str) -> int | None:
    values = getattr(episode, key)
    return None if values is None else values.shape[1]
