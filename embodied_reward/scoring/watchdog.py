"""Answers that come too late are not waited for."""

import heapq
import itertools
import threading
import time
import weakref
from collections.abc import Callable

from embodied_reward.scoring.job import Job


class Watchdog:
    """Call `expire` for every job whose deadline passes before it is done.

    Jobs are watched through weak references: a finished one, with all of its pictures, must not
    stay in memory until its deadline.
    """

    def __init__(self, expire: Callable[[Job], None]) -> None:
        self._expire = expire
        self._heap: list[tuple[float, int, weakref.ref[Job]]] = []
        self._order, self._cond, self._open = itertools.count(), threading.Condition(), True
        self._thread = threading.Thread(target=self._watch, name="score-deadlines", daemon=True)
        self._thread.start()

    def add(self, job: Job) -> None:
        """Watch a job."""
        with self._cond:
            self._forget_done()
            urgent = not self._heap or job.deadline < self._heap[0][0]
            heapq.heappush(self._heap, (job.deadline, next(self._order), weakref.ref(job)))
            if urgent:
                self._cond.notify()

    def close(self) -> None:
        """Stop watching."""
        with self._cond:
            self._open = False
            self._cond.notify()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            with self._cond:
                self._forget_done()
                late = bool(self._heap) and self._heap[0][0] <= time.monotonic()
                if not self._open:
                    return
                if not late:
                    wait = self._heap[0][0] - time.monotonic() if self._heap else None
                    self._cond.wait(wait)
                    continue
                job = heapq.heappop(self._heap)[2]()
            if job is not None:
                self._expire(job)
            del job  # this thread may sleep for long

    def _forget_done(self) -> None:
        while self._heap:
            job = self._heap[0][2]()
            if job is not None and not job.done:
                return
            heapq.heappop(self._heap)
