"""The queue in front of one item scorer, in threads of its own: it holds nothing else up."""

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.columns import Columns, broken, empty, to_columns
from embodied_reward.scoring.job import Job
from embodied_reward.scoring.keys import ItemKeys
from embodied_reward.scoring.request import NONE
from embodied_reward.scoring.scorer import ItemScorer, RawItems
from embodied_reward.scoring.stats import Stats

Work = tuple["_Share", int]


class _Share:
    """One request's items for this scorer, and the scores that are there already."""

    def __init__(self, job: Job) -> None:
        n = len(job.request)
        self.job, self.left, self.lock = job, n, threading.Lock()
        self.keys = ItemKeys(job.request, job.frame)
        self.columns: Columns = empty(n)


class ItemLane:
    """Call an item scorer with items of all requests, most urgent first.

    Args:
        scorer: what to call.
        reply: takes a job, the scorer's name and its scores once all items are done.
        strict: one item a call.
        stats: counters.
    """

    def __init__(
        self,
        scorer: ItemScorer,
        reply: Callable[[Job, str, ScoreBatch], None],
        *,
        strict: bool,
        stats: Stats,
    ) -> None:
        self.scorer, self._reply, self._stats = scorer, reply, stats
        self._max = 1 if strict else scorer.max_items
        self._heap: list[tuple[float, int, _Share, deque[int]]] = []
        self._order, self._cond, self._open = itertools.count(), threading.Condition(), True
        count = scorer.concurrency if scorer.external else 1
        self._threads = [
            threading.Thread(target=self._work, name=f"score-{scorer.card.name}-{k}", daemon=True)
            for k in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def admit(self, job: Job) -> None:
        """Queue all items of a job."""
        share = _Share(job)
        entry = (job.rank, next(self._order), share, deque(range(len(job.request))))
        with self._cond:
            heapq.heappush(self._heap, entry)
            self._cond.notify_all()

    def close(self, timeout: float) -> None:
        """Stop after the calls that are running."""
        with self._cond:
            self._open = False
            self._cond.notify_all()
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        while (work := self._take()) is not None:
            start = time.monotonic()
            columns = self._evaluate(work)
            seconds = time.monotonic() - start
            self._stats.add(item_calls=1, item_items=len(work), item_seconds=seconds)
            self._hand_out(work, columns)

    def _take(self) -> list[Work] | None:
        with self._cond:
            while True:
                work = self._pop()
                if work:
                    return work
                if not self._open:
                    return None
                self._cond.wait()

    def _pop(self) -> list[Work]:
        work: list[Work] = []
        while self._heap and len(work) < self._max:
            _, _, share, items = self._heap[0]
            if share.job.done:
                items.clear()
            while items and len(work) < self._max:
                work.append((share, items.popleft()))
            if not items:
                heapq.heappop(self._heap)
        return work

    def _evaluate(self, work: Sequence[Work]) -> Columns:
        """Call the scorer; if it raises, call it item by item, so that only the culprit fails."""
        try:
            output = self.scorer.evaluate(_raw(work))
            return to_columns(output, len(work))
        except Exception as error:  # noqa: BLE001 (a scorer may raise anything)
            if len(work) == 1:
                return broken(1, error)
        whole = empty(len(work))
        for k, one in enumerate(work):
            whole.put([k], self._evaluate([one]))
        return whole

    def _hand_out(self, work: Sequence[Work], columns: Columns) -> None:
        for k, (share, item) in enumerate(work):
            with share.lock:
                share.columns.put([item], columns.take([k]))
                share.left -= 1
                complete = share.left == 0
            if complete:
                self._reply(share.job, self.scorer.card.name, self._batch(share))

    def _batch(self, share: _Share) -> ScoreBatch:
        card, columns = self.scorer.card, share.columns
        return ScoreBatch(
            **columns.floats,
            status=columns.status,
            detail=columns.detail,
            scorer=card.name,
            weights_sha256=card.weights_sha256,
            preprocess=card.preprocess,
            dim_names=card.dim_names,
            seconds=dict(share.job.seconds),
        )


def _raw(work: Sequence[Work]) -> RawItems:
    now = time.monotonic()
    frames, texts, roles, keys = [], [], [], []
    for share, item in work:
        job, request = share.job, share.job.request
        span = slice(*request.offsets[item : item + 2])
        frames.append(tuple(job.frame(number) for number in request.index[span]))
        texts.append(request.texts[request.text[item]] if request.text[item] != NONE else None)
        roles.append(request.role[span].astype(np.int64))
        keys.append(share.keys[item])
    left = min(share.job.deadline for share, _ in work) - now
    seed = work[0][0].job.request.seed
    return RawItems(
        frames=tuple(frames),
        texts=tuple(texts),
        role=tuple(roles),
        keys=tuple(keys),
        seed=seed,
        timeout=max(left, 1e-3),
    )
