"""Answers as rows of the preference file, and back; the format stands in docs/preferences.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embodied_reward.data.preferences import Pair, Preference, parse_preference
from embodied_reward.errors import DatasetError
from embodied_reward.labelling.queries import Query


@dataclass(frozen=True)
class Asked:
    """What a row says about a question.

    Attributes:
        query: the question; a triplet's sides are closer, farther.
        choice: `left`, `right`, `same` or `skip`.
        dataset: name of the dataset.
        source: `person` or `oracle`.
        task: in words.
    """

    query: Query
    choice: str
    dataset: str
    source: str
    task: str = ""

    @property
    def skipped(self) -> bool:
        """Whether the row holds no judgement."""
        return self.choice == "skip"


def answer_row(
    query: Query,
    choice: str,
    *,
    dataset: str,
    task: str,
    source: str,
    time: str,
    seconds: float | None = None,
) -> dict[str, Any]:
    """Return the row of an answer.

    Args:
        query: what was asked.
        choice: `left`, `right`, `same` or `skip`.
        dataset: name of the dataset.
        task: in words.
        source: `person` or `oracle`.
        time: of the answer, ISO 8601.
        seconds: time that the answer took [s].
    """
    row = {"type": query.kind, "dataset": dataset, **_judgement(query, choice)}
    if choice == "skip":
        row["skipped"] = True
    row |= {"task": task, "source": source, "time": time}
    if seconds is not None:
        row["seconds"] = seconds
    return row


def read_answer(row: Mapping[str, Any], where: str = "this row") -> Asked:
    """Return what a row says; `where` stands in the message.

    Raises:
        DatasetError: it is no row of this format, or does not say what it is about.
    """
    preference = parse_preference(row, where)
    missing = [key for key in ("dataset", "source", "task") if not isinstance(row.get(key), str)]
    if missing:
        raise DatasetError(
            f'{where} has no text as "{missing[0]}"; give another --output, or add it'
        )
    choice = "skip" if row.get("skipped") else _choice(preference)
    return Asked(_query(preference), choice, row["dataset"], row["source"], row["task"])


def _judgement(query: Query, choice: str) -> dict[str, Any]:
    if query.anchor is None:
        preferred = {"left": 0, "right": 1}.get(choice)
        return {"episodes": [query.left, query.right], "preferred": preferred}
    swap = choice == "right"
    closer, farther = (query.right, query.left) if swap else (query.left, query.right)
    row = {"anchor": query.anchor, "closer": closer, "farther": farther}
    return row | {"same": True} if choice == "same" else row


def _query(preference: Preference) -> Query:
    if isinstance(preference, Pair):
        return Query(*preference.episodes)
    return Query(preference.closer, preference.farther, preference.anchor)


def _choice(preference: Preference) -> str:
    if isinstance(preference, Pair):
        return {0: "left", 1: "right", None: "same"}[preference.preferred]
    return "same" if preference.same else "left"
