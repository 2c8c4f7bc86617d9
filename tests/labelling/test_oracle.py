import numpy as np
import pytest

from embodied_reward.data import open_dataset
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.labelling.oracle import Oracle, answer_all, utilities
from embodied_reward.labelling.queries import Query, random_queries


def test_utilities_are_the_simulators_own(episodes):
    assert utilities(episodes, "progress") == pytest.approx({i: i / 10 for i in range(8)})
    assert utilities(episodes, "mean_progress") == pytest.approx({i: i / 20 for i in range(8)})
    assert utilities(episodes, "success") == {i: float(i >= 5) for i in range(8)}


def test_pairs_and_triplets_follow_the_utility():
    oracle = Oracle({0: 0.1, 1: 0.5, 2: 0.9, 3: 0.505}, margin=0.01)
    assert oracle.answer(Query(0, 1)) == "right"
    assert oracle.answer(Query(2, 1)) == "left"
    assert oracle.answer(Query(1, 3)) == "same"
    assert oracle.answer(Query(0, 1, anchor=2)) == "right"
    assert oracle.answer(Query(3, 0, anchor=1)) == "left"
    assert oracle.answer(Query(0, 2, anchor=1)) == "same"


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("kind", ["pair", "triplet"])
def test_the_share_of_mistakes_is_the_noise(noise, kind):
    utility = dict(enumerate(np.random.default_rng(0).random(90)))
    exact, noisy = Oracle(utility), Oracle(utility, noise=noise, seed=3)
    queries = random_queries([(i, "") for i in utility], kind, 0)
    asked = [query for query, _ in zip(queries, range(4000), strict=False)]
    wrong = np.mean([exact.answer(q) != noisy.answer(q) for q in asked])
    assert abs(wrong - noise) <= 4 * np.sqrt(noise * (1 - noise) / 4000)


def test_mistakes_belong_to_the_question_not_to_its_sides_or_time():
    utility = dict(enumerate(np.random.default_rng(0).random(40)))
    oracle = Oracle(utility, noise=0.5, seed=1)
    turned = {"left": "right", "right": "left"}
    for query in random_queries([(i, "") for i in utility], "pair", 0):
        swapped = Query(query.right, query.left)
        assert oracle.answer(swapped) == turned[oracle.answer(query)]
    other = Oracle(utility, noise=0.5, seed=2)
    queries = list(random_queries([(i, "") for i in utility], "pair", 0))
    assert [oracle.answer(q) for q in queries] != [other.answer(q) for q in queries]


def test_a_session_is_answered_to_its_target(sitting, episodes):
    session = sitting(target=20, source="oracle")
    answer_all(session, Oracle(utilities(episodes, "progress")))
    assert session.answered == 20
    for row in session._journal.rows:
        worse, better = sorted(row["episodes"])
        assert row["episodes"][row["preferred"]] == better > worse


@pytest.mark.parametrize("measure", ["progress", "success"])
def test_without_the_truth_there_is_one_error(record, tmp_path, measure):
    blind = open_dataset(record(tmp_path / "blind", 2, truth=False))
    with pytest.raises(DatasetError, match="the oracle needs the column"):
        utilities(blind, measure)


def test_bad_settings_are_refused(episodes):
    with pytest.raises(ConfigError, match="did you mean 'progress'"):
        utilities(episodes, "progres")
    for bad in ({"noise": 1.1}, {"noise": float("nan")}, {"margin": -1}):
        with pytest.raises(ConfigError, match="0 <= noise <= 1"):
            Oracle({}, **bad)
