"""Which episodes to compare: random pairs or triplets, seeded, each at most once."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

import numpy as np

from embodied_reward.errors import DatasetError

KINDS = ("pair", "triplet")


@dataclass(frozen=True)
class Query:
    """One question to a person.

    Attributes:
        left, right: episodes shown on the two sides.
        anchor: the episode to which they are compared; None asks which of the two is better.
    """

    left: int
    right: int
    anchor: int | None = None

    @property
    def kind(self) -> str:
        """`pair` or `triplet`."""
        return "pair" if self.anchor is None else "triplet"

    @property
    def key(self) -> tuple[int, ...]:
        """The same for the same question with its sides swapped."""
        sides = sorted((self.left, self.right))
        return (*sides,) if self.anchor is None else (self.anchor, *sides)

    @property
    def id(self) -> str:
        """A name for the wire, such as `pair-3-7`."""
        return "-".join([self.kind, *map(str, self.episodes)])

    @property
    def episodes(self) -> tuple[int, ...]:
        """Every episode that is shown: left, right and, in a triplet, the anchor."""
        return (self.left, self.right) + (() if self.anchor is None else (self.anchor,))


def random_queries(tasks: Sequence[tuple[int, str]], kind: str, seed: int) -> Iterator[Query]:
    """Yield every question that can be asked once, in random order, with random sides.

    Episodes of different tasks are never compared. Memory grows with the questions drawn, not
    with those that exist: a sparse Fisher-Yates shuffle.

    Args:
        tasks: episode index and task of each episode.
        kind: `pair` or `triplet`.
        seed: the same seed gives the same order.

    Raises:
        DatasetError: no task has enough episodes.
    """
    groups = _groups(tasks, kind)
    ends = list(accumulate(count_queries(len(group), kind) for group in groups))
    rng = np.random.default_rng(seed)
    return _draw(groups, ends, kind, rng)


def count_queries(episodes: int, kind: str) -> int:
    """Return how many different questions `episodes` episodes of one task allow."""
    return math.comb(episodes, 2) if kind == "pair" else episodes * math.comb(episodes - 1, 2)


def most_disputed(
    queries: Iterable[Query], doubt: Callable[[Query], float], pool: int
) -> Iterator[Query]:
    """Yield queries by falling doubt within blocks of `pool` random ones.

    Args:
        queries: an order to draw from.
        doubt: how much a reward model's members disagree about the answer.
        pool: questions that compete with each other.
    """
    source = iter(queries)
    while block := list(islice(source, pool)):
        yield from sorted(block, key=doubt, reverse=True)


def _draw(
    groups: list[list[int]], ends: list[int], kind: str, rng: np.random.Generator
) -> Iterator[Query]:
    for number in _shuffled(ends[-1], rng):
        place = int(np.searchsorted(ends, number, side="right"))
        within = number - (ends[place - 1] if place else 0)
        query = _query(groups[place], within, kind)
        yield query if rng.integers(2) else Query(query.right, query.left, query.anchor)


def _groups(tasks: Sequence[tuple[int, str]], kind: str) -> list[list[int]]:
    least = 2 if kind == "pair" else 3
    groups: dict[str, list[int]] = {}
    for index, task in tasks:
        groups.setdefault(task, []).append(index)
    kept = [sorted(group) for _, group in sorted(groups.items()) if len(group) >= least]
    if not kept:
        most = max(map(len, groups.values()), default=0)
        found = "is 1 episode" if most == 1 else f"are {most} episodes"
        raise DatasetError(
            f"a {kind} needs {least} episodes of one task, but there {found} of any; record more "
            "with 'er collect', or open several datasets with --dataset.root=FIRST,SECOND"
        )
    return kept


def _shuffled(total: int, rng: np.random.Generator) -> Iterator[int]:
    moved: dict[int, int] = {}
    for i in range(total):
        j = int(rng.integers(i, total))
        picked = moved.get(j, j)
        moved[j] = moved.get(i, i)
        moved.pop(i, None)
        yield picked


def _query(group: list[int], number: int, kind: str) -> Query:
    """Return question `number` of a group; the anchor counts slowest."""
    if kind == "pair":
        low, high = _pair(number)
        return Query(group[low], group[high])
    anchor, within = divmod(number, math.comb(len(group) - 1, 2))
    others = group[:anchor] + group[anchor + 1 :]
    low, high = _pair(within)
    return Query(others[low], others[high], group[anchor])


def _pair(number: int) -> tuple[int, int]:
    """Return pair `number` of (0,1), (0,2), (1,2), (0,3), ...: the combinatorial number system."""
    high = (1 + math.isqrt(1 + 8 * number)) // 2
    return number - math.comb(high, 2), high
