"""One sitting of a person (or of an oracle): the next question, its answer, undo, progress."""

import datetime
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embodied_reward.errors import EmbodiedRewardError, did_you_mean
from embodied_reward.labelling.journal import Journal
from embodied_reward.labelling.queries import Query
from embodied_reward.labelling.rows import Asked, answer_row, read_answer

CHOICES = ("left", "right", "same", "skip")
AHEAD = 3
"""Questions known in advance, so that their clips can be fetched while a person looks."""


class StaleAnswerError(EmbodiedRewardError):
    """An answer to a question that is not the current one (a second click, an old tab)."""


class Session:
    """Asks questions in order and writes each answer at once; safe among threads.

    Questions that the journal already answers for this dataset are not asked again.

    Args:
        journal: where answers go.
        queries: the order of questions.
        dataset: name of the dataset in the rows.
        tasks: episode index -> task in words.
        kind: `pair` or `triplet`.
        target: answers to reach; skipped questions do not count.
        source: `person` or `oracle`.
        on_change: called with the number of answers after each change.
    """

    def __init__(
        self,
        journal: Journal,
        queries: Iterator[Query],
        *,
        dataset: str,
        tasks: Mapping[int, str],
        kind: str,
        target: int,
        source: str = "person",
        on_change: Callable[[int], Any] = lambda _: None,
    ) -> None:
        self._journal, self._queries = journal, queries
        self._dataset, self._tasks, self._kind = dataset, dict(tasks), kind
        self._source, self._on_change = source, on_change
        self.target = target
        self._lock = threading.RLock()
        self._ahead: deque[Query] = deque()
        self._asked: dict[tuple[int, ...], int] = {}  # key -> rows about it
        self.answered = self.skipped = 0
        for number, row in enumerate(journal.rows, 1):
            self._count(self._mine(row, f"'{journal.path}' row {number}"), +1)

    @property
    def current(self) -> Query | None:
        """The question to answer now; None once the target is reached or nothing is left."""
        with self._lock:
            self._look_ahead()
            return None if self.answered >= self.target or not self._ahead else self._ahead[0]

    def state(self) -> dict[str, Any]:
        """Return what the page shows, as plain JSON types."""
        with self._lock:
            query = self.current
            later = list(self._ahead)[1:] if query else []
            return {
                "kind": self._kind,
                "query": None if query is None else self._shown(query),
                "next": [e for q in later for e in q.episodes],
                "answered": self.answered,
                "skipped": self.skipped,
                "target": self.target,
                "exhausted": query is None and self.answered < self.target,
                "undo": self._undoable() is not None,
                "path": str(self._journal.path),
            }

    def answer(self, query_id: str, choice: str, seconds: float | None = None) -> None:
        """Write the answer to the current question; once this returns, no kill can lose it.

        Args:
            query_id: `Query.id` of the question that was on the screen.
            choice: one of `CHOICES`.
            seconds: time that the person took [s].

        Raises:
            StaleAnswerError: another question is current; nothing was written.
            EmbodiedRewardError: an unknown choice, or the disk refused; nothing was written.
        """
        if choice not in CHOICES:
            raise EmbodiedRewardError(f"unknown answer '{choice}'; {did_you_mean(choice, CHOICES)}")
        with self._lock:
            query = self.current
            if query is None or query.id != query_id:
                raise StaleAnswerError(f"'{query_id}' is not the current question")
            row = answer_row(
                query,
                choice,
                dataset=self._dataset,
                task=self._tasks[query.left],
                source=self._source,
                time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
                seconds=seconds,
            )
            self._journal.append(row)
            self._ahead.popleft()
            self._count(self._mine(row), +1)
            self._on_change(self.answered)

    def undo(self) -> bool:
        """Take back the last answer and ask again; returns whether there was one.

        Goes back beyond the start of this sitting, but never into rows of another dataset, kind
        or source.
        """
        with self._lock:
            last = self._undoable()
            if last is None:
                return False
            self._journal.remove_last()
            self._count(last, -1)
            self._ahead.appendleft(last.query)
            self._on_change(self.answered)
            return True

    def _look_ahead(self) -> None:
        while len(self._ahead) < AHEAD:
            query = next(self._queries, None)
            if query is None:
                return
            waiting = {q.key for q in self._ahead}  # those that were taken back among them
            if not self._asked.get(query.key) and query.key not in waiting:
                self._ahead.append(query)

    def _count(self, asked: Asked | None, step: int) -> None:
        if asked is None:
            return
        self._asked[asked.query.key] = self._asked.get(asked.query.key, 0) + step
        if asked.skipped:
            self.skipped += step
        else:
            self.answered += step

    def _mine(self, row: Mapping[str, Any], where: str = "this row") -> Asked | None:
        asked = read_answer(row, where)
        if asked.dataset != self._dataset or asked.query.kind != self._kind:
            return None
        return asked

    def _undoable(self) -> Asked | None:
        rows = self._journal.rows
        asked = self._mine(rows[-1]) if rows else None
        return asked if asked is not None and asked.source == self._source else None

    def _shown(self, query: Query) -> dict[str, Any]:
        return {
            "id": query.id,
            "left": query.left,
            "right": query.right,
            "anchor": query.anchor,
            "task": self._tasks[query.left],
        }
