"""The whole road, with presets too short to learn anything: about two minutes."""

import json

import pytest

from embodied_reward import cli


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quickstart_runs_every_verb_and_reports_what_came_out(tmp_path, capfd):
    folder = tmp_path / "quick"
    assert cli.main(["quickstart", "--preset=smoke", f"--output_dir={folder}"]) == 0
    output = capfd.readouterr().out
    for verb in ("collect", "train-reward", "eval-reward", "train-policy", "eval-policy"):
        assert f"$ er {verb} " in output
    for arm in ("success", "potential"):
        report = json.loads((folder / f"eval_{arm}" / "metrics.json").read_text())
        assert report["episodes"] == 2
        assert list((folder / f"eval_{arm}" / "videos").glob("*.mp4"))
    assert (folder / "reward_eval" / "metrics.json").is_file()
    assert "shaped" in output


def test_quickstart_refuses_an_unknown_task_at_once(tmp_path, capsys):
    argv = ["quickstart", "--env.id=metaworld/drawer-opn-v3", f"--output_dir={tmp_path / 'x'}"]
    assert cli.main(argv) == 2
    assert "metaworld/drawer-open-v3" in capsys.readouterr().err
