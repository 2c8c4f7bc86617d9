"""Our reward models as LeRobot's: one checkpoint format, equal scores, LeRobot's own trainer."""

import json
import shutil

import numpy as np
import pytest
import torch
from lerobot.configs.rewards import RewardModelConfig
from lerobot.datasets import LeRobotDataset
from lerobot.rewards import make_reward_model, make_reward_pre_post_processors
from safetensors.torch import load_file

from embodied_reward import rewards
from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.lerobot_plugin import CONFIGS, ErRewardModel
from embodied_reward.lerobot_plugin.configuration_er import ErDopamineConfig
from embodied_reward.lerobot_plugin.labels import read_facts
from embodied_reward.lerobot_plugin.modeling_er import ErDopamineRewardModel
from tests.lerobot_plugin.conftest import KINDS, TINY, lerobot, train_reward, train_reward_here

EVERY = 5  # of all frames: decoding them is what takes time


def from_lerobot(folder, **fields):
    """Load as `lerobot` does: config by its base class, model by its factory."""
    config = RewardModelConfig.from_pretrained(folder)
    config.pretrained_path, config.device = str(folder), "cpu"
    for name, value in fields.items():
        setattr(config, name, value)
    return make_reward_model(config)


def loader(config, *, deltas=None, batch_size=16, shuffle=False):
    meta = LeRobotDataset("local/tiny", root=TINY).meta
    deltas = config.delta_timestamps(meta.fps, meta.camera_keys) if deltas is None else deltas
    data = LeRobotDataset("local/tiny", root=TINY, delta_timestamps=deltas)
    some = torch.utils.data.Subset(data, range(0, len(data), EVERY))
    return torch.utils.data.DataLoader(some, batch_size=batch_size, shuffle=shuffle)


def ours(folder, what):
    model = rewards.load(folder)
    scores = [getattr(model.score_episode(e), what) for e in open_dataset(TINY)]
    return np.concatenate(scores)[::EVERY]


@pytest.mark.parametrize("method", KINDS)
def test_lerobot_loads_our_checkpoint_and_scores_its_batches_as_we_do(checkpoints, method):
    model = from_lerobot(checkpoints[method])
    before, _ = make_reward_pre_post_processors(model.config)
    found = [model.compute_reward(before(batch)) for batch in loader(model.config)]
    expected = ours(checkpoints[method], "success" if method == "success" else "potential")
    assert expected.std() > 1e-4
    np.testing.assert_allclose(torch.cat(found).numpy(), expected, atol=1e-6)
    assert model.name == model.config.type == f"er_{method}"
    assert not model.training


def test_a_shuffled_batch_gets_the_rewards_of_its_own_frames(checkpoints):
    model = from_lerobot(checkpoints["dopamine"])
    batch = next(iter(loader(model.config, shuffle=True)))
    expected = ours(checkpoints["dopamine"], "potential")
    found = model.compute_reward(batch).numpy()
    np.testing.assert_allclose(found, expected[batch["index"].numpy() // EVERY], atol=1e-6)


def test_output_success_gives_the_success_probability(checkpoints):
    model = from_lerobot(checkpoints["dopamine"], output="success")
    found = [model.compute_reward(batch) for batch in loader(model.config)]
    expected = ours(checkpoints["dopamine"], "success")
    np.testing.assert_allclose(torch.cat(found).numpy(), expected, atol=1e-6)


def test_frames_of_environments_are_scored_from_reset_to_reset(checkpoints):
    """Two environments side by side, no window: the first batch after reset() begins episodes."""
    model = from_lerobot(checkpoints["dopamine"])
    native = rewards.load(checkpoints["dopamine"])
    episodes = [open_dataset(TINY)[k] for k in (0, 1, 2)]
    expected = [native.score_episode(e).potential[:5] for e in episodes]
    for chosen in ((0, 1), (2, 0)):
        model.reset()
        for t in range(5):
            batch = {
                f"observation.images.{view}": torch.stack(
                    [torch.from_numpy(episodes[k].views[view][t].copy()) for k in chosen]
                ).permute(0, 3, 1, 2)
                for view in native.card.views
            }
            found = model.compute_reward(batch).numpy()
            np.testing.assert_allclose(found, [expected[k][t] for k in chosen], atol=1e-6)


def test_a_missing_camera_is_masked_and_none_at_all_is_an_error(checkpoints):
    model = from_lerobot(checkpoints["dopamine"])
    batch = next(iter(loader(model.config)))
    blind = {k: v for k, v in batch.items() if "corner2" not in k}
    assert torch.isfinite(model.compute_reward(blind)).all()
    with pytest.raises(DatasetError, match="needs the views corner2, gripperPOV"):
        model.compute_reward({k: v for k, v in batch.items() if "images" not in k})
    for key in ("observation.images.corner2", "observation.images.gripperPOV"):
        batch[key][0] = 0
    assert torch.isnan(model.compute_reward(batch)[0])


def test_what_would_be_scored_wrongly_is_refused(checkpoints):
    model = from_lerobot(checkpoints["dopamine"])
    with pytest.raises(ConfigError, match="delta_timestamps"):
        model.compute_reward(next(iter(loader(model.config, deltas={}))))
    batch = next(iter(loader(model.config)))
    key = "observation.images.corner2"
    with pytest.raises(DatasetError, match="before normalisation"):
        model.compute_reward({**batch, key: batch[key] * 4 - 2})
    with pytest.raises(DatasetError, match="channels first"):
        model.compute_reward({**batch, key: batch[key].permute(0, 1, 3, 4, 2)})
    with pytest.raises(ConfigError, match="data set's metadata"):
        make_reward_model(ErDopamineConfig(device="cpu"))
    with pytest.raises(ConfigError, match="labels of a data set"):
        model.forward(batch)
    with pytest.raises(ConfigError, match="output=reward"):
        ErDopamineConfig(device="cpu", output="reward")


def test_altered_weights_and_foreign_types_are_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["dopamine"], tmp_path / "model")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="altered"):
        ErDopamineRewardModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="'tcc', not"):
        ErDopamineRewardModel.from_pretrained(
            checkpoints["tcc"], config=ErDopamineConfig(device="cpu")
        )


@pytest.mark.parametrize("method", ["dopamine", "success", "tcc"])
def test_a_checkpoint_survives_the_way_through_lerobot_and_back(checkpoints, tmp_path, method):
    from_lerobot(checkpoints[method]).save_pretrained(tmp_path)
    before, after = (load_file(f / "model.safetensors") for f in (checkpoints[method], tmp_path))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    again = from_lerobot(tmp_path)
    assert again.model.config == rewards.load(checkpoints[method]).config
    assert json.loads((tmp_path / "config.json").read_text())["type"] == method


def test_every_method_of_ours_is_registered():
    known = RewardModelConfig.get_known_choices()
    assert set(CONFIGS) == set(rewards.registry()) - FOREIGN
    assert all(known[f"er_{name}"] is known[name] is config for name, config in CONFIGS.items())
    # LeRobot's own types stay LeRobot's.
    assert known["reward_classifier"].__module__.startswith("lerobot.")


FOREIGN = {"reward_classifier", "sarm", "topreward", "robometer"}


@pytest.fixture(scope="module")
def drawn():
    """Four batches as LeRobot's trainer draws them."""
    config = ErDopamineConfig(device="cpu")
    meta = LeRobotDataset("local/tiny", root=TINY).meta
    deltas = {k: [i / meta.fps for i in config.observation_delta_indices] for k in meta.camera_keys}
    torch.manual_seed(0)
    return list(loader(config, deltas=deltas, batch_size=6, shuffle=True))


@pytest.mark.parametrize("method", ["dopamine", "remaining_time", "success"])
@pytest.mark.slow
def test_a_model_learns_from_lerobot_batches(drawn, method):
    torch.manual_seed(0)
    config = CONFIGS[method](device="cpu")
    encoder = type(config.config.encoder)(image_size=32)
    config.config = type(config.config)(dim=32, encoder=encoder, erase=0.0, view_dropout=0.0)
    model = make_reward_model(config, dataset_meta=LeRobotDataset("local/tiny", root=TINY).meta)
    assert model.is_trainable
    optimizer = torch.optim.AdamW(model.get_optim_params(), lr=2e-3)
    for _ in range(16 if method == "dopamine" else 6):
        for batch in drawn:
            loss, logs = model.train().forward(batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            assert all(np.isfinite(value) for value in logs.values())
    # What was seen in training: solved frames above the first ones of the same episodes.
    found = [model.compute_reward(batch) for batch in drawn]
    at, solved = placed(drawn)
    reward = torch.cat(found).numpy()
    assert reward[solved].mean() > reward[at < 10].mean() + 0.2


def placed(drawn):
    """The frame number and whether it is solved, of every sample of successful episodes."""
    facts = read_facts(TINY)
    pairs = zip(
        torch.cat([b["index"] for b in drawn]).tolist(),
        torch.cat([b["episode_index"] for b in drawn]).tolist(),
        strict=True,
    )
    at = [(i - facts[e].begins, facts[e]) for i, e in pairs]
    numbers = np.array([t if f.success else 99 for t, f in at])
    return numbers, np.array([bool(f.solved[t]) for t, f in at])


def test_methods_that_need_whole_episodes_say_that_they_are_not_trained_here(checkpoints):
    assert not from_lerobot(checkpoints["tcc"]).is_trainable


def test_lerobot_train_trains_dopamine_and_er_reads_what_it_wrote(tmp_path, capsys, monkeypatch):
    train_reward_here(monkeypatch, "dopamine", tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints" / "last" / "pretrained_model"
    native = rewards.load(tmp_path / "run")
    assert native.name == "dopamine"
    assert len(native.reference_goal) == 2  # the successes of the data set
    model = from_lerobot(folder)
    found = torch.cat([model.compute_reward(batch) for batch in loader(model.config)]).numpy()
    np.testing.assert_allclose(found, ours(folder, "potential"), atol=1e-6)
    arguments = [f"--reward_model.path={tmp_path / 'run'}", f"--dataset.root={TINY}"]
    quick = ["--videos=0", "--robustness=0", "--resamples=2", f"--output_dir={tmp_path / 'eval'}"]
    assert main(["eval-reward", *arguments, *quick]) == 0
    report = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert report["reward_model"]["type"] == "dopamine"
    assert "incremental" in capsys.readouterr().out


@pytest.mark.slow
def test_lerobot_resumes_and_fine_tunes(tmp_path):
    train_reward("dopamine", tmp_path / "run", "--save_freq=2", steps=4)
    first = tmp_path / "run" / "checkpoints" / "000002"
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "000004")
    config = first / "pretrained_model" / "train_config.json"
    plugin = "--reward_model.discover_packages_path=embodied_reward.lerobot_plugin"
    lerobot("lerobot-train", f"--config_path={config}", "--resume=true", plugin)
    whole = train_reward("dopamine", tmp_path / "whole", "--save_freq=2", steps=4)
    assert "step:4" in whole
    resumed, unbroken = (
        load_file(
            tmp_path / run / "checkpoints" / "000004" / "pretrained_model" / "model.safetensors"
        )
        for run in ("run", "whole")
    )
    weights = [key for key in unbroken if not key.startswith("reference")]
    assert all(torch.equal(resumed[key], unbroken[key]) for key in weights)
    lerobot(
        "lerobot-train",
        plugin,
        f"--reward_model.path={first / 'pretrained_model'}",
        "--reward_model.config.view_dropout=0.1",
        "--dataset.repo_id=local/tiny",
        f"--dataset.root={TINY}",
        "--num_workers=0",
        "--batch_size=4",
        "--steps=2",
        f"--output_dir={tmp_path / 'tuned'}",
    )
    assert rewards.load(tmp_path / "tuned").config.view_dropout == 0.1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dopamine", "remaining_time", "success"])
def test_lerobot_train_runs_as_a_command(tmp_path, method):
    printed = train_reward(method, tmp_path / "run")
    assert "step:3" in printed
    assert "success_loss" in printed or "hit_rate" in printed
    assert rewards.load(tmp_path / "run").name == method


@pytest.mark.slow
def test_lerobot_train_refuses_what_it_cannot_train(tmp_path):
    with pytest.raises(AssertionError, match="cannot be trained"):
        train_reward("tcc", tmp_path / "run")


def test_the_base_class_loads_any_of_our_types(checkpoints):
    for method, folder in checkpoints.items():
        assert ErRewardModel.from_pretrained(folder).name == "er"
        assert type(from_lerobot(folder)).name == f"er_{method}"
