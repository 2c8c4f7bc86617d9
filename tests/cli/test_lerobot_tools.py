"""`lerobot-edit-dataset` on what `er rollout` recorded, and our commands on its output."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.data import check_dataset, open_dataset

ARM = ("--robot.realtime=false", "--robot.size=24", "--limits=er_sim_arm", "--threads=1")


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Three episodes of the simulated arm; read only."""
    root = tmp_path_factory.mktemp("record") / "run"
    words = ["--mode=record", "--episodes=3", f"--output_dir={root}"]
    assert main(["rollout", *ARM, *words]) == 0
    return root / "episodes_00"


@pytest.fixture
def edit(monkeypatch):
    """What `lerobot-edit-dataset` runs, in this process, because importing torch takes long."""
    from lerobot.scripts.lerobot_edit_dataset import main as command

    def run(*arguments):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(sys, "argv", ["lerobot-edit-dataset", *arguments])
        command()

    return run


def of(root):
    return (f"--repo_id=local/{Path(root).name}", f"--root={root}")


def same(found, expected):
    """Every number, flag, text and picture is the same."""
    assert found.views.keys() == expected.views.keys()
    for view in expected.views:
        np.testing.assert_array_equal(found.views[view], expected.views[view])
    for field in dataclasses.fields(expected):
        if field.name not in ("index", "source", "views"):
            np.testing.assert_equal(getattr(found, field.name), getattr(expected, field.name))


def test_lerobot_deletes_an_episode_of_ours(demos, tmp_path, edit, capsys):
    fewer = tmp_path / "fewer"
    edit(
        *of(demos),
        "--new_repo_id=local/fewer",
        f"--new_root={fewer}",
        "--operation.type=delete_episodes",
        "--operation.episode_indices=[1]",
    )
    before, after = open_dataset(demos), open_dataset(fewer)
    check_dataset(after)
    assert after.lengths == (before.lengths[0], before.lengths[2])
    for found, index in zip(after, (0, 2), strict=True):
        same(found, before[index])
    capsys.readouterr()
    assert main(["data", "inspect", str(fewer), f"--output={tmp_path / 'sheet'}"]) == 0
    out = capsys.readouterr().out
    for words in (f"{sum(after.lengths)} (", "at 10 Hz)", "100%", "24x24", "front", "side"):
        assert words in out


def test_lerobot_splits_and_merges_ours_without_a_loss(demos, tmp_path, edit):
    parts, merged = tmp_path / "parts", tmp_path / "merged"
    edit(
        *of(demos),
        f"--new_root={parts}",
        "--operation.type=split",
        '--operation.splits={"first": [0], "rest": [1, 2]}',
    )
    before = open_dataset(demos)
    assert open_dataset(parts / "first").lengths == before.lengths[:1]
    edit(
        "--new_repo_id=local/merged",
        f"--new_root={merged}",
        "--operation.type=merge",
        "--operation.repo_ids=['rest', 'first']",
        f"--operation.roots=['{parts / 'rest'}', '{parts / 'first'}']",
    )
    after = open_dataset(merged)
    check_dataset(after)
    for found, index in zip(after, (1, 2, 0), strict=True):
        same(found, before[index])


@pytest.mark.slow
def test_the_command_itself_renames_the_task(demos, tmp_path):
    copy = tmp_path / "copy"
    command = str(Path(sys.executable).parent / "lerobot-edit-dataset")
    split = ["--operation.type=split", '--operation.splits={"copy": [0, 2]}']
    tasks = ["--operation.type=modify_tasks", "--operation.new_task=touch the red ball"]
    for words in ([*of(demos), f"--new_root={tmp_path}", *split], [*of(copy), *tasks]):
        ran = subprocess.run([command, *words], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr[-3000:]
    before, after = open_dataset(demos), open_dataset(copy)
    assert after.tasks == ("touch the red ball",)
    np.testing.assert_array_equal(after[1].action, before[2].action)
