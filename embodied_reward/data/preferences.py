"""Preferences over episodes of a dataset: one JSON object per line.

    {"type": "pair", "episodes": [3, 7], "preferred": 1}
    {"type": "pair", "episodes": [3, 7], "preferred": null}          neither is better
    {"type": "triplet", "anchor": 2, "closer": 3, "farther": 7}
    {"type": "triplet", "anchor": 2, "closer": 3, "farther": 7, "same": true}
    {..., "skipped": true}                                           no judgement

`preferred` is the position of the better episode, 0 or 1. A triplet says that `closer` is more
like `anchor` than `farther` is; with `same` it says neither. Numbers are episode indices of the
dataset (`Episode.index`). `type` may be left out where the keys tell. Further keys (`dataset`,
`task`, `source`, `time`, ...) are kept by writers and ignored here.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied_reward.errors import DatasetError, did_you_mean


@dataclass(frozen=True)
class Pair:
    """Which of two episodes is better.

    Attributes:
        episodes: two different episode indices.
        preferred: 0 or 1, the position of the better one; None if neither is.
    """

    episodes: tuple[int, int]
    preferred: int | None

    @property
    def better_worse(self) -> tuple[int, int] | None:
        """The better and the worse episode; None for a tie."""
        if self.preferred is None:
            return None
        return self.episodes[self.preferred], self.episodes[1 - self.preferred]


@dataclass(frozen=True)
class Triplet:
    """Which of two episodes is more like a third.

    Attributes:
        anchor: what the two are compared to.
        closer: more like the anchor.
        farther: less like the anchor.
        same: neither is; then the order of the two means nothing.
    """

    anchor: int
    closer: int
    farther: int
    same: bool = False

    @property
    def episodes(self) -> tuple[int, int, int]:
        """All three episodes."""
        return self.anchor, self.closer, self.farther


type Preference = Pair | Triplet


def read_preferences(
    path: Path | str, episodes: Iterable[int] | None = None, *, dataset: str = ""
) -> tuple[Preference, ...]:
    """Read a file of preferences; skipped questions are left out, ties are kept.

    Args:
        path: JSON lines in UTF-8; empty lines are passed over.
        episodes: indices that exist; None does not check them.
        dataset: name of the dataset, paths joined by commas; rows whose "dataset" names another
            one are left out. Folders may have moved: their last parts are compared. Empty takes
            every row.

    Raises:
        DatasetError: the file cannot be read, it holds no judgement of this dataset, or a row is
            wrong; the message names the line.
    """
    known = None if episodes is None else frozenset(episodes)
    found, others = [], set()
    for number, line in enumerate(_lines(Path(path)), 1):
        if not line.strip():
            continue
        where = f"'{path}' line {number}"
        row = _object(line, where)
        preference = parse_preference(row, where)
        if dataset and _parts(row.get("dataset", dataset)) != _parts(dataset):
            others.add(str(row["dataset"]))
            continue
        _check_episodes(preference, known, where)
        if not row.get("skipped", False):
            found.append(preference)
    if not found and others:
        raise DatasetError(
            f"'{path}' holds no preference about '{dataset}', but about '{min(others)}'; open the "
            "dataset that was labelled, with its folders in the same order"
        )
    if not found:
        raise DatasetError(
            f"'{path}' holds no preference; compare episodes with `er label-preferences`"
        )
    return tuple(found)


def parse_preference(row: Mapping[str, Any], where: str = "this row") -> Preference:
    """Return what one row says; `where` stands in the message. Raises DatasetError."""
    kind = row.get("type", "pair" if "episodes" in row else "triplet")
    if kind not in _PARSERS:
        raise DatasetError(f"{where}: \"type\": '{kind}'; {did_you_mean(str(kind), _PARSERS)}")
    for flag in ("skipped", "same"):
        if not isinstance(row.get(flag, False), bool):
            raise DatasetError(f'{where}: "{flag}": {row[flag]!r}; expected true or false')
    preference = _PARSERS[kind](row, where)
    if len(set(preference.episodes)) < len(preference.episodes):
        raise DatasetError(
            f"{where} compares an episode with itself: {list(preference.episodes)}; remove the row"
        )
    return preference


def _parts(dataset: object) -> list[str]:
    return [Path(part).name for part in str(dataset).split(",")]


def _pair(row: Mapping[str, Any], where: str) -> Pair:
    both = _value(row, "episodes", where)
    if not isinstance(both, list | tuple) or len(both) != 2:
        raise DatasetError(f'{where}: "episodes": {both!r}; expected two episode indices')
    preferred = _value(row, "preferred", where)
    if not (preferred is None or type(preferred) is int and preferred in (0, 1)):
        raise DatasetError(f'{where}: "preferred": {preferred!r}; expected 0, 1, or null for a tie')
    first, second = (_index(e, "episodes", where) for e in both)
    return Pair((first, second), preferred)


def _triplet(row: Mapping[str, Any], where: str) -> Triplet:
    names = ("anchor", "closer", "farther")
    anchor, closer, farther = (_index(_value(row, n, where), n, where) for n in names)
    return Triplet(anchor, closer, farther, row.get("same", False))


_PARSERS = {"pair": _pair, "triplet": _triplet}


def _value(row: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise DatasetError(
            f'{where} has no "{key}" (it has {", ".join(row) or "nothing"}); a pair has '
            '"episodes" and "preferred", a triplet "anchor", "closer" and "farther"'
        )
    return row[key]


def _index(value: Any, key: str, where: str) -> int:
    if type(value) is not int or value < 0:  # True is an int to isinstance
        raise DatasetError(f'{where}: "{key}": {value!r}; expected an episode index >= 0')
    return value


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"cannot read preferences from '{path}': {error}") from error


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{where} is not JSON ({error}); mend or remove the line") from error
    if not isinstance(row, dict):
        raise DatasetError(f"{where} is not a JSON object; mend or remove the line")
    return row


def _check_episodes(preference: Preference, known: frozenset[int] | None, where: str) -> None:
    missing = [] if known is None else [e for e in preference.episodes if e not in known]
    if missing:
        raise DatasetError(
            f"{where} names episode {missing[0]}, which the dataset does not have "
            f"({len(known or ())} episodes); open the dataset that was labelled"
        )
