"""Decide which stored arrays are which of LeRobot's columns."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied_reward.data import schema
from embodied_reward.data.formats.layout import Decisions, Fact
from embodied_reward.data.formats.picture import Picture, find_axes, sides
from embodied_reward.errors import DatasetError, did_you_mean

BOOLS = (schema.SUCCESS, schema.DONE)


@dataclass(frozen=True)
class Stored:
    """One stored array: the shape of one row and its type."""

    shape: tuple[int, ...]
    dtype: np.dtype


@dataclass(frozen=True)
class Number:
    """A numeric column made of stored arrays, flattened and joined where there are several.

    Attributes:
        names: the stored arrays.
        dtype: NumPy name of the column's type.
        shape: shape of one row.
        labels: `name.i` of every entry of a state, which may be joined of several arrays.
        ahead: rows by which the column looks ahead; the last row repeats.
    """

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] | None = None
    ahead: int = 0

    def feature(self) -> dict[str, Any]:
        """Return LeRobot's declaration of the column."""
        names = list(self.labels) if self.labels else None
        return {"dtype": self.dtype, "shape": self.shape, "names": names}


@dataclass(frozen=True)
class Rules:
    """Names that mean something in one format.

    Attributes:
        renames: stored name -> LeRobot key.
        state: groups of patterns; the first group that matches makes up `observation.state`.
        environment_state: likewise for `observation.environment_state`.
        orientation: how the format's pictures lie, and who says so.
    """

    renames: Mapping[str, str]
    state: tuple[tuple[str, ...], ...] = ()
    environment_state: tuple[tuple[str, ...], ...] = ()
    orientation: Fact = field(default_factory=lambda: Fact("upright", "assumed"))


@dataclass(frozen=True)
class Plan:
    """What a dataset holds, in LeRobot's words.

    Attributes:
        views: view name -> how it is stored.
        numbers: LeRobot key -> the stored arrays behind it.
        skipped: stored array -> why it is not read.
    """

    views: dict[str, Picture]
    numbers: dict[str, Number]
    skipped: dict[str, str]

    def features(self) -> dict[str, dict[str, Any]]:
        """Return LeRobot's feature declarations."""
        pictures = {
            schema.IMAGES + view: {
                "dtype": "image",
                "shape": (*picture.size, 3),
                "names": ["height", "width", "channels"],
            }
            for view, picture in self.views.items()
        }
        return pictures | {key: number.feature() for key, number in self.numbers.items()}


def make_plan(
    stored: Mapping[str, Stored],
    rules: Rules,
    decisions: Decisions,
    record: Mapping[str, Any],
    where: str,
) -> Plan:
    """Return the plan of a dataset.

    Args:
        stored: every array of the dataset (or of one episode).
        rules: the format's habits.
        decisions: settles the options.
        record: what one of our own writers noted about the dataset; empty for foreign ones.
        where: names the dataset in messages.

    Raises:
        DatasetError: a name that is not stored, or a record that contradicts the file.
    """
    views = _views(stored, rules, decisions, record, where)
    rest = {n: s for n, s in stored.items() if n not in {p.name for p in views.values()}}
    if record.get("numbers"):
        return Plan(views, _recorded(rest, record["numbers"], decisions, where), {})
    numeric = {n: s for n, s in rest.items() if _is_numeric(s)}
    skipped = {n: "no colour picture" for n in rest if n not in numeric}
    return Plan(views, _guessed(numeric, rules, decisions, where), skipped)


def _views(
    stored: Mapping[str, Stored],
    rules: Rules,
    decisions: Decisions,
    record: Mapping[str, Any],
    where: str,
) -> dict[str, Picture]:
    noted, wanted = record.get("views"), decisions.known("axes")
    found: dict[str, Picture] = {}
    for name, array in stored.items():
        axes = find_axes(array.shape, array.dtype, wanted)
        if axes is None or name in rules.renames or (noted and name not in noted):
            continue
        view = _short(name)
        if view in found:
            raise DatasetError(f"{where} has two arrays for view '{view}': rename one of them")
        found[view] = Picture(name, sides(array.shape, axes, f"'{name}' of {where}"), axes)
    if not found:
        return {}
    decisions.settle("axes", ", ".join(sorted({p.axes for p in found.values()})), "detected")
    how = {
        "orientation": decisions.settle(
            "orientation", rules.orientation.value, rules.orientation.origin
        ),
        "colour": decisions.settle("colour", "rgb"),
    }
    return {v: Picture(p.name, p.size, p.axes, **how) for v, p in found.items()}


def _short(name: str) -> str:
    """`obs/agentview_image` is the view `agentview_image`; ManiSkill's middle words go too."""
    name = re.sub(r"^obs/(sensor_data/)?", "", name)
    return re.sub(r"/rgb$", "", name).replace("/", ".")


def _is_numeric(array: Stored) -> bool:
    # A larger row is a depth map, a point cloud or a feature volume.
    small = len(array.shape) < 3 and 0 < int(np.prod(array.shape, dtype=np.int64)) <= 4096
    return array.dtype.kind in "biuf" and small


def _guessed(
    stored: Mapping[str, Stored], rules: Rules, decisions: Decisions, where: str
) -> dict[str, Number]:
    joined: dict[str, tuple[str, ...]] = {}
    for key, option in (
        (schema.STATE, "state"),
        (schema.ENVIRONMENT_STATE, "environment_state"),
    ):
        names = _find(stored, getattr(rules, option))
        names = decisions.settle(option, names) if names or decisions.given(option) else ()
        if names:
            joined[key] = names
    taken = {n for names in joined.values() for n in names}
    numbers = {key: join(stored, names, key, where) for key, names in joined.items()}
    for name in stored:
        if name not in taken:
            key = rules.renames.get(name) or column_key(name)
            if key in numbers:
                raise DatasetError(f"{where} has two arrays for '{key}', one is '{name}'")
            numbers[key] = join(stored, (name,), key, where)
    return numbers


def _recorded(
    stored: Mapping[str, Stored], record: Any, decisions: Decisions, where: str
) -> dict[str, Number]:
    good = isinstance(record, dict) and all(
        isinstance(names, list) and names and all(isinstance(n, str) for n in names)
        for names in record.values()
    )
    if not good:
        raise DatasetError(
            f"the record of columns in {where} is damaged; convert the dataset again from its "
            "source"
        )
    columns = {str(key): tuple(names) for key, names in record.items()}
    for key, option in (
        (schema.STATE, "state"),
        (schema.ENVIRONMENT_STATE, "environment_state"),
    ):
        if decisions.given(option):
            columns[key] = decisions.settle(option, ())
        elif key in columns:
            decisions.facts[option] = Fact(columns[key], "recorded")
    return {key: join(stored, names, key, where) for key, names in columns.items()}


def column_key(name: str) -> str:
    """Return the LeRobot key of a stored array that nothing else names."""
    return ("observation." if name.startswith("obs/") else "") + short_name(name)


def _find(stored: Mapping[str, Stored], groups: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    for group in groups:
        found = [
            (_limb(name), place, name)
            for place, pattern in enumerate(group)
            for name in stored
            if re.fullmatch(pattern, name)
        ]
        if found:
            return tuple(name for _, _, name in sorted(found))
    return ()


def _limb(name: str) -> str:
    """Arrays of one arm stay together: `robot0_eef_pos` belongs to `robot0`."""
    match = re.search(r"robot\d+", name)
    return match[0] if match else ""


def join(stored: Mapping[str, Stored], names: tuple[str, ...], key: str, where: str) -> Number:
    """Return the column that `names` make up. Raises DatasetError for a name that is not there."""
    for name in names:
        if name not in stored:
            raise DatasetError(
                f"{where} has no numeric array '{name}' for '{key}'; {did_you_mean(name, stored)}"
            )
    arrays = [stored[name] for name in names]
    dtype = np.dtype(bool) if key in BOOLS else np.result_type(*(a.dtype for a in arrays))
    # Parquet has no arithmetic on half floats; a wider float holds each exactly.
    kind = "float32" if dtype == np.float16 else dtype.name
    if len(names) == 1 and key not in (schema.STATE, schema.ENVIRONMENT_STATE):
        return Number(names, kind, arrays[0].shape or (1,))
    sizes = [int(np.prod(a.shape, dtype=np.int64)) for a in arrays]
    labels = tuple(
        f"{short_name(n)}.{i}" for n, size in zip(names, sizes, strict=True) for i in range(size)
    )
    return Number(names, kind, (sum(sizes),), labels)


def short_name(name: str) -> str:
    """Return a stored name without the folders that every array of the format is in."""
    return name.removeprefix("obs/").replace("/", ".")
