"""What every format offers, and how formats that store arrays offer it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from embodied_reward.data import schema
from embodied_reward.data.formats import limits
from embodied_reward.data.formats.layout import Decisions, Fact
from embodied_reward.data.formats.picture import Picture
from embodied_reward.data.formats.plan import Number, Plan
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8


class Source(Protocol):
    """One dataset on the disk, in LeRobot's vocabulary.

    Attributes:
        kind: the format's name.
        root: its file or folder.
        fps: rows per second [Hz].
        robot_type: LeRobot's name of the embodiment, `unknown` where nobody says.
        features: LeRobot's feature declarations of everything that can be read.
        view_keys: view name -> feature key.
        lengths: rows of each episode.
        tasks: the task of each episode in words.
        facts: how it is read, and who said so.
        notes: what a reader should know, in words.
        info: json-able facts that the dataset carries about itself.
    """

    kind: str
    root: Path
    fps: float
    robot_type: str
    features: dict[str, dict[str, Any]]
    view_keys: dict[str, str]
    lengths: list[int]
    tasks: list[str]
    facts: dict[str, Fact]
    notes: list[str]
    info: dict[str, Any]

    @property
    def successes(self) -> Sequence[bool | None]:
        """Whether each episode ever succeeded; None where the dataset does not say."""
        ...

    def size(self, view: str) -> tuple[int, int]:
        """Return the declared (height, width) of a view."""
        ...

    def columns(self, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Return numeric columns of one episode, each of shape (t, n). Raises DatasetError."""
        ...

    def frames(self, index: int, view: str) -> UInt8:
        """Decode one view of one episode, UInt8["t h w 3"]. Raises DatasetError."""
        ...

    def blocks(self, index: int, view: str) -> Iterator[UInt8]:
        """Decode one view of one episode in order, a bounded number of frames at a time."""
        ...

    def keyframes(self, index: int) -> Int64 | None:
        """Return an episode's annotated sub-task boundaries; None if there are none."""
        ...


class ArraySource(ABC):
    """A dataset whose episodes are rows of stored arrays; attributes as `Source`.

    Subclasses read rows (`read`) and say what there is (`_begin`).
    """

    kind: str = ""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fps, self.robot_type = 0.0, "unknown"
        self.features: dict[str, dict[str, Any]] = {}
        self.view_keys: dict[str, str] = {}
        self.lengths: list[int] = []
        self.tasks: list[str] = []
        self.facts: dict[str, Fact] = {}
        self.notes: list[str] = []
        self.info: dict[str, Any] = {}
        self._pictures: dict[str, Picture] = {}
        self._numbers: dict[str, Number] = {}

    @abstractmethod
    def read(self, index: int, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows [start, stop) of a stored array of one episode. Raises DatasetError."""

    def stored_bytes(self, index: int, name: str) -> int | None:
        """Return how many bytes hold one episode's rows of an array; None if nobody knows."""
        del index, name
        return None

    def spans(self, index: int, name: str, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the rows of one episode, start and stop, in spans of about `rows`."""
        del name
        for start in range(0, self.lengths[index], rows):
            yield start, min(start + rows, self.lengths[index])

    def _adopt(self, plan: Plan, decisions: Decisions) -> None:
        """Take over a plan; call when lengths and tasks are known."""
        self._numbers = plan.numbers
        self._pictures = self._with_range(plan.views, decisions)
        self.features = plan.features()
        self.view_keys = {view: schema.IMAGES + view for view in plan.views}
        self.facts = decisions.facts
        if plan.skipped:
            shown = ", ".join(f"{n} ({why})" for n, why in sorted(plan.skipped.items()))
            self.notes.append(f"not read: {shown}")

    def _with_range(self, views: Mapping[str, Picture], decisions: Decisions) -> dict[str, Picture]:
        """Settle what floats mean: 0 to 1 or 0 to 255, by looking at a few pictures."""
        seen = {view: self._range(picture) for view, picture in views.items()}
        if not seen:
            return {}
        summary = ", ".join(sorted(set(seen.values())))
        decisions.settle("value_range", summary, "detected")
        known = decisions.known("value_range")
        return {v: replace(p, value_range=known or seen[v]) for v, p in views.items()}

    def _range(self, picture: Picture) -> str:
        count = len(self.lengths)
        for index in sorted({0, count // 2, count - 1}):
            length = self.lengths[index]
            for start in sorted({0, max(length // 2, 0)}):
                block = self.read(index, picture.name, start, min(start + 1, length))
                if block.dtype.kind != "f":
                    return "byte"
                finite = block[np.isfinite(block)]
                if finite.size and finite.max() > 1:
                    return "byte"
        return "unit"

    def size(self, view: str) -> tuple[int, int]:
        """Return the declared (height, width) of a view."""
        return self._pictures[view].size

    def columns(self, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Return numeric columns of one episode, each of shape (t, n). Raises DatasetError."""
        return {key: self._column(index, key) for key in keys}

    def _column(self, index: int, key: str) -> npt.NDArray[Any]:
        length = self.lengths[index]
        if key in _COUNTERS:
            return self._counter(index, key)
        number = self._numbers[key]
        width = int(np.prod(number.shape)) * np.dtype(number.dtype).itemsize
        limits.fits(f"'{key}' of {self.where(index)}", length * width, limits.NUMBERS)
        parts = [self._ahead(index, name, number.ahead) for name in number.names]
        rows = np.concatenate([part.reshape(length, -1) for part in parts], axis=1)
        return (rows != 0) if number.dtype == "bool" else rows.astype(number.dtype, copy=False)

    def _ahead(self, index: int, name: str, ahead: int) -> npt.NDArray[Any]:
        length = self.lengths[index]
        rows = self.read(index, name, 0, length)
        return rows[np.minimum(np.arange(length) + ahead, length - 1)] if ahead else rows

    def _counter(self, index: int, key: str) -> Int64:
        frame = np.arange(self.lengths[index])[:, None]
        if key == "index":
            return frame + sum(self.lengths[:index])
        return frame if key == "frame_index" else np.full_like(frame, index)

    def frames(self, index: int, view: str) -> UInt8:
        """Decode one view of one episode, UInt8["t h w 3"]. Raises DatasetError."""
        height, width = self.size(view)
        length, where = self.lengths[index], self._named(index, view)
        limits.fits(where, length * height * width * 3, limits.VIEW)
        frames, start = np.empty((length, height, width, 3), np.uint8), 0
        for block in self.blocks(index, view):
            frames[start : start + len(block)] = block
            start += len(block)
        return frames

    def blocks(self, index: int, view: str) -> Iterator[UInt8]:
        """Decode one view of one episode in order, a bounded number of frames at a time."""
        picture, where = self._pictures[view], self._named(index, view)
        height, width = picture.size
        stored = self.stored_bytes(index, picture.name)
        if stored is not None:
            limits.plausible(where, self.lengths[index] * height * width * 3, stored)
        rows = max(1, limits.BLOCK // (height * width * 3))
        for start, stop in self.spans(index, picture.name, rows):
            block = self.read(index, picture.name, start, stop)
            yield picture.upright(block, f"{where}, frames {start} to {stop - 1}")

    def keyframes(self, index: int) -> Int64 | None:
        """These formats annotate no sub-tasks."""
        del index

    @property
    def successes(self) -> list[bool | None]:
        """Whether each episode ever succeeded; None where the dataset does not say."""
        return self._won

    @cached_property
    def _won(self) -> list[bool | None]:
        if schema.SUCCESS not in self._numbers:
            return [None] * len(self.lengths)
        return [bool(self._column(i, schema.SUCCESS).any()) for i in range(len(self.lengths))]

    def where(self, index: int) -> str:
        """Name an episode for messages."""
        return f"'{self.root}' episode {index}"

    def _named(self, index: int, view: str) -> str:
        return f"view '{view}' of {self.where(index)}"


_COUNTERS = ("index", "episode_index", "frame_index")


def check_lengths(lengths: Sequence[int], root: Path) -> None:
    """Raise DatasetError unless there are episodes and each has rows."""
    if not lengths:
        raise DatasetError(f"'{root}' holds no episodes; record some or choose another dataset")
    if len(lengths) > limits.EPISODES:
        raise DatasetError(
            f"'{root}' lists {len(lengths)} episodes, more than {limits.EPISODES}; split it"
        )
    for index, length in enumerate(lengths):
        if length <= 0:
            raise DatasetError(
                f"'{root}' episode {index} has {length} rows; delete it or record it again"
            )
