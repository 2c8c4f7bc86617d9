"""What a file of answers survives: kills at any byte, full disks, a second writer."""

import json
import os

import pytest

from embodied_reward.errors import DatasetError
from embodied_reward.labelling.journal import Journal

ROWS = [{"n": 0, "text": "ünïcode\u2028"}, {"n": 1}, {"n": 2, "deep": [1, None]}]


def written(path):
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "p.jsonl"


def fill(path, rows=ROWS):
    with Journal(path) as journal:
        for row in rows:
            journal.append(row)


def test_rows_are_on_the_disk_one_by_one_and_come_back(path):
    with Journal(path) as journal:
        for count, row in enumerate(ROWS, 1):
            journal.append(row)
            assert written(path) == ROWS[:count]
    with Journal(path) as journal:
        assert (journal.rows, journal.torn) == (ROWS, 0)


def test_undo_takes_the_last_row_out_of_the_file(path):
    fill(path)
    with Journal(path) as journal:
        assert journal.remove_last() == ROWS[2]
        assert journal.remove_last() == ROWS[1]
        assert written(path) == ROWS[:1]
        journal.append(ROWS[2])
        assert written(path) == [ROWS[0], ROWS[2]]
        journal.remove_last()
        journal.remove_last()
        with pytest.raises(IndexError):
            journal.remove_last()
    assert path.read_bytes() == b""


def test_a_kill_at_any_byte_leaves_all_finished_rows(path):
    fill(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        finished = whole[:size].count(b"\n")
        # The last byte of a row is its line end; without it the row is still complete.
        complete = finished + (whole[size : size + 1] == b"\n")
        with Journal(path) as journal:
            assert journal.rows == ROWS[:complete]
            journal.append({"n": 9})
        assert written(path) == [*ROWS[:complete], {"n": 9}]


def test_blank_lines_and_a_missing_last_line_end_are_no_harm(path):
    path.parent.mkdir()
    path.write_text('{"n": 1}\n\n  \n{"n": 2}')
    with Journal(path) as journal:
        assert journal.rows == [{"n": 1}, {"n": 2}]
        journal.append({"n": 3})
        journal.remove_last()
        journal.remove_last()
        journal.append({"n": 4})
    with Journal(path) as journal:
        assert journal.rows == [{"n": 1}, {"n": 4}]


@pytest.mark.parametrize("line", ["{'n': 1}", "[1]", "\x00\x00", "NaN", "{} {}"])
def test_a_bad_line_is_named_and_left_alone(path, line):
    path.parent.mkdir()
    text = f'{{"n": 1}}\n{line}\n{{"n": 2}}\n'
    path.write_text(text)
    with pytest.raises(DatasetError, match="line 2 is not a JSON object"):
        Journal(path)
    assert path.read_text() == text


def test_a_second_writer_is_refused(path):
    with (
        Journal(path),
        pytest.raises(DatasetError, match="another process is writing .* give this one another"),
    ):
        Journal(path)
    Journal(path).close()


def test_a_full_disk_leaves_the_file_as_it_was(path, monkeypatch):
    fill(path)
    with Journal(path) as journal:
        real, sizes = os.pwrite, iter((5, 0))

        def full(file, data, offset):
            if size := next(sizes):
                return real(file, data[:size], offset)
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(DatasetError, match="No space left on device"):
                journal.append({"n": 3})
        assert written(path) == journal.rows == ROWS
        journal.append({"n": 3})
    assert written(path) == [*ROWS, {"n": 3}]


def test_a_folder_in_its_place_is_one_error(tmp_path):
    with pytest.raises(DatasetError, match="cannot write"):
        Journal(tmp_path)
