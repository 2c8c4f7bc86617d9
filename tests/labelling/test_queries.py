import itertools
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.errors import DatasetError
from embodied_reward.labelling.queries import (
    Query,
    count_queries,
    most_disputed,
    random_queries,
)


def one_task(count):
    return [(i, "push") for i in range(count)]


@given(st.integers(2, 12), st.integers(0, 5))
def test_every_pair_is_asked_exactly_once(count, seed):
    queries = list(random_queries(one_task(count), "pair", seed))
    assert len(queries) == comb(count, 2)
    assert {q.key for q in queries} == set(itertools.combinations(range(count), 2))


@given(st.integers(3, 8), st.integers(0, 5))
def test_every_triplet_is_asked_exactly_once(count, seed):
    queries = list(random_queries(one_task(count), "triplet", seed))
    assert len({q.key for q in queries}) == len(queries) == count * comb(count - 1, 2)
    assert all(len(set(q.episodes)) == 3 for q in queries)
    assert len(queries) == count_queries(count, "triplet")


def test_the_seed_decides_and_order_and_sides_are_random():
    draw = [list(random_queries(one_task(60), "pair", seed)) for seed in (0, 0, 1)]
    assert draw[0] == draw[1] != draw[2]
    swapped = np.mean([q.left > q.right for q in draw[0]])
    assert 0.45 < swapped < 0.55  # 1770 fair coins: 0.5 +- 0.012
    early = [max(q.episodes) for q in draw[0][:300]]
    assert 35 < np.mean(early) < 45  # the larger of two of 0..59 is 39.7 on average


def test_episodes_of_different_tasks_are_never_compared():
    tasks = [(i, "push" if i % 3 else "pull") for i in range(9)]
    queries = list(random_queries(tasks, "pair", 0))
    assert {q.left % 3 == 0 for q in queries} == {True, False}
    assert all((q.left % 3 == 0) == (q.right % 3 == 0) for q in queries)
    assert len(queries) == comb(3, 2) + comb(6, 2)


def test_many_episodes_cost_what_is_drawn():
    queries = random_queries(one_task(100_000), "triplet", 0)
    drawn = list(itertools.islice(queries, 50))
    assert len({q.key for q in drawn}) == 50


@pytest.mark.parametrize(("count", "kind"), [(0, "pair"), (1, "pair"), (2, "triplet")])
def test_too_few_episodes_get_one_error(count, kind):
    with pytest.raises(DatasetError, match=f"a {kind} needs . episodes of one task"):
        random_queries(one_task(count), kind, 0)


def test_what_is_disputed_most_comes_first_in_each_pool():
    queries = [Query(i, i + 1) for i in range(10)]
    order = list(most_disputed(queries, lambda q: -abs(q.left - 3), pool=6))
    assert order[0].left == 3
    assert sorted(q.left for q in order[:6]) == list(range(6))
    assert [q.left for q in order[6:]] == [6, 7, 8, 9]
