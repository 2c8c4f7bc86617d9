import json

import pytest

from embodied_reward.data.preferences import Pair, Triplet, parse_preference, read_preferences
from embodied_reward.errors import DatasetError

ROWS = [
    {"type": "pair", "episodes": [3, 7], "preferred": 1, "source": "person", "time": "now"},
    {"episodes": [3, 7], "preferred": None},
    {"anchor": 2, "closer": 3, "farther": 7},
    {"type": "triplet", "anchor": 2, "closer": 3, "farther": 7, "same": True},
    {"type": "pair", "episodes": [0, 1], "preferred": None, "skipped": True},
]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_every_kind_of_row_is_read_and_skipped_ones_are_not(tmp_path):
    path = write(tmp_path / "p.jsonl", [json.dumps(ROWS[0]), "", *map(json.dumps, ROWS[1:])])
    assert read_preferences(path, range(8)) == (
        Pair((3, 7), 1),
        Pair((3, 7), None),
        Triplet(2, 3, 7),
        Triplet(2, 3, 7, same=True),
    )


def test_better_and_worse():
    assert Pair((3, 7), 1).better_worse == (7, 3)
    assert Pair((3, 7), 0).better_worse == (3, 7)
    assert Pair((3, 7), None).better_worse is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"episodes": [1, 2]}, 'no "preferred"'),
        ({"episodes": [1, 2], "preferred": 2}, "0, 1, or null"),
        ({"episodes": [1, 2], "preferred": True}, "0, 1, or null"),
        ({"episodes": [1, 2], "preferred": 0.0}, "0, 1, or null"),
        ({"episodes": [1], "preferred": 0}, "two episode indices"),
        ({"episodes": "12", "preferred": 0}, "two episode indices"),
        ({"episodes": [1, 1], "preferred": 0}, "with itself"),
        ({"episodes": [1, -2], "preferred": 0}, "index >= 0"),
        ({"episodes": [1, 2.0], "preferred": 0}, "index >= 0"),
        ({"anchor": 1, "closer": 2}, 'no "farther"'),
        ({"anchor": 1, "closer": 2, "farther": 1}, "with itself"),
        ({"anchor": 1, "closer": 2, "farther": 3, "same": "yes"}, "true or false"),
        ({"episodes": [1, 2], "preferred": None, "skipped": 1}, "true or false"),
        ({"type": "tripplet", "anchor": 1}, "'triplet'"),
        ({}, "it has nothing"),
    ],
)
def test_one_clear_error_per_bad_row(tmp_path, row, words):
    good = json.dumps(ROWS[0])
    path = write(tmp_path / "p.jsonl", [good, json.dumps(row)])
    with pytest.raises(DatasetError, match=words) as caught:
        read_preferences(path)
    assert "line 2" in str(caught.value)
    with pytest.raises(DatasetError, match=words):
        parse_preference(row)


@pytest.mark.parametrize("line", ["{", "[1, 2]", "null"])
def test_a_line_that_is_no_object(tmp_path, line):
    path = write(tmp_path / "p.jsonl", [line])
    with pytest.raises(DatasetError, match="line 1 is not"):
        read_preferences(path)


def test_an_episode_that_does_not_exist(tmp_path):
    path = write(tmp_path / "p.jsonl", [json.dumps(ROWS[0])])
    with pytest.raises(DatasetError, match="names episode 7"):
        read_preferences(path, range(7))


def test_files_without_a_judgement(tmp_path):
    with pytest.raises(DatasetError, match="cannot read"):
        read_preferences(tmp_path / "absent.jsonl")
    with pytest.raises(DatasetError, match="holds no preference"):
        read_preferences(write(tmp_path / "p.jsonl", [json.dumps(ROWS[-1])]))
