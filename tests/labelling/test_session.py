import json

import pytest

from embodied_reward.data.preferences import Triplet, read_preferences
from embodied_reward.errors import DatasetError, EmbodiedRewardError
from embodied_reward.labelling.session import CHOICES, StaleAnswerError

TIMES = {"time", "seconds"}


def answer(session, choice="left", seconds=None):
    query = session.current
    session.answer(query.id, choice, seconds)
    return query


def rows(path):
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


def test_pairs_are_written_as_documented(sitting, tmp_path):
    session = sitting()
    asked = [answer(session, choice, 1.5) for choice in CHOICES]
    common = {"type": "pair", "dataset": "demos", "task": "push", "source": "person"}
    expected = [
        common | {"episodes": [q.left, q.right], "preferred": preferred}
        for q, preferred in zip(asked, (0, 1, None, None), strict=True)
    ]
    expected[3]["skipped"] = True
    assert rows(tmp_path / "p.jsonl") == expected
    raw = json.loads((tmp_path / "p.jsonl").read_text().splitlines()[0])
    assert raw["seconds"] == 1.5
    assert raw["time"].endswith("+00:00")


def test_triplets_are_written_as_documented(sitting, tmp_path):
    session = sitting("triplet")
    asked = [answer(session, choice) for choice in CHOICES]
    common = {"type": "triplet", "dataset": "demos", "task": "push", "source": "person"}
    extra = ({}, {}, {"same": True}, {"skipped": True})
    for row, query, choice, more in zip(
        rows(tmp_path / "p.jsonl"), asked, CHOICES, extra, strict=True
    ):
        sides = (query.right, query.left) if choice == "right" else (query.left, query.right)
        ends = {"anchor": query.anchor, "closer": sides[0], "farther": sides[1]}
        assert row == common | ends | more


@pytest.mark.parametrize("kind", ["pair", "triplet"])
def test_restarts_go_on_with_the_next_question(sitting, kind):
    whole = sitting(kind)
    expected = [answer(whole) for _ in range(9)]
    found = []
    for stop in (2, 5, 9):
        session = sitting(kind, path=whole._journal.path.with_name("other.jsonl"))
        while len(found) < stop:
            found.append(answer(session))
    assert found == expected


def test_undo_asks_the_same_again_also_after_a_restart(sitting):
    session = sitting()
    asked = [answer(session, "skip" if i == 1 else "left") for i in range(3)]
    following = session.current
    session = sitting()
    assert (session.answered, session.skipped) == (2, 1)
    for query in reversed(asked):
        assert session.undo()
        assert session.current == query
    assert not session.undo()
    assert session.state()["undo"] is False
    assert (session.answered, session.skipped) == (0, 0)
    assert [answer(session, "right") for _ in range(3)] == asked
    assert session.current == following


def test_nothing_is_asked_twice_whatever_is_undone_and_with_any_seed(sitting):
    seen = []
    for seed in range(4):
        session = sitting(target=99, seed=seed)
        for step in range(7):
            query = answer(session)
            if step % 3 == 2:
                session.undo()
            else:
                seen.append(query.key)
    session = sitting(target=99, seed=9)
    while session.current:
        seen.append(answer(session).key)
    assert len(seen) == len(set(seen)) == 28
    assert session.state()["exhausted"]


def test_skipped_questions_do_not_count(sitting):
    session = sitting(target=2)
    for choice in ("skip", "left", "skip", "same"):
        assert session.current
        answer(session, choice)
    state = session.state()
    assert session.current is None
    assert (state["answered"], state["skipped"], state["exhausted"]) == (2, 2, False)
    session.undo()
    assert session.current


def test_a_second_answer_to_a_question_is_refused(sitting, tmp_path):
    session = sitting()
    query = answer(session)
    with pytest.raises(StaleAnswerError):
        session.answer(query.id, "right")
    with pytest.raises(EmbodiedRewardError, match="did you mean 'left'"):
        session.answer(session.current.id, "lefft")
    assert len(rows(tmp_path / "p.jsonl")) == 1


def test_other_datasets_kinds_and_sources_are_left_alone(sitting, tmp_path):
    answer(sitting())
    assert sitting(dataset="other").answered == 0
    answer(sitting("triplet"))
    session = sitting()
    assert (session.answered, session.undo()) == (1, False)
    oracle = sitting("triplet", source="oracle")
    assert (oracle.answered, oracle.undo()) == (1, False)
    assert len(rows(tmp_path / "p.jsonl")) == 2


FACTS = {"dataset": "demos", "source": "person", "task": "push"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"type": "duel"}, "duel"),
        ({"type": "pair", "episodes": [1, -2], "preferred": 0, **FACTS}, "-2"),
        ({"type": "triplet", "anchor": 1, **FACTS}, 'no "closer"'),
        ({"type": "pair", "episodes": [1, 2], "preferred": 0}, 'no text as "dataset"'),
    ],
)
def test_a_foreign_file_is_one_error(sitting, tmp_path, row, words):
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DatasetError, match="p.jsonl' row 1") as error:
        sitting()
    assert words in str(error.value)


@pytest.mark.parametrize("kind", ["pair", "triplet"])
def test_reward_models_read_what_is_written(sitting, tmp_path, kind, episodes):
    session = sitting(kind, tasks=dict.fromkeys(range(8), "söft\u2028push"))
    asked = [answer(session, choice) for choice in CHOICES]
    found = read_preferences(tmp_path / "p.jsonl", episodes.indices)
    assert len(found) == 3
    for preference, query, choice in zip(found, asked, CHOICES, strict=False):
        better, worse = query.left, query.right
        if choice == "right":
            better, worse = worse, better
        if kind == "pair":
            assert preference.better_worse == (None if choice == "same" else (better, worse))
        else:
            assert preference == Triplet(query.anchor, better, worse, choice == "same")
