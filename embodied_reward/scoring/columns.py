"""Scores of some items in numpy: how outputs of several calls become one reply."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.scoring.scorer import Output
from embodied_reward.scoring.status import Status
from embodied_reward.types import Float32, Int64, UInt8

PER_ITEM = ("score", "dims", "aleatoric", "epistemic", "per_view")


@dataclass
class Columns:
    """An `Output` in numpy.

    Attributes:
        floats: column -> Float32["n ..."].
        status: UInt8["n"].
        detail: item -> what went wrong.
        per_frame: Float32["f"] or None.
    """

    floats: dict[str, Any]
    status: UInt8
    detail: dict[int, str]
    per_frame: Float32 | None = None

    def put(self, items: Sequence[int] | Int64, part: "Columns", rows: Int64 | None = None) -> None:
        """Overwrite some items (and their frame `rows`) by those of `part`, in order."""
        where, n = np.asarray(items, np.int64), len(self.status)
        for name, column in part.floats.items():
            if name not in self.floats:
                self.floats[name] = np.full((n, *column.shape[1:]), np.nan, np.float32)
            self.floats[name][where] = column
        self.status[where] = part.status
        self.detail.update({int(where[k]): why for k, why in part.detail.items()})
        if part.per_frame is not None and rows is not None and self.per_frame is not None:
            self.per_frame[rows] = part.per_frame

    def take(self, items: Sequence[int]) -> "Columns":
        """Return some items, in order, without their frames."""
        detail = {k: self.detail[i] for k, i in enumerate(items) if i in self.detail}
        where = np.asarray(items, np.int64)
        floats = {name: column[where] for name, column in self.floats.items()}
        return Columns(floats, self.status[where], detail)


def empty(n: int, frames: int | None = None) -> Columns:
    """Return n items without scores, which is an error until somebody puts some there."""
    return Columns(
        {"score": np.full(n, np.nan, np.float32)},
        np.full(n, Status.SCORER_ERROR, np.uint8),
        {},
        None if frames is None else np.full(frames, np.nan, np.float32),
    )


def broken(n: int, error: Exception) -> Columns:
    """Return n items whose scorer raised."""
    columns = empty(n)
    columns.detail = dict.fromkeys(range(n), f"{type(error).__name__}: {error}")
    return columns


def to_columns(output: Output, n: int) -> Columns:
    """Bring an output to numpy. Raises ValueError for a column of the wrong length."""
    floats = {}
    for name in PER_ITEM:
        value = getattr(output, name)
        if value is not None:
            floats[name] = value.detach().float().cpu().numpy()
            if len(floats[name]) != n:
                raise ValueError(f"the scorer returned {len(floats[name])} {name} for {n} items")
    status = np.zeros(n, np.uint8) if output.status is None else np.array(output.status, np.uint8)
    frames = output.per_frame
    per_frame = None if frames is None else frames.detach().float().cpu().numpy()
    return Columns(floats, status, dict(output.detail), per_frame)
