"""`er label-preferences` through the entry point, without a browser."""

import json
import signal
import threading

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.data import EpisodeRecorder

VIEW = "observation.images.top"


def record(root, progress, *, view=True):
    """One episode of three rows for each final progress."""
    with EpisodeRecorder(root, fps=10, robot_type="r") as recorder:
        for final in progress:
            for t in range(3):
                row = {"action": np.zeros(1), "progress": np.float32(final * t / 2)}
                if view:
                    row[VIEW] = np.full((16, 16, 3), 40 * t, np.uint8)
                recorder.add(row)
            recorder.save_episode("open the drawer")
        recorder.finish()
    return root


@pytest.fixture(scope="module")
def truth():
    return np.random.default_rng(5).permutation(60) / 60


@pytest.fixture(scope="module")
def demos(tmp_path_factory, truth):
    return record(tmp_path_factory.mktemp("label") / "demos", truth, view=False)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def label(root, *more):
    return main(["label-preferences", f"--dataset.root={root}", *more])


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(path):
    return [{k: v for k, v in row.items() if k != "time"} for row in rows(path)]


@pytest.mark.parametrize("mode", ["pair", "triplet"])
def test_the_oracle_is_wrong_as_often_as_told(demos, truth, tmp_path, capsys, mode):
    out = tmp_path / "p.jsonl"
    argv = (f"--mode={mode}", "--oracle", "--noise=0.1", "--count=800", f"--output={out}")
    assert label(demos, *argv, "--margin=0") == 0
    assert f"800 answers, 0 skipped: {out}" in capsys.readouterr().out
    right = []
    for row in rows(out):
        if mode == "pair" and row["preferred"] is not None:
            better, worse = row["episodes"][:: 1 - 2 * row["preferred"]]
            right.append(truth[better] > truth[worse])
        elif mode == "triplet" and not row.get("same"):
            near, far = (abs(truth[row[k]] - truth[row["anchor"]]) for k in ("closer", "farther"))
            right.append(near < far)
    assert len(right) > 700
    assert abs(np.mean(right) - 0.9) < 4 * np.sqrt(0.09 / len(right))
    assert {row["source"] for row in rows(out)} == {"oracle"}


def test_same_seed_same_answers_and_more_of_them_later(demos, tmp_path):
    first, parts = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    common = ("--oracle=mean_progress", "--noise=0.3")
    label(demos, *common, "--count=50", f"--output={first}")
    for count in (20, 35, 50):
        label(demos, *common, f"--count={count}", f"--output={parts}")
    assert untimed(first) == untimed(parts)
    label(demos, *common, "--count=50", "--seed=1", f"--output={tmp_path / 'c.jsonl'}")
    assert untimed(first) != untimed(tmp_path / "c.jsonl")


def test_when_everything_was_asked_it_says_so(tmp_path, capsys):
    root = record(tmp_path / "few", (0.1, 0.5, 0.9))
    assert label(root, "--oracle") == 0
    out = capsys.readouterr().out
    assert "there are no more questions; 100 were asked for" in out
    default = tmp_path / "outputs/label-preferences/few/preferences.jsonl"
    assert str(default.relative_to(tmp_path)) in out
    assert len(rows(default)) == 3


def test_answers_are_exported(tmp_path, capsys):
    root = record(tmp_path / "few", (0.1, 0.5, 0.9))
    assert label(root, "--oracle", "--export=clips", "--export_as=png") == 0
    assert "3 judgements about 3 clips: clips/preferences.jsonl" in capsys.readouterr().out
    assert label(root, "--export=again") == 0
    exported = rows(tmp_path / "again/preferences.jsonl")
    assert len(exported) == 3
    for row in exported:
        better, worse = (int(row[k][-10:-4]) for k in ("chosen", "rejected"))
        assert better > worse
        assert (tmp_path / "again" / row["chosen"]).is_file()
    assert label(root, "--export=more", "--mode=triplet") == 2
    assert "no answer to export" in capsys.readouterr().err


def test_ctrl_c_keeps_the_answers_and_says_how_to_go_on(tmp_path, capsys):
    root = record(tmp_path / "few", (0.1, 0.5, 0.9))
    timer = threading.Timer(1.0, signal.raise_signal, [signal.SIGINT])
    timer.start()
    assert label(root) == 130
    out = capsys.readouterr().out
    assert "http://127.0.0.1:" in out
    assert "0 answers, 0 skipped" in out
    assert "go on later with the same command" in out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--mode=pairs",), "unknown --mode=pairs; did you mean 'pair'?"),
        (("--strategy=randm",), "did you mean 'random'?"),
        (("--count=0",), "--count must be at least 1"),
        (("--port=70000",), "--port must be between"),
        (("--noise=0.1",), "--noise is the oracle's; add --oracle"),
        (("--oracle=progres",), "did you mean 'progress'"),
        (("--oracle=success",), "the oracle needs the column 'next.success'"),
        (("--oracle", "--noise=2"), "need 0 <= noise <= 1"),
        (("--strategy=disagreement",), "need each other"),
        (("--strategy=disagreement", "--mode=triplet"), "is about pairs"),
        (("--reward_model.path=x",), "need each other"),
        (("--reward_model.path=x", "--strategy=disagreement"), "'x'"),
        (("--dataset.episodes=3",), "a pair needs 2 episodes of one task, but there is 1"),
        (("--dataset.episodes=3,4", "--mode=triplet"), "a triplet needs 3 episodes"),
        ((), "has no camera view to show"),
        (("--export=x",), "to export; answer first"),
    ],
)
def test_mistakes_get_one_line_and_leave_no_file(demos, tmp_path, capsys, argv, words):
    assert label(demos, *argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_bad_datasets_get_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    one = record(tmp_path / "one", [0.5])
    for root, words in (
        (tmp_path / "empty", "an empty folder, but no meta/info.json"),
        (tmp_path / "none", "there is no dataset at"),
        (one, "a pair needs 2 episodes of one task, but there is 1 episode"),
    ):
        assert label(root) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "outputs").exists()
