"""Jobs in processes of their own: order, failures, interruption."""

import os
import time
from pathlib import Path

import pytest

from embodied_reward.cli.jobs import Job, run_jobs

# Jobs are functions that a fresh process can import, hence Path's own.


def write(folder, name, needs=(), text="x"):
    given = (folder / name, text)
    return Job(name, Path.write_text, given, folder / "logs" / name, tuple(needs))


def test_a_job_waits_for_what_it_needs(tmp_path):
    copied = (tmp_path / "b", tmp_path / "a")
    jobs = [
        Job("b", os.symlink, copied[::-1], tmp_path / "logs" / "b", ("a",)),
        Job("c", Path.rename, (tmp_path / "a", tmp_path / "c"), tmp_path / "log", ("b",)),
        write(tmp_path, "a", ("elsewhere",)),  # what is not among the jobs is done already
    ]
    assert run_jobs(jobs, 2) == {}
    assert (tmp_path / "c").read_text() == "x"
    assert (tmp_path / "b").is_symlink()


def test_a_failure_takes_along_only_what_needs_it(tmp_path):
    missing = tmp_path / "missing"
    jobs = [
        Job("fails", Path.read_text, (missing,), tmp_path / "logs" / "fails"),
        write(tmp_path, "needing", ("fails",)),
        write(tmp_path, "needing_that", ("needing",)),
        write(tmp_path, "free"),
    ]
    failed = run_jobs(jobs, 1)
    assert set(failed) == {"fails", "needing", "needing_that"}
    assert "FileNotFoundError" in failed["fails"]
    assert "exit code 1, see" in failed["fails"]
    assert failed["needing"] == "needs 'fails', which failed"
    assert (tmp_path / "free").is_file()
    assert not (tmp_path / "needing").exists()
    assert "Traceback" in (tmp_path / "logs" / "fails").read_text()


def test_an_interrupted_course_ends_its_processes(tmp_path):
    def interrupt(running):
        assert running == ["sleeps"]
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_jobs([Job("sleeps", time.sleep, (600,), tmp_path / "log")], 1, interrupt)
    assert time.monotonic() - began < 60
