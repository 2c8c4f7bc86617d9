"""LeRobot's classifier, SARM, TOPReward and Robometer behind our contract, in one table with ours.

Tiny and randomly initialised: what is tested is that they see what LeRobot shows them.
"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from lerobot.datasets import LeRobotDataset
from lerobot.rewards import make_reward_pre_post_processors

from embodied_reward import rewards
from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.errors import CheckpointError, DatasetError
from embodied_reward.lerobot_plugin.foreign_language import prefix
from embodied_reward.lerobot_plugin.foreign_sarm import windows
from tests.lerobot_plugin.conftest import TINY, lerobot
from tests.lerobot_plugin.tiny_foreign import (
    KEY,
    MAKERS,
    VIEWS,
    classifier_config,
    clip,
    make,
    resnet,
)

# LeRobot's Robometer step asks for a maximal length that it does not use.
pytestmark = pytest.mark.filterwarnings("ignore:.max_length. is ignored")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A work folder with CLIP where SARM looks for it, and a checkpoint of every type."""
    folder = tmp_path_factory.mktemp("foreign")
    clip(folder)
    return folder, {kind: make(kind, folder / kind) for kind in MAKERS}


@pytest.fixture
def folders(work, monkeypatch):
    monkeypatch.chdir(work[0])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return work[1]


def episode(length=9):
    whole = open_dataset(TINY)[1]
    return replace(
        whole,
        views={v: frames[:length] for v, frames in whole.views.items()},
        state=whole.state[:length],
        length=length,
    )


@pytest.mark.parametrize("kind", MAKERS)
def test_every_type_scores_episodes(folders, kind):
    model, shown = rewards.load(folders[kind]), episode()
    assert model.card.type == model.name == kind
    assert not model.card.streaming
    scores = model.score_episode(shown)
    assert scores.potential.shape == (9,)
    assert ((scores.potential >= 0) & (scores.potential <= 1)).all()
    assert len(np.unique(scores.potential)) > 4  # it looks at the pictures
    again = rewards.load(folders[kind]).score_episode(shown)
    np.testing.assert_array_equal(scores.potential, again.potential)


def test_the_classifier_sees_what_lerobot_shows_it(folders):
    model, shown = rewards.load(folders["reward_classifier"]), episode()
    found = model.score_episode(shown)
    images = []
    for view in VIEWS:
        frames = torch.from_numpy(np.array(shown.views[view])).permute(0, 3, 1, 2).float() / 255
        resize = torch.nn.functional.interpolate
        images.append(resize(frames, (128, 128), mode="bilinear", antialias=True))
    with torch.no_grad():
        expected = model.model.predict(images).probabilities.numpy()
    np.testing.assert_allclose(found.success, expected, atol=1e-6)
    np.testing.assert_array_equal(found.success, found.potential)


def test_sarm_reads_every_frame_as_lerobots_own_script_does(folders):
    """`compute_rabc_weights`: one preprocessed window per frame, read at its centre."""
    model = rewards.load(folders["sarm"])
    config = model.model.config
    meta = LeRobotDataset("local/tiny", root=TINY).meta
    deltas = [d / meta.fps for d in config.observation_delta_indices]
    data = LeRobotDataset(
        "local/tiny", root=TINY, delta_timestamps={KEY: deltas, config.state_key: deltas}
    )
    pipeline, _ = make_reward_pre_post_processors(config, dataset_stats=None, dataset_meta=meta)
    for step in pipeline.steps:
        if hasattr(step, "eval"):
            step.eval()
    number = 1
    found = model.score_episode(open_dataset(TINY)[number]).potential
    begins = meta.episodes[number]["dataset_from_index"]
    for t in (0, 1, 17, len(found) - 1):
        sample = data[begins + t]
        batch = {k: sample[k] for k in (KEY, config.state_key, "task")}
        seen = pipeline({**batch, "index": begins + t, "episode_index": number})
        expected = model.model.calculate_rewards(
            text_embeddings=seen["text_features"],
            video_embeddings=seen["video_features"],
            state_features=seen["state_features"],
            lengths=seen["lengths"],
            return_all_frames=True,
        )
        assert found[t] == pytest.approx(float(expected[0, config.n_obs_steps // 2]), abs=1e-5)


@pytest.mark.parametrize("kind", ["topreward", "robometer"])
def test_language_models_read_what_lerobots_pipeline_reads(folders, kind):
    """LeRobot's preprocessor and compute_reward on the frames up to t."""
    model, shown = rewards.load(folders[kind]), episode()
    found = model.score_episode(shown)
    config = model.model.config
    pipeline, _ = make_reward_pre_post_processors(config)
    images = torch.from_numpy(np.array(shown.views["corner2"])).permute(0, 3, 1, 2).float() / 255
    for t in (0, 3, 8):
        frames = images[prefix(t, config.max_frames)].unsqueeze(0)
        reward = float(model.model.compute_reward(pipeline({KEY: frames, "task": [shown.task]})))
        expected = np.exp(reward) if kind == "topreward" else reward
        assert found.potential[t] == pytest.approx(expected, abs=1e-5)
    assert np.isfinite(found.success).all()


def test_windows_and_prefixes():
    assert windows(5, 4, 2)[0].tolist() == [0, 0, 0, 2, 4]
    assert windows(5, 4, 2)[4].tolist() == [0, 2, 4, 4, 4]
    assert prefix(0, 4).tolist() == [0]
    assert prefix(2, 4).tolist() == [0, 1, 2]
    assert prefix(9, 4).tolist() == [0, 3, 6, 9]


def test_er_eval_reward_sets_them_beside_ours(folders, checkpoints, tmp_path, capsys):
    """All of them in one table; the language models alone would take a minute, so two suffice."""
    compare = ",".join(str(folders[kind]) for kind in ("reward_classifier", "sarm"))
    arguments = [
        f"--reward_model.path={checkpoints['dopamine']}",
        f"--compare={compare}",
        f"--dataset.root={TINY}",
        "--dataset.episodes=1",
        "--robustness=0",
        "--videos=0",
        "--resamples=2",
        f"--output_dir={tmp_path}",
    ]
    assert main(["eval-reward", *arguments]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert {"reward_classifier", "sarm"} <= set(report["compared"])
    for name, entry in report["compared"].items():
        assert name in printed
        assert entry["reward_model"]["extra"] == {"trained_by": "lerobot"}
        assert entry["metrics"].keys() == report["metrics"].keys()


@pytest.mark.slow
def test_er_eval_reward_compares_all_four(folders, checkpoints, tmp_path):
    compare = ",".join(str(folder) for folder in folders.values())
    arguments = [
        f"--reward_model.path={checkpoints['dopamine']}",
        f"--compare={compare}",
        f"--dataset.root={TINY}",
        "--robustness=0",
        "--videos=1",
        "--resamples=2",
        f"--output_dir={tmp_path}",
    ]
    assert main(["eval-reward", *arguments]) == 0
    report = json.loads((tmp_path / "metrics.json").read_text())
    assert set(report["compared"]) == set(MAKERS)


@pytest.mark.slow
def test_a_classifier_that_lerobot_trained_is_read_with_its_preprocessor(tmp_path, monkeypatch):
    config = classifier_config(resnet(tmp_path / "backbone"))
    features = {k: {"type": "VISUAL", "shape": [3, 128, 128]} for k in config.input_features}
    run = {
        "dataset": {"repo_id": "local/tiny", "root": str(TINY)},
        "reward_model": {
            "type": "reward_classifier",
            "device": "cpu",
            "model_name": config.model_name,
            "num_cameras": 2,
            "hidden_dim": 16,
            "latent_dim": 16,
            "image_embedding_pooling_dim": 2,
            "input_features": features,
        },
        "steps": 2,
        "batch_size": 2,
        "num_workers": 0,
        "output_dir": str(tmp_path / "run"),
    }
    (tmp_path / "run.json").write_text(json.dumps(run))
    with pytest.raises(AssertionError, match="size of tensor|must match"):
        # LeRobot's trainer does not resize: 64 px pictures do not fit the 4 x 4 map it expects.
        lerobot("lerobot-train", f"--config_path={tmp_path / 'run.json'}")


def test_code_that_a_checkpoint_points_at_is_not_run(folders, tmp_path):
    folder = shutil.copytree(folders["reward_classifier"], tmp_path / "model")
    tree = json.loads((folder / "config.json").read_text())
    backbone = shutil.copytree(tree["model_name"], tmp_path / "backbone")
    (folder / "config.json").write_text(json.dumps({**tree, "model_name": str(backbone)}))
    rewards.load(folder)
    (backbone / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(CheckpointError, match="code of its own"):
        rewards.load(folder)
    (folder / "config.json").write_text(json.dumps({**tree, "model_name": "someone/net"}))
    with pytest.raises(CheckpointError, match="'someone/net'"):
        rewards.load(folder)


def test_a_missing_view_is_named(folders):
    shown = episode()
    blind = replace(shown, views={"gripperPOV": shown.views["gripperPOV"]})
    with pytest.raises(DatasetError, match="needs the views corner2"):
        rewards.load(folders["sarm"]).score_episode(blind)
    with pytest.raises(DatasetError, match=r"observation\.state"):
        rewards.load(folders["sarm"]).score_episode(replace(shown, state=None))


def test_foreign_types_are_looked_up_without_importing_them():
    known = rewards.registry()
    assert set(MAKERS) <= set(known)
    assert "sarm" in known
    assert known.get("nothing") is None
