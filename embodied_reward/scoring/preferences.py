"""Preference data: one JSON object per line (or one parquet row) about pictures or clips.

    {"prompt": "a red ball", "chosen": "a.png", "rejected": "b.png"}      a pair
    {"chosen": "a.png", "rejected": "b.png", "tie": true}                 neither is better
    {"images": ["a.png", "b.png", "c.png"], "best": 2}                    a set; null is a tie
    {"images": ["a.png", "b.png"], "best": {"quality": 0, "motion": 1}}   several dimensions
    {"image": "a.png", "label": 1}                                        passed (1) or failed (0)

A candidate is a picture, a video (mp4, webm, ...), a list of pictures in order, or in parquet a
struct with `bytes`. Paths are relative to the file. Optional keys: `prompt`, `user` (a number),
`reference` (a candidate that the others are compared with).
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied_reward.errors import DatasetError, did_you_mean
from embodied_reward.scoring.clips import Clip
from embodied_reward.scoring.heads.base import DEFAULT_DIM
from embodied_reward.scoring.heads.choices import TIE, UNJUDGED

KEYS = (
    "prompt", "chosen", "rejected", "tie", "images", "best", "image", "label", "user", "reference",
)  # fmt: skip


@dataclass(frozen=True)
class Judgement:
    """One line: candidates, and the best of them or the label of the only one.

    Attributes:
        items: numbers of the candidates' clips.
        best: per dimension the place of the best among `items`, TIE or UNJUDGED; empty for labels.
        label: 1 passed, 0 failed, or None.
        prompt: text or "".
        user: number or -1.
        reference: number of the reference's clip or -1.
        where: for messages.
    """

    items: tuple[int, ...]
    best: tuple[int, ...] = ()
    label: int | None = None
    prompt: str = ""
    user: int = -1
    reference: int = -1
    where: str = ""


@dataclass
class Preferences:
    """A whole file.

    Attributes:
        clips: every candidate once.
        rows: the judgements.
        dims: names of what is judged.
        path: the file.
    """

    path: Path
    clips: list[Clip] = field(default_factory=list)
    rows: list[Judgement] = field(default_factory=list)
    dims: tuple[str, ...] = (DEFAULT_DIM,)


def read_preferences(path: Path | str) -> Preferences:
    """Read a `.jsonl` or `.parquet` file.

    Raises:
        DatasetError: no file, an empty one, or a bad line; names the line and how to mend it.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"no preference file at '{path}'; give a .jsonl or .parquet file")
    rows = list(_parquet(path) if path.suffix == ".parquet" else _lines(path))
    if not rows:
        raise DatasetError(f"'{path}' is empty; it needs one JSON object per line, such as {_PAIR}")
    return _Reader(path, rows).read()


_PAIR = '{"prompt": "...", "chosen": "a.png", "rejected": "b.png"}'


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DatasetError(f"'{path}' is not UTF-8 text: {error}; save it as UTF-8") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{where} is not JSON ({error}); write e.g. {_PAIR}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{where} holds a {type(row).__name__}; write e.g. {_PAIR}")
        yield where, row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DatasetError(f"'{path}' is not a readable parquet file: {error}") from error
    for number, row in enumerate(table.to_pylist(), 1):
        # A column that a row does not use is null; a null `best` of a set is a tie.
        kept = {k: v for k, v in row.items() if v is not None}
        if "images" in kept:
            kept.setdefault("best", None)
        if isinstance(kept.get("best"), dict):
            kept["best"] = {k: v for k, v in kept["best"].items() if v is not None}
        yield f"{path.name} row {number}", kept


class _Reader:
    def __init__(self, path: Path, rows: list[tuple[str, dict[str, Any]]]) -> None:
        self._path, self._rows = path, rows
        self._numbers: dict[tuple, int] = {}
        self._out = Preferences(path)

    def read(self) -> Preferences:
        named = {
            k: None for _, r in self._rows if isinstance(r.get("best"), dict) for k in r["best"]
        }
        if named:
            self._out.dims = tuple(map(str, named))
        self._out.rows = [self._row(where, row) for where, row in self._rows]
        return self._out

    def _row(self, where: str, row: dict[str, Any]) -> Judgement:
        for key in row:
            if key not in KEYS:
                raise DatasetError(f"{where}: unknown key '{key}'; {did_you_mean(key, KEYS)}")
        kinds = [k for k in ("chosen", "images", "image") if k in row]
        if len(kinds) != 1:
            raise DatasetError(
                f"{where} must have either `chosen` and `rejected`, or `images` and `best`, or "
                f"`image` and `label`; it has {', '.join(row) or 'no keys'}"
            )
        common = {
            "prompt": self._prompt(where, row.get("prompt", "")),
            "user": self._number(where, "user", row.get("user", -1), -1, 2**31),
            "reference": self._clip(where, row["reference"]) if "reference" in row else -1,
            "where": where,
        }
        return {"chosen": self._pair, "images": self._set, "image": self._single}[kinds[0]](
            where, row, common
        )

    def _pair(self, where: str, row: dict[str, Any], common: dict[str, Any]) -> Judgement:
        tie = row.get("tie", False)
        if not isinstance(tie, bool):
            raise DatasetError(f"{where}: `tie` is {tie!r}; write true or false")
        items = tuple(self._clip(where, self._need(where, row, k)) for k in ("chosen", "rejected"))
        best = self._all_dims(TIE if tie else 0)
        return Judgement(self._distinct(where, items), best, **common)

    def _set(self, where: str, row: dict[str, Any], common: dict[str, Any]) -> Judgement:
        images = row["images"]
        if not isinstance(images, list) or len(images) < 2:
            raise DatasetError(f"{where}: `images` needs a list of at least two candidates")
        items = self._distinct(where, tuple(self._clip(where, i) for i in images))
        best = self._need(where, row, "best")
        last = len(items) - 1
        if isinstance(best, dict):
            chosen = {k: self._place(where, v, last) for k, v in best.items()}
            return Judgement(
                items, tuple(chosen.get(d, UNJUDGED) for d in self._out.dims), **common
            )
        return Judgement(items, self._all_dims(self._place(where, best, last)), **common)

    def _single(self, where: str, row: dict[str, Any], common: dict[str, Any]) -> Judgement:
        label = self._need(where, row, "label")
        label = self._number(where, "label", label, 0, 1)
        return Judgement((self._clip(where, row["image"]),), (), label, **common)

    def _place(self, where: str, best: Any, last: int) -> int:
        return TIE if best is None else self._number(where, "best", best, 0, last)

    def _all_dims(self, best: int) -> tuple[int, ...]:
        return (best,) * len(self._out.dims)

    def _need(self, where: str, row: dict[str, Any], key: str) -> Any:
        if key not in row:
            raise DatasetError(f"{where}: `{key}` is missing; it has {', '.join(row)}")
        return row[key]

    def _number(self, where: str, key: str, value: Any, low: int, high: int) -> int:
        whole = isinstance(value, int | float) and value == value and value == int(value)
        if not whole or not low <= value <= high:
            raise DatasetError(
                f"{where}: `{key}` is {value!r}; accepted: whole numbers from {low} to {high}"
            )
        return int(value)

    def _prompt(self, where: str, value: Any) -> str:
        if not isinstance(value, str):
            raise DatasetError(f"{where}: `prompt` is {value!r}; write a text in quotes")
        return value

    def _distinct(self, where: str, items: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(items)) < len(items):
            raise DatasetError(f"{where} compares a candidate with itself; remove the line")
        return items

    def _clip(self, where: str, value: Any) -> int:
        parts = tuple(self._part(where, v) for v in (value if isinstance(value, list) else [value]))
        if not parts:
            raise DatasetError(f"{where}: a candidate is an empty list; name at least one picture")
        if parts not in self._numbers:
            self._numbers[parts] = len(self._out.clips)
            self._out.clips.append(Clip(parts, where))
        return self._numbers[parts]

    def _part(self, where: str, value: Any) -> Path | bytes:
        if isinstance(value, dict):
            if isinstance(value.get("bytes"), bytes):
                return value["bytes"]
            value = value.get("path")
        if not isinstance(value, str) or not value:
            raise DatasetError(
                f"{where}: a candidate is {value!r:.60}; write the path of a picture"
            )
        path = self._path.parent / value
        if not path.is_file():
            raise DatasetError(
                f"{where}: no file '{value}' in '{self._path.parent}'; paths are relative to the "
                "preference file"
            )
        return path
