"""`er data inspect` and `er data recover`, through the entry point."""

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.data import EpisodeRecorder, open_dataset


def record(root, finish=True):
    rng = np.random.default_rng(0)
    with EpisodeRecorder(root, fps=20, robot_type="r") as recorder:
        for _ in range(2):
            for t in range(9):
                row = {"action": rng.normal(size=2), "next.success": t == 8}
                row["observation.images.top"] = rng.integers(0, 256, (16, 16, 3), np.uint8)
                recorder.add(row)
            recorder.save_episode("open the drawer")
        if finish:
            recorder.finish()
    return root


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_inspect(capsys, tmp_path):
    assert main(["data", "inspect", str(record(tmp_path / "demos"))]) == 0
    out = capsys.readouterr().out
    for words in ("18 (1 s at 20 Hz)", "100%", "open the drawer", "16x16", "top", "upright"):
        assert words in out
    assert "contact sheet: outputs/data-inspect/demos/contact_sheet.png" in out
    assert (tmp_path / "outputs/data-inspect/demos/contact_sheet.png").stat().st_size > 2000


def test_inspect_writes_where_it_is_told(capsys, tmp_path):
    root = record(tmp_path / "demos")
    assert main(["data", "inspect", str(root), "--output=here", "--views=top"]) == 0
    assert "contact sheet: here/contact_sheet.png" in capsys.readouterr().out


def test_recover(capsys, tmp_path):
    root = record(tmp_path / "demos", finish=False)
    assert main(["data", "inspect", str(root)]) == 2
    error = capsys.readouterr().err
    assert "unfinished recording with 2 finished episodes" in error
    assert f"er data recover {root}" in error
    assert main(["data", "recover", str(root)]) == 0
    assert f"2 episodes: {root}" in capsys.readouterr().out
    assert len(open_dataset(root)) == 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["inspct", "x"], "did you mean 'inspect'?"),
        (["inspect"], "write 'er data inspect PATH', got 0 paths"),
        (["recover", "a", "b"], "got 2 paths"),
        (
            ["inspect", "x", "--ouput=y"],
            "unknown configuration key '--ouput'; did you mean",
        ),
        (["inspect", "nowhere/at/all"], "there is no dataset at 'nowhere/at/all'"),
        (["recover", "nowhere"], "nothing to recover at 'nowhere'"),
    ],
)
def test_mistakes_get_one_line(capsys, argv, words):
    assert main(["data", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_help(capsys):
    assert main(["data", "--help"]) == 0
    assert "er data recover PATH" in capsys.readouterr().out
    assert main(["data", "inspect", "--help"]) == 0
    assert "--columns=8" in capsys.readouterr().out
