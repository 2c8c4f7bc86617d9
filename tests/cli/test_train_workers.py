"""`er train-policy --workers=subprocess`: the numbers of one process, and nothing left running."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from embodied_reward.cli import main

ENV = ("--env.id=embodied_reward/SweepToGoal-MediumStick-v0", "--env.horizon=12", "--n_envs=2")
PPO = (
    *("--policy.type=ppo", "--policy.n_steps=16", "--policy.batch_size=16"),
    *("--policy.net_arch=16,16", "--policy.bc_steps=0", "--eval.n_episodes=1", "--threads=1"),
)


def rows(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("mode", ["oracle", "task"])
def test_ppo_learns_the_same_to_the_bit_however_its_environments_are_stepped(mode, tmp_path):
    written = []
    for workers in ("serial", "subprocess"):
        root = tmp_path / workers
        more = (f"--reward.mode={mode}", f"--workers={workers}", "--steps=96", "--eval.freq=0")
        assert main(["train-policy", *ENV, *PPO, *more, f"--output_dir={root}"]) == 0
        written.append((root / "metrics.jsonl").read_bytes())
    assert b"train/loss" in written[0]
    assert written[0] == written[1]


@pytest.mark.parametrize(("value", "message"), [("0", "must be positive"), ("-1", "positive")])
def test_a_deadline_that_is_none_is_refused(value, message, tmp_path, capsys):
    argv = [*ENV, *PPO, "--workers=subprocess", f"--worker_timeout={value}", "--reward.mode=oracle"]
    assert main(["train-policy", *argv, f"--output_dir={tmp_path / 'run'}"]) == 2
    assert message in capsys.readouterr().err


def group(number):
    """Process ids of a process group, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            state, _, its_group = stat.rpartition(")")[2].split()[:3]
            if int(its_group) == number and state != "Z":
                found.append(int(entry.name))
    return found


def wait_for(what, seconds=120):
    deadline = time.monotonic() + seconds
    while not what() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert what()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_ctrl_c_saves_and_leaves_no_process(tmp_path):
    root = tmp_path / "run"
    argv = [*ENV, *PPO, "--workers=subprocess", "--reward.mode=oracle", f"--output_dir={root}"]
    command = [sys.executable, "-m", "embodied_reward.cli", "train-policy", *argv]
    process = subprocess.Popen(
        [*command, "--steps=10000000", "--eval.freq=64"],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(lambda: (root / "checkpoints" / "00000064").exists())
        assert len(group(process.pid)) >= 3  # the run, two environments and who forks them
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "--resume=true" in out
        wait_for(lambda: not group(process.pid), 20)
    finally:
        for pid in group(process.pid):
            os.kill(pid, signal.SIGKILL)
    done = int((root / "checkpoints" / "last").resolve().name)
    argv = [f"--output_dir={root}", "--resume=true", f"--steps={done + 32}", "--eval.freq=0"]
    assert main(["train-policy", *argv, "--workers=serial"]) == 0
    assert rows(root)[-1]["step"] == done + 32
