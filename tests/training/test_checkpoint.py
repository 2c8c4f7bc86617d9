"""Checkpoints under fire: failing writes, kills, damage. A saved one must always load."""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embodied_reward.errors import CheckpointError
from embodied_reward.files import replacing
from embodied_reward.training.checkpoint import MANIFEST, latest, save_checkpoint, verify

SIZE = 60_000


def tensors(step):
    return {"weight": torch.full((SIZE // 8, 2), float(step)), "step": torch.tensor([step])}


def writer(step):
    def write(folder):
        (folder / "pretrained_model").mkdir()
        save_file(tensors(step), folder / "pretrained_model" / "model.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": step}))

    return write


def step_of(folder):
    """Load a checkpoint completely and return the step that all of it agrees on."""
    verify(folder)
    loaded = load_file(folder / "pretrained_model" / "model.safetensors")
    step = json.loads((folder / "state.json").read_text())["step"]
    assert torch.equal(loaded["weight"], tensors(step)["weight"])
    assert int(loaded["step"]) == step == int(folder.name)
    return step


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.suffix in (".tmp", ".old") or p.name[0] == "."]


def test_round_trip_pointer_and_pruning(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, writer(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000003", "00000004", "last"]
    assert os.readlink(tmp_path / "last") == "00000004", "relative, so that runs can be moved"
    assert latest(tmp_path) == tmp_path / "00000004"
    assert step_of(tmp_path / "00000004") == 4


def test_a_moved_run_still_loads(tmp_path):
    save_checkpoint(tmp_path / "a", 7, writer(7))
    (tmp_path / "a").rename(tmp_path / "b")
    assert step_of((tmp_path / "b" / "last").resolve()) == 7


def test_the_best_is_never_pruned(tmp_path):
    save_checkpoint(tmp_path, 1, writer(1), link="best")
    for step in range(2, 7):
        save_checkpoint(tmp_path, step, writer(step), keep=2)
    assert step_of((tmp_path / "best").resolve()) == 1
    assert latest(tmp_path) == tmp_path / "00000006"


def test_steps_are_ordered_as_numbers(tmp_path):
    for step in (99_999_999, 100_000_000):
        save_checkpoint(tmp_path, step, writer(step))
    assert latest(tmp_path) == tmp_path / "100000000"


@pytest.mark.parametrize("same_step", [False, True])
def test_a_disk_that_fills_up_at_any_byte_loses_nothing(tmp_path, same_step):
    save_checkpoint(tmp_path, 1, writer(1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    step, failed = (1, 0) if same_step else (2, 0)
    for limit in range(0, SIZE + 2_000, 2_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            save_checkpoint(tmp_path, step, writer(step))
        except (OSError, SafetensorError):
            failed += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        found = latest(tmp_path)
        assert found is not None
        assert step_of(found) in (1, step)
        assert step_of((tmp_path / "last").resolve()) in (1, step)
        assert leftovers(tmp_path) == []
    assert failed > 25


class Crash(BaseException):
    """The machine stops here."""


@pytest.mark.parametrize("same_step", [False, True])
def test_a_crash_at_any_system_call_leaves_a_complete_checkpoint(tmp_path, monkeypatch, same_step):
    """Count the calls that change the disk, then stop at each one in turn."""
    step = 1 if same_step else 2
    for stop in itertools.count():
        folder = tmp_path / str(stop)
        save_checkpoint(folder, 1, writer(1))
        calls = itertools.count()

        def counted(real, stop=stop, calls=calls):
            def call(*args, **kwargs):
                if next(calls) >= stop:  # nothing reaches the disk after the crash
                    raise Crash
                return real(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("replace", "fsync", "rmdir", "unlink", "symlink", "mkdir"):
                patch.setattr(f"os.{name}", counted(getattr(os, name)))
            try:
                save_checkpoint(folder, step, writer(step))
                finished = True
            except Crash:
                finished = False
        found = latest(folder)
        assert found is not None, f"lost at call {stop}"
        assert step_of(found) in (1, step)
        save_checkpoint(folder, 3, writer(3))
        assert step_of((folder / "last").resolve()) == 3
        assert leftovers(folder) == []
        if finished:
            break
    assert stop >= 8


KILLED = """
import json, os, sys
from pathlib import Path
from embodied_reward.training.checkpoint import save_checkpoint
folder, step = Path(sys.argv[1]), int(sys.argv[2])
while True:
    def write(to):
        for name in ("a.bin", "b.bin"):
            (to / name).write_bytes(step.to_bytes(8, "little") * 40_000)
    save_checkpoint(folder, step, write, keep=2)
    print(step, flush=True)
    step += 1
"""


def test_sigkill_at_random_moments_never_loses_a_reported_checkpoint(tmp_path):
    rng, reported = np.random.default_rng(0), 0
    script = textwrap.dedent(KILLED)
    for _ in range(15):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(reported + 1)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.15)))
        process.send_signal(signal.SIGKILL)
        said = [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        process.wait()
        reported = max([reported + 1, *said])
        found = latest(tmp_path)
        assert found is not None
        step = int(found.name)
        assert step in (reported, reported + 1)
        for name in ("a.bin", "b.bin"):
            assert (found / name).read_bytes() == step.to_bytes(8, "little") * 40_000
        reported = step
    assert reported > 15


class TestDamage:
    @pytest.fixture
    def saved(self, tmp_path):
        for step in (1, 2):
            save_checkpoint(tmp_path, step, writer(step))
        return tmp_path

    def weights(self, folder):
        return folder / "00000002" / "pretrained_model" / "model.safetensors"

    def assert_falls_back(self, folder, message):
        with pytest.raises(CheckpointError, match=message):
            verify(folder / "00000002")
        found = latest(folder)
        assert found is not None
        assert step_of(found) == 1

    def test_one_flipped_bit(self, saved):
        data = bytearray(self.weights(saved).read_bytes())
        data[len(data) // 2] ^= 1
        self.weights(saved).write_bytes(data)
        self.assert_falls_back(saved, "model.safetensors' has sha256 .* its manifest says")

    def test_truncation(self, saved):
        os.truncate(self.weights(saved), 100)
        self.assert_falls_back(saved, "altered or damaged")

    def test_a_missing_file(self, saved):
        self.weights(saved).unlink()
        self.assert_falls_back(saved, "model.safetensors' is missing")

    def test_a_missing_manifest(self, saved):
        (saved / "00000002" / MANIFEST).unlink()
        self.assert_falls_back(saved, "incomplete")

    @pytest.mark.parametrize("text", ["", '{"version": 1, "sha', "[]", '{"sha256": 3}', "{}"])
    def test_a_damaged_manifest(self, saved, text):
        (saved / "00000002" / MANIFEST).write_text(text)
        self.assert_falls_back(saved, "manifest.json' is damaged")

    def test_nothing_left(self, saved):
        for folder in ("00000001", "00000002"):
            (saved / folder / MANIFEST).unlink()
        assert latest(saved) is None

    def test_no_folder_at_all(self, tmp_path):
        assert latest(tmp_path / "nowhere") is None


def test_what_write_raises_passes_through_and_leaves_no_trace(tmp_path):
    def write(folder):
        (folder / "half.bin").write_bytes(b"x" * 100)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        save_checkpoint(tmp_path, 5, write)
    assert list(tmp_path.iterdir()) == []


class TestReplacing:
    def test_success_replaces_and_failure_keeps_the_old(self, tmp_path):
        path = tmp_path / "sub" / "x.json"
        with replacing(path) as temporary:
            temporary.write_text("old")
            assert temporary.suffix == ".json"
            assert not path.exists()

        def fail_half_way():
            with replacing(path) as temporary:
                temporary.write_text("half")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail_half_way()
        assert path.read_text() == "old"
        assert [p.name for p in path.parent.iterdir()] == ["x.json"]
