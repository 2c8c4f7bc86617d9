"""Scores as rows: a file that is complete or absent, and a table for the terminal."""

import csv
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.files import replacing

FORMATS = (".jsonl", ".csv", ".parquet")
SHOWN = 30
WIDE = 44


@dataclass(frozen=True)
class Row:
    """One score.

    Attributes:
        path: the file.
        score: NaN unless `status` is OK.
        status: name of a `Status`.
        start: time of the first frame in the clip [s]; None for a picture.
        end: time of the last frame [s].
        frames: number of frames that were scored.
        columns: further numbers of the scorer by name.
        detail: what went wrong.
    """

    path: str
    score: float
    status: str
    start: float | None = None
    end: float | None = None
    frames: int = 1
    columns: dict[str, float] = field(default_factory=dict)
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is a score."""
        return self.status == "OK"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; what is not a number is None."""
        flat = {**self.__dict__, **self.columns}
        del flat["columns"]
        return {k: None if _is_nan(v) else v for k, v in flat.items()}


def check_output(path: str) -> None:
    """Raise ConfigError for a format that cannot be written, before any work is done."""
    if path and Path(path).suffix not in FORMATS:
        raise ConfigError(
            f"--output={path}: unknown format; {did_you_mean(Path(path).suffix, FORMATS)}"
        )


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write rows as JSON lines, CSV or parquet, by the suffix."""
    trees = [row.to_dict() for row in rows]
    names = list(dict.fromkeys(name for tree in trees for name in tree))
    with replacing(path) as temporary:
        if path.suffix == ".jsonl":
            temporary.write_text("".join(json.dumps(tree) + "\n" for tree in trees))
        elif path.suffix == ".csv":
            with temporary.open("w", newline="") as stream:
                writer = csv.DictWriter(stream, names)
                writer.writeheader()
                writer.writerows(trees)
        else:
            _write_parquet(trees, names, temporary)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, the middle left out where there are many, and a summary."""
    timed = any(row.start is not None for row in rows)
    shown = [_line(row, timed) for row in rows]
    if len(shown) > SHOWN:
        left = len(shown) - SHOWN
        half = SHOWN // 2
        shown = [*shown[:half], f"... {left} more ...", *shown[-half:]]
    return "\n".join([*shown, "", summary(rows)])


def summary(rows: Sequence[Row]) -> str:
    """Return how many were scored, their mean and deviation, and what failed."""
    scores = np.array([row.score for row in rows if row.ok])
    said = f"{len(scores)} of {len(rows)} scored"
    if len(scores):
        said += f", mean {scores.mean():.4g}, deviation {scores.std():.3g}"
    failed = Counter(row.status for row in rows if not row.ok)
    return ", ".join([said, *(f"{count} {status}" for status, count in failed.most_common())])


def _line(row: Row, timed: bool) -> str:
    name = row.path if len(row.path) <= WIDE else "..." + row.path[-WIDE + 3 :]
    time = "" if row.start is None else f"{row.start:.2f}-{row.end:.2f} s"
    if row.start is not None and row.start == row.end:
        time = f"{row.start:.2f} s"
    number = f"{row.score:.5g}" if row.ok else "-"
    more = " ".join(f"{k}={v:.4g}" for k, v in row.columns.items() if not _is_nan(v))
    detail = " ".join(row.detail.split())[:80]
    middle = f"{time:>16}  " if timed else ""
    return f"{name:<{WIDE}}  {middle}{number:>11}  {row.status:<12} {more}{detail}".rstrip()


def _write_parquet(trees: list[dict[str, Any]], names: list[str], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = {name: [tree.get(name) for tree in trees] for name in names}
    words = ("path", "status", "detail")
    types = {n: pyarrow.string() if n in words else pyarrow.float64() for n in names}
    types["frames"] = pyarrow.int64()
    arrays = {name: pyarrow.array(values, types[name]) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
