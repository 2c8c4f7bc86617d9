"""Answers as rows of the preference file, and back; the format stands in docs/preferences.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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


def read_answer(row: Mapping[str, Any]) -> Asked:
    """Return what a row says. Raises DatasetError: it is no row of this format."""
    try:
        read = {"pair": _read_pair, "triplet": _read_triplet}[row["type"]]
        query, choice = read(row)
        facts = [str(row[key]) for key in ("dataset", "source", "task")]
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"this row is not a preference ({type(error).__name__}: {error}): {dict(row)}; remove "
            "it, or give another --output"
        ) from error
    return Asked(query, "skip" if row.get("skipped") else choice, *facts)


def _judgement(query: Query, choice: str) -> dict[str, Any]:
    if query.anchor is None:
        preferred = {"left": 0, "right": 1}.get(choice)
        return {"episodes": [query.left, query.right], "preferred": preferred}
    swap = choice == "right"
    closer, farther = (query.right, query.left) if swap else (query.left, query.right)
    row = {"anchor": query.anchor, "closer": closer, "farther": farther}
    return row | {"same": True} if choice == "same" else row


def _read_pair(row: Mapping[str, Any]) -> tuple[Query, str]:
    left, right = map(_index, row["episodes"])
    return Query(left, right), {0: "left", 1: "right", None: "same"}[row["preferred"]]


def _read_triplet(row: Mapping[str, Any]) -> tuple[Query, str]:
    anchor, closer, farther = (_index(row[key]) for key in ("anchor", "closer", "farther"))
    return Query(closer, farther, anchor), "same" if row.get("same") else "left"


def _index(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{value!r} is not an episode index")
    return value
