import sys
from pathlib import Path

import numpy as np
import pytest

from embodied_reward.data import EpisodeRecorder

# `foreign` writes datasets as other people's tools do; the malformed-input table shares it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "data_formats"))


def make_rows(index, length=12, views=("top", "wrist"), size=16, won_at=8, progress=True):
    """Rows of a small episode whose content depends on its index alone."""
    rng = np.random.default_rng([7, index])
    for t in range(length):
        row = {
            f"observation.images.{view}": rng.integers(0, 256, (size, size, 3), np.uint8)
            for view in views
        }
        row["observation.state"] = rng.normal(size=3).astype(np.float32)
        row["observation.environment_state"] = rng.normal(size=5).astype(np.float32)
        row["action"] = rng.uniform(-1, 1, 4).astype(np.float32)
        row["next.reward"] = float(t == won_at)
        row["next.done"] = t == length - 1
        row["next.success"] = t >= won_at
        if progress:
            row["progress"] = np.float32(min(1.0, t / (won_at + 1)))
        yield row


def record(root, count=3, *, finish=True, resume=False, fps=20, **kwargs):
    recorder = EpisodeRecorder(root, fps=fps, robot_type="sawyer", info={"seed": 0}, resume=resume)
    with recorder:
        while len(recorder) < count:
            for row in make_rows(recorder.next_index, **kwargs):
                recorder.add(row)
            recorder.save_episode("open the drawer")
        return recorder.finish() if finish else recorder.root


@pytest.fixture(name="make_rows")
def _make_rows():
    return make_rows


@pytest.fixture(name="record")
def _record():
    return record


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory):
    """Three episodes of 12 rows with two 16 px views; read only."""
    return record(tmp_path_factory.mktemp("recorded") / "demos")


@pytest.fixture(scope="session")
def video_dataset(tmp_path_factory):
    """Two episodes written by LeRobot alone: a video camera, a task each, no success column."""
    from lerobot.datasets import LeRobotDataset

    root = tmp_path_factory.mktemp("lerobot") / "video"
    video = {"dtype": "video", "shape": (64, 96, 3), "names": ["height", "width", "channels"]}
    numbers = {"dtype": "float32", "shape": (2,), "names": None}
    features = {"observation.image": video, "observation.state": numbers, "action": numbers}
    dataset = LeRobotDataset.create("local/video", fps=10, features=features, root=root)
    for episode, length in enumerate((9, 14)):
        for t in range(length):
            frame = np.zeros((64, 96, 3), np.uint8)
            frame[:, : 6 * (t + 1)] = (40 + 60 * episode, 90, 200)
            numbers = np.array([episode, t], np.float32)
            dataset.add_frame(
                {
                    "observation.image": frame,
                    "observation.state": numbers,
                    "action": -numbers,
                    "task": f"task {episode}",
                }
            )
        dataset.save_episode(parallel_encoding=False)
    dataset.finalize()
    return root
