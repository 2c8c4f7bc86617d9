import contextlib
import re
import subprocess
import sys

import numpy as np
import pytest

from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.labelling.journal import Journal
from embodied_reward.labelling.queries import random_queries
from embodied_reward.labelling.session import Session

VIEWS = ("front", "wrist")


def record(root, count=8, *, views=VIEWS, truth=True, tasks=("push",), length=6):
    """Episode i is 6 + i rows long, reaches progress i / 10 and wins from 0.5 on."""
    with EpisodeRecorder(root, fps=10, robot_type="hand") as recorder:
        for i in range(count):
            for t in range(length + i):
                recorder.add(_row(i, t, length + i, views, truth))
            recorder.save_episode(tasks[i % len(tasks)])
        recorder.finish()
    return root


def _row(i, t, length, views, truth):
    row = {"action": np.zeros(2, np.float32)}
    for v, view in enumerate(views):
        frame = np.full((16, 24, 3), 20 * i % 256, np.uint8)
        frame[:, : 2 * t + 1] = (250, 40 + 60 * v, 10)
        row[f"observation.images.{view}"] = frame
    if truth:
        row["progress"] = np.float32(min(i / 10, 1) * t / (length - 1))
        row["next.success"] = t == length - 2 and i >= 5
    return row


@pytest.fixture(name="record", scope="session")
def _record():
    return record


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    return record(tmp_path_factory.mktemp("labelling") / "demos")


@pytest.fixture(scope="session")
def episodes(dataset):
    return open_dataset(dataset)


@pytest.fixture
def sitting(episodes, tmp_path):
    """Open sessions on one journal after the other, as restarts do."""
    open_journals = []

    def start(kind="pair", target=10, seed=0, path=tmp_path / "p.jsonl", **kwargs):
        for journal in open_journals:
            journal.close()
        open_journals[:] = [Journal(path)]
        tasks = list(zip(episodes.indices, episodes.episode_tasks, strict=True))
        given = dict(dataset="demos", tasks=dict(tasks), kind=kind, target=target)
        queries = random_queries(tasks, kind, seed)
        return Session(open_journals[0], queries, **{**given, **kwargs})

    yield start
    for journal in open_journals:
        journal.close()


@contextlib.contextmanager
def run_program(*argv):
    """`er label-preferences` in a process of its own; yields it and the page's address."""
    command = [sys.executable, "-m", "embodied_reward.cli", "label-preferences", *map(str, argv)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            found = (re.search(r"http://\S+", line) for line in process.stdout)
            yield process, next(f[0] for f in found if f)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def program():
    return run_program
