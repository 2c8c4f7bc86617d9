"""One request on its way through the engine: which features it has, which it waits for."""

import bisect
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.types import Int64, UInt8

Key = bytes | tuple[int, int]


class Gather:
    """The features of a request's frames by one trunk, filled as batches come back.

    Attributes:
        numbers: Int64["u"], the frames that are referred to.
        rows: Int64["f"], the row of every frame reference among them.
        keys: of those u frames.
        hit: Bool["u"], found in the cache.
        failed: row -> what went wrong with that frame.
        waiting: rows that are still missing.
        scorers: names of the scorers that wait for them.
    """

    def __init__(self, job: "Job", trunk: Trunk) -> None:
        self.job, self.trunk = job, trunk
        self.numbers, self.rows = _distinct(job.request)
        self.keys: list[Key] = [job.keys[n] for n in self.numbers]
        self.hit = np.zeros(len(self.numbers), bool)
        self.failed: dict[int, str] = {}
        self.waiting = len(self.numbers)
        self.scorers: list[str] = []
        self.table: Tensor | None = None

    def fill(self, rows: Int64, features: Tensor) -> None:
        """Put features Tensor["k ..."] where they belong; they may be kept as they are."""
        self.waiting -= len(rows)
        if _all_in_order(rows, len(self.numbers)):
            self.table = features
            return
        if self.table is None:
            shape = (len(self.numbers), *features.shape[1:])
            self.table = features.new_full(shape, torch.nan)
        self.table[torch.from_numpy(rows).to(features.device)] = features

    def fail(self, row: int, why: str) -> None:
        """Give up on one frame."""
        self.failed[row] = why
        self.waiting -= 1

    def frame(self, row: int) -> UInt8:
        """Return the pixels of one row."""
        return self.job.frame(self.numbers[row])

    @property
    def features(self) -> Tensor:
        """Features of every frame reference, Tensor["f ..."]; NaN rows for failed frames."""
        if self.table is None:
            return torch.full((len(self.rows), 1), torch.nan, device=self.trunk.device)
        if _all_in_order(self.rows, len(self.numbers)):
            return self.table
        return self.table[torch.from_numpy(self.rows).to(self.table.device)]


class Job:
    """A request, its future, its place in the queue.

    Attributes:
        deadline: when unfinished items become TIMEOUT, `time.monotonic` [s].
        rank: who is smaller goes first: the deadline, later for lower priorities. As deadlines
            stand still while new ones move on, everybody's turn comes.
        seconds: stage -> time spent [s].
        embeds: the caller wants features, not scores.
    """

    def __init__(
        self,
        request: ScoreRequest,
        keys: Sequence[Key],
        *,
        max_wait: float,
        ageing: float,
        embeds: bool = False,
    ) -> None:
        self.request, self.keys, self.embeds = request, keys, embeds
        self.future: Future[Any] = Future()
        self.future.set_running_or_notify_cancel()  # a result is always set; nobody may cancel
        self.submitted = time.monotonic()
        wait = request.timeout if request.timeout is not None else max_wait
        self.deadline = self.submitted + wait
        self.rank = self.submitted + min(wait, 2 * ageing) + request.priority * ageing
        self.replies: dict[str, Any] = {}
        self.seconds: dict[str, float] = {}
        self._starts = list(itertools.accumulate((len(a) for a in request.frames), initial=0))

    @property
    def done(self) -> bool:
        """Whether the caller has got an answer; nothing more needs to be computed."""
        return self.future.done()

    def frame(self, number: int) -> UInt8:
        """Return frame UInt8["h w 3"] by its number."""
        if len(self.request.frames) == 1:
            return self.request.frames[0][number]
        arena = bisect.bisect_right(self._starts, number) - 1
        return self.request.frames[arena][number - self._starts[arena]]

    def finish(self, result: Any) -> bool:
        """Answer the caller, unless somebody else has; returns whether this was the answer.

        Args:
            result: what the future returns, or the exception that it raises.
        """
        try:
            if isinstance(result, Exception):
                self.future.set_exception(result)
            else:
                self.future.set_result(result)
        except InvalidStateError:
            return False
        return True


def _all_in_order(rows: Int64, count: int) -> bool:
    return len(rows) == count and bool((rows == np.arange(count)).all())


def _distinct(request: ScoreRequest) -> tuple[Int64, Int64]:
    index = request.index
    if len(index) == request.frame_count and (index == np.arange(len(index))).all():
        return index, index
    numbers, rows = np.unique(index, return_inverse=True)
    return numbers, rows.astype(np.int64)
