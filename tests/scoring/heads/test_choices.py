"""Pairs out of sets."""

import numpy as np

from embodied_reward.scoring.heads import TIE, UNJUDGED, Choices
from tests.scoring.heads.conftest import items_of


def choices(sizes, best, row=None):
    n = sum(sizes)
    items = items_of(np.arange(n)[:, None], group=np.repeat(np.arange(len(sizes)), sizes))
    return Choices(
        items=items, offsets=np.cumsum([0, *sizes]), best=np.array(best).reshape(len(sizes), -1),
        row=row,
    )  # fmt: skip


def listed(pairs):
    columns = (pairs.winner, pairs.loser, pairs.tie, pairs.dim, pairs.row)
    return sorted(zip(*(c.tolist() for c in columns), strict=True))


def test_the_best_wins_over_every_other_and_ties_are_all_pairs():
    pairs = choices([3, 2, 3], [1, TIE, UNJUDGED], row=np.array([7, 8, 9])).pairs()
    assert listed(pairs) == [(1, 0, False, 0, 7), (1, 2, False, 0, 7), (3, 4, True, 0, 8)]
    three = choices([3], [TIE]).pairs()
    assert listed(three) == [(0, 1, True, 0, 0), (0, 2, True, 0, 0), (1, 2, True, 0, 0)]


def test_dimensions_are_apart_and_a_set_keeps_its_order_in_any_batch():
    best = [[0, 2], [TIE, 1], [1, UNJUDGED]]
    whole = choices([3, 2, 2], best).pairs()
    assert listed(whole) == [
        (0, 1, False, 0, 0), (0, 2, False, 0, 0), (2, 0, False, 1, 0), (2, 1, False, 1, 0),
        (3, 4, True, 0, 1), (4, 3, False, 1, 1), (6, 5, False, 0, 2),
    ]  # fmt: skip
    alone = choices([2], [best[1]]).pairs()
    inside = whole.row == 1
    assert (whole.winner[inside] - 3).tolist() == alone.winner.tolist()
    assert whole.tie[inside].tolist() == alone.tie.tolist()
    assert len(choices([2, 2], [UNJUDGED, UNJUDGED]).pairs()) == 0
