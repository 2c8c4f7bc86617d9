"""A recorder killed, or refused by the disk, at any moment loses no finished episode."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from embodied_reward.data import assemble, open_dataset, staging
from embodied_reward.errors import DatasetError

# For every line of its input a process that records without end; it says an index only once
# `save_episode` has returned it. Forked, because importing takes longer than being killed.
RECORDERS = """
import os, sys
import numpy as np
from embodied_reward.data import EpisodeRecorder

def record():
    with EpisodeRecorder(sys.argv[1], fps=20, robot_type="r", resume=True) as recorder:
        print(os.getpid(), flush=True)
        while True:
            rng = np.random.default_rng(recorder.next_index)
            for _ in range(20):
                picture = rng.integers(0, 256, (48, 48, 3), np.uint8)
                recorder.add({"observation.images.cam": picture, "action": rng.normal(size=3)})
            print(recorder.save_episode("t"), flush=True)

for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        record()
    os.waitpid(child, 0)
    print("gone", flush=True)
"""

ASSEMBLER = """
import sys
import lerobot.datasets
from embodied_reward.data.assemble import recover
print("ready", flush=True)
recover(sys.argv[1], progress=lambda done, total: print(done, flush=True))
print("end", flush=True)
"""


def record_and_kill(root, moments):
    """SIGKILL one recorder after the other, each so many episodes and seconds after it began.

    Yields the indices that each has announced.
    """
    command = [sys.executable, "-c", RECORDERS, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    alone = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # threads do not survive a fork
    with subprocess.Popen(command, text=True, bufsize=1, env=alone, **pipes) as process:
        for count, seconds in moments:
            process.stdin.write("next\n")
            number = int(process.stdout.readline())
            said = [process.stdout.readline() for _ in range(count)]
            time.sleep(seconds)
            os.kill(number, signal.SIGKILL)
            yield [int(line) for line in (*said, *iter(process.stdout.readline, "gone\n"))]
        process.stdin.close()


def run_and_kill(code, root, after_ready):
    """Run `code`, SIGKILL it `after_ready` seconds after its first line; return later lines."""
    command = [sys.executable, "-c", code, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(after_ready)
        process.send_signal(signal.SIGKILL)
        return process.stdout.read().split("\n")[:-1]


def expected(index):
    rng = np.random.default_rng(index)
    rows = [(rng.integers(0, 256, (48, 48, 3), np.uint8), rng.normal(size=3)) for _ in range(20)]
    pictures, actions = zip(*rows, strict=True)
    return np.stack(pictures), np.stack(actions).astype(np.float32)


def test_sigkill_at_random_moments_loses_no_finished_episode(tmp_path):
    root, rng, kills = tmp_path / "d", np.random.default_rng(0), 24
    moments = zip(rng.integers(0, 3, kills), rng.uniform(0, 0.03, kills), strict=True)
    promised = {index for said in record_and_kill(root, moments) for index in said}
    kept = staging.episodes_in(staging.folder_of(root))
    assert len(promised) >= kills / 2
    # One more may be on the disk than was said: killed between the rename and the print.
    assert promised <= set(kept)
    assert sorted(kept) == list(range(len(kept)))
    with pytest.raises(DatasetError, match=f"unfinished recording with {len(kept)} finished"):
        open_dataset(root)

    assert assemble.recover(root) == (root, len(kept))
    for index, episode in enumerate(open_dataset(root)):
        pictures, actions = expected(index)
        np.testing.assert_array_equal(episode.views["cam"], pictures)
        np.testing.assert_array_equal(episode.action, actions)


@pytest.mark.slow
def test_sigkill_during_assembly_leaves_the_episodes_or_the_dataset(tmp_path, record):
    root, rng = tmp_path / "d", np.random.default_rng(1)
    record(root, count=8, finish=False, length=30, size=64)
    for _ in range(6):
        run_and_kill(ASSEMBLER, root, rng.uniform(0, 1.5))
        if (root / "meta" / "info.json").exists():
            break
        assert len(staging.episodes_in(staging.folder_of(root))) == 8
    assert assemble.recover(root) == (root, 8)
    assert len(open_dataset(root)) == 8
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@contextlib.contextmanager
def largest_file(size):
    """Make every write beyond `size` bytes of one file fail, as a full disk does."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("size", [0, 50, 600, 900, 2000, 8000, 20000])
def test_a_refused_write_during_assembly_keeps_every_episode(tmp_path, record, size):
    root = record(tmp_path / "d", count=3, finish=False, progress=size % 100 == 0)
    with largest_file(size), pytest.raises(DatasetError, match="safe in .*er data recover"):
        assemble.recover(root)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.recording"]
    assert assemble.recover(root) == (root, 3)
    assert len(open_dataset(root)) == 3


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_refused_write_while_recording_keeps_rows_and_episodes(tmp_path, make_rows, size):
    from embodied_reward.data import EpisodeRecorder

    with EpisodeRecorder(tmp_path / "d", fps=20, robot_type="r") as recorder:
        for index in range(2):
            for row in make_rows(index):
                recorder.add(row)
            if index == 1:
                with (
                    largest_file(size),
                    pytest.raises(DatasetError, match="cannot write"),
                ):
                    recorder.save_episode("t")
                assert recorder.rows == 12
            recorder.save_episode("t")
        assert len(recorder) == 2
    names = sorted(os.listdir(tmp_path / "d.recording"))
    assert names == [".lock", "episode-000000.npz", "episode-000001.npz", "recording.json"]


def test_a_picture_that_lerobot_failed_to_write_is_noticed(tmp_path, record, monkeypatch):
    from lerobot.datasets import dataset_writer

    write, count = dataset_writer.write_image, 0

    def write_another(image, path, **kwargs):
        nonlocal count
        count += 1
        write(255 - image if count == 5 else image, path, **kwargs)

    root = record(tmp_path / "d", count=1, finish=False)
    monkeypatch.setattr(dataset_writer, "write_image", write_another)
    with pytest.raises(DatasetError, match="did not arrive as it was recorded"):
        assemble.recover(root)
    assert len(staging.episodes_in(staging.folder_of(root))) == 1


def test_a_kill_between_rename_and_clean_up(tmp_path, record):
    import shutil

    root = record(tmp_path / "d", count=2, finish=False)
    folder = staging.folder_of(root)
    shutil.copytree(folder, tmp_path / "copy")
    assemble.recover(root)
    shutil.move(tmp_path / "copy", folder)
    assert len(open_dataset(root)) == 2
    assert assemble.recover(root) == (root, 2)
    assert not folder.exists()


def test_recover_takes_the_staging_folder_too(tmp_path, record):
    root = record(tmp_path / "d", count=1, finish=False)
    assert assemble.recover(staging.folder_of(root)) == (root, 1)


def test_recover_without_a_recording(tmp_path):
    with pytest.raises(DatasetError, match="nothing to recover at"):
        assemble.recover(tmp_path / "d")


def test_recover_names_an_unreadable_episode(tmp_path, record):
    root = record(tmp_path / "d", count=3, finish=False)
    bad = staging.episodes_in(staging.folder_of(root))[1]
    bad.write_bytes(bad.read_bytes()[:700])
    with pytest.raises(DatasetError, match=r"episode-000001\.npz' is unreadable"):
        assemble.recover(root)
    assert len(staging.episodes_in(staging.folder_of(root))) == 3
