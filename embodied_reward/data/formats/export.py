"""What a dataset is written as: which columns, under which names, checked beforehand."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data import schema
from embodied_reward.data.formats import record
from embodied_reward.data.formats.source import Source
from embodied_reward.errors import DatasetError

# LeRobot writes these itself.
_COUNTERS = {"timestamp", "frame_index", "episode_index", "index", "task_index"}
_NAME = re.compile(r"(?!\.)[\w.\-]+")


@dataclass(frozen=True)
class Part:
    """One stored array and the entries of a column that it holds.

    Attributes:
        name: the stored array.
        start: first entry.
        stop: entry after the last.
        shape: shape of one row as stored.
    """

    name: str
    start: int
    stop: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Export:
    """Everything that a file of arrays will hold.

    Attributes:
        features: LeRobot key -> declaration of the columns that are written.
        parts: LeRobot key -> the arrays that hold it.
        views: view -> stored name.
    """

    features: dict[str, dict[str, Any]]
    parts: dict[str, list[Part]]
    views: dict[str, str]

    def noted(self, source: Source) -> dict[str, Any]:
        """Return the record that the file carries for our reader."""
        return record.make_record(
            {key: [p.name for p in group] for key, group in self.parts.items()},
            list(self.views.values()),
            fps=source.fps,
            robot_type=source.robot_type,
            info=source.info,
        )


def plan_export(source: Source, names: Mapping[str, str], home: str) -> Export:
    """Choose what a dataset is written as; arguments as `parts_of`.

    Raises:
        DatasetError: a name that cannot be stored, or two columns of one name.
    """
    features, views = numeric_features(source), view_names(source, home)
    parts = {key: parts_of(key, feature, names, home) for key, feature in features.items()}
    refuse_doubles([*views.values(), *(p.name for group in parts.values() for p in group)])
    return Export(features, parts, views)


def numeric_features(source: Source) -> dict[str, dict[str, Any]]:
    """Return the declarations of the columns that can be written, without LeRobot's counters."""
    return {
        key: feature
        for key, feature in source.features.items()
        if key not in _COUNTERS and _is_numeric(str(feature["dtype"]))
    }


def left_out(source: Source) -> list[str]:
    """Return the keys of columns that no conversion carries: text, depth, feature volumes."""
    kept = {*numeric_features(source), *source.view_keys.values(), *_COUNTERS}
    return sorted(set(source.features) - kept)


def parts_of(
    key: str, feature: Mapping[str, Any], names: Mapping[str, str], home: str
) -> list[Part]:
    """Return the arrays that hold a column; a state that was joined comes apart again.

    Args:
        key: LeRobot's key.
        feature: its declaration.
        names: LeRobot key -> stored name, where the format has a word for it.
        home: what stands before the name of an observation (`obs/` in robomimic).
    """
    shape = tuple(int(n) for n in feature["shape"])
    size = int(np.prod(shape))
    groups = _groups(feature.get("names"), size)
    if key in (schema.STATE, schema.ENVIRONMENT_STATE) and groups:
        return [Part(home + _checked(n, key), a, b, (b - a,)) for n, a, b in groups]
    scalar = key in (schema.REWARD, schema.DONE, schema.SUCCESS, schema.PROGRESS)
    return [Part(_stored_name(key, names, home), 0, size, () if scalar and size == 1 else shape)]


def view_names(source: Source, home: str) -> dict[str, str]:
    """Return view -> stored name."""
    return {view: home + _checked(view, view) for view in source.view_keys}


def refuse_doubles(names: list[str]) -> None:
    """Raise DatasetError if two columns would be stored under one name."""
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DatasetError(
            f"two columns would both be called '{twice[0]}'; rename one of them first "
            "(lerobot-edit-dataset), or choose views with --views"
        )


def read_columns(source: Source, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Return an episode's columns, each of shape (t, n). Raises DatasetError if not finite."""
    columns = source.columns(index, keys)
    for key, rows in columns.items():
        bad = ~np.isfinite(rows)
        if bad.any():
            t, column = (int(i) for i in np.argwhere(bad)[0])
            raise DatasetError(
                f"'{key}'[{column}] of '{source.root}' episode {index}, frame {t} is not finite "
                f"({rows[t, column]}); delete the episode or record it again"
            )
    return columns


def frames_of(source: Source, index: int, view: str) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the frames of a view one by one, decoding a bounded number at a time."""
    for block in source.blocks(index, view):
        yield from block


def _is_numeric(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False  # image, video, string, language


def _groups(labels: Any, size: int) -> list[tuple[str, int, int]]:
    """Read labels such as `eef_pos.0, eef_pos.1, gripper.0`; empty if they are anything else."""
    if not isinstance(labels, list | tuple) or len(labels) != size:
        return []
    groups: list[tuple[str, int, int]] = []
    for at, label in enumerate(labels):
        name, _, number = str(label).rpartition(".")
        if groups and groups[-1][0] == name and number == str(at - groups[-1][1]):
            groups[-1] = (name, groups[-1][1], at + 1)
        elif name and number == "0":
            groups.append((name, at, at + 1))
        else:
            return []
    return groups if len({n for n, _, _ in groups}) == len(groups) else []


def _stored_name(key: str, names: Mapping[str, str], home: str) -> str:
    if key in names:
        return names[key]
    if key.startswith("observation."):
        return home + _checked(key.removeprefix("observation."), key)
    return _checked(key, key)


def _checked(name: str, key: str) -> str:
    if not _NAME.fullmatch(name):
        raise DatasetError(
            f"'{key}' cannot be the name of an array; rename it (letters, digits, '_', '-', '.')"
        )
    return name
