"""`er label`: LeRobot's own reader takes the file, whatever stopped us on the way."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.cli.label import parse_shard
from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.errors import ConfigError
from embodied_reward.rewards import DopamineConfig, DopamineModel, load
from embodied_reward.scoring import Status
from embodied_reward.vision.encoders import EncoderConfig
from tests.cli.test_eval_reward import VIEWS, rows

OUTCOMES = [True, False, True, True, False]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of five episodes whose third one has blind frames, and an untrained model."""
    folder = tmp_path_factory.mktemp("label")
    with EpisodeRecorder(folder / "data", fps=10, robot_type="toy") as recorder:
        for index, success in enumerate(OUTCOMES):
            for t, row in enumerate(rows(index, success)):
                if index == 2 and 5 <= t < 9:
                    for view in VIEWS:
                        row[f"observation.images.{view}"][:] = 0
                recorder.add(row)
            recorder.save_episode("cross the table")
        recorder.finish()
    torch.manual_seed(0)
    for name in ("model", "other"):
        encoder = EncoderConfig(image_size=32)
        config = DopamineConfig(views=VIEWS, encoder=encoder, dim=32, hidden=64)
        model = DopamineModel.create(config, task="cross the table")
        model.set_references(model.dataset(list(open_dataset(folder / "data"))))
        model.eval().save(folder / name)
    return folder


@pytest.fixture
def data(made, tmp_path):
    return Path(shutil.copytree(made / "data", tmp_path / "data"))


def command(made, data, *extra, model="model"):
    return ["label", f"--dataset.root={data}", f"--reward_model.path={made / model}", *extra]


@pytest.fixture(scope="module")
def expected(made, tmp_path_factory):
    """The bytes of an uninterrupted run."""
    data = shutil.copytree(made / "data", tmp_path_factory.mktemp("whole") / "data")
    assert main(command(made, data)) == 0
    return (data / "er_progress.parquet").read_bytes()


def sidecar(data):
    return data / "er_progress.parquet"


def test_every_frame_has_the_models_progress_or_nan_with_a_status(made, data, capsys):
    assert main(command(made, data)) == 0
    table = pq.read_table(sidecar(data))
    episodes, model = open_dataset(data), load(made / "model")
    assert table.column("index").to_pylist() == list(range(sum(episodes.lengths)))
    got = {name: table.column(name).to_numpy() for name in table.column_names}
    for k, episode in enumerate(episodes):
        mine = got["episode_index"] == k
        assert got["frame_index"][mine].tolist() == list(range(len(episode)))
        want = model.score_episode(episode)
        for name in ("progress_sparse", "progress_dense"):
            np.testing.assert_allclose(got[name][mine], want.potential, atol=1e-5)
        np.testing.assert_allclose(got["success"][mine], want.success, atol=1e-5)
    blind = (got["episode_index"] == 2) & (got["frame_index"] >= 5) & (got["frame_index"] < 9)
    assert (got["status"] == np.where(blind, Status.BAD_INPUT, Status.OK)).all()
    assert (np.isnan(got["progress_sparse"]) == blind).all()
    assert "4 BAD_INPUT" in capsys.readouterr().out
    about = pq.read_schema(sidecar(data)).metadata
    assert about[b"reward_model_path"].decode() == str(made / "model")
    assert about[b"reward_model_type"] == b"dopamine"
    assert about[b"reward_model_sha256"].decode() == load(made / "model").card.weights_sha256
    assert sorted(p.name for p in data.iterdir() if "progress" in p.name) == [sidecar(data).name]


def test_lerobot_reads_the_file_and_weights_samples_by_it(made, data):
    from lerobot.rewards.sarm.compute_rabc_weights import get_reward_model_path_from_parquet
    from lerobot.rewards.sarm.rabc import RABCWeights

    assert main(command(made, data)) == 0
    assert get_reward_model_path_from_parquet(sidecar(data)) == str(made / "model")
    for head in ("sparse", "dense"):
        weights = RABCWeights(sidecar(data), chunk_size=5, head_mode=head, device="cpu")
        table = pq.read_table(sidecar(data))
        phi = table.column(f"progress_{head}").to_numpy()
        known = np.isfinite(phi)
        assert weights.progress_lookup == {i: float(phi[i]) for i in np.flatnonzero(known)}
        first = {"start": 0, "end": open_dataset(data).lengths[0]}
        assert weights.episode_boundaries[0] == first
        assert weights._compute_delta(3) == pytest.approx(phi[8] - phi[3], abs=1e-6)
        found, stats = weights.compute_batch_weights({"index": torch.arange(len(phi))})
        assert torch.isfinite(found).all()
        assert stats["mean_weight"] > 0


def test_shards_in_any_order_give_the_file_of_one_run(made, data, expected, capsys):
    for shard in ("3/3", "1/3"):
        assert main(command(made, data, f"--shard={shard}")) == 0
        assert not sidecar(data).exists()
    assert "left to other shards" in capsys.readouterr().out
    assert main(command(made, data, "--merge=true")) == 2
    assert "2 of 5 episodes" in capsys.readouterr().err
    assert main(command(made, data, "--shard=2/3")) == 0
    assert sidecar(data).read_bytes() == expected
    assert main(command(made, data, "--shard=2/3")) == 0
    assert "nothing to do" in capsys.readouterr().out


@pytest.mark.slow
def test_killed_and_started_again_the_file_is_the_same(made, data, expected):
    """A real SIGKILL, in the middle: some episodes are done, others are not."""
    call = [sys.executable, "-c", SLOW, *command(made, data)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL)
    parts, deadline = data / ".er_progress.parts", time.monotonic() + 60
    while len(list(parts.glob("episode_*.parquet"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in parts.glob("episode_*.parquet")}
    assert 2 <= len(done) < len(OUTCOMES)
    assert not sidecar(data).exists()
    assert main(command(made, data, "--shard=1/2")) == 0
    kept = {p.name: p.stat().st_mtime_ns for p in parts.glob("episode_*.parquet")}
    assert done.items() <= kept.items()
    assert main(command(made, data)) == 0
    assert sidecar(data).read_bytes() == expected


# Slow enough to be killed in time: a pause after every episode.
SLOW = """
import sys, time
from embodied_reward.cli import main
from embodied_reward.data.labels import LabelFile
write = LabelFile.write
LabelFile.write = lambda *a: (write(*a), time.sleep(0.5))
main(sys.argv[1:])
"""


def test_labels_of_another_model_are_not_overwritten_by_accident(made, data, expected, capsys):
    assert main(command(made, data, model="other")) == 0
    before = sidecar(data).read_bytes()
    assert main(command(made, data)) == 2
    assert "--overwrite=true" in capsys.readouterr().err
    assert sidecar(data).read_bytes() == before
    assert main(command(made, data, "--overwrite=true", "--shard=1/2")) == 0
    assert sidecar(data).read_bytes() == before
    assert main(command(made, data, "--overwrite=true")) == 0
    assert sidecar(data).read_bytes() == expected


def test_parts_of_another_model_are_not_mixed_in(made, data, expected, capsys):
    assert main(command(made, data, "--shard=1/2", model="other")) == 0
    assert main(command(made, data)) == 2
    assert "unfinished labels of another model" in capsys.readouterr().err
    assert main(command(made, data, "--overwrite=true")) == 0
    assert sidecar(data).read_bytes() == expected


def test_an_episode_that_cannot_be_decoded_is_nan_and_the_others_are_labelled(
    made, data, monkeypatch, capsys
):
    from embodied_reward.data.lerobot import LeRobotSource
    from embodied_reward.errors import DatasetError

    frames = LeRobotSource.frames

    def torn(self, index, view):
        if index == 1:
            raise DatasetError("video file is truncated")
        return frames(self, index, view)

    monkeypatch.setattr(LeRobotSource, "frames", torn)
    assert main(command(made, data)) == 0
    table = pq.read_table(sidecar(data)).to_pandas()
    lost = table.episode_index == 1
    assert (table.status[lost] == Status.BAD_INPUT).all()
    assert table.progress_sparse[lost].isna().all()
    assert table.progress_sparse[table.episode_index == 0].notna().all()
    assert "truncated" in capsys.readouterr().out


def test_features_on_disk_change_no_label(made, data, expected, tmp_path):
    for _ in range(2):
        cache = f"--cache.folder={tmp_path / 'features'}"
        assert main(command(made, data, "--overwrite=true", cache)) == 0
        assert sidecar(data).read_bytes() == expected


@pytest.mark.parametrize("text", ["1", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_bad_shards_are_refused(text):
    with pytest.raises(ConfigError, match="--shard"):
        parse_shard(text)


def test_one_dataset_at_a_time_and_all_of_it(made, data, capsys):
    assert main(command(made, f"{data},{data}")) == 2
    assert "one --dataset.root" in capsys.readouterr().err
    assert main(command(made, data, "--dataset.episodes=0")) == 2
    assert "--shard=i/n" in capsys.readouterr().err
