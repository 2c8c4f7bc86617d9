"""`er train-reward` and what follows it, on the real fixture."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from embodied_reward import cli
from embodied_reward.data import open_dataset
from embodied_reward.rewards import load
from embodied_reward.scoring import ScoringCore

FIXTURE = Path(__file__).parents[2] / "datasets" / "window_open_tiny"
QUICK = [
    "--steps=6",
    "--batch_size=2",
    "--val_freq=3",
    "--save_freq=3",
    "--log_freq=1",
    "--reward_model.pairs=40",
    "--reward_model.encoder.image_size=32",
    "--seed=3",
]


def er(*arguments):
    return cli.main(list(arguments))


def train(folder, *extra, root=FIXTURE):
    return er("train-reward", f"--dataset.root={root}", f"--output_dir={folder}", *QUICK, *extra)


def message(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("er train-reward: ")
    assert "\n" not in error
    return error


def test_a_run_folder_holds_what_the_docs_promise(tmp_path, capsys):
    assert train(tmp_path / "run") == 0
    output = capsys.readouterr().out
    assert "er eval-reward --reward_model.path=" in output
    run = tmp_path / "run"
    assert (run / "config.yaml").is_file()
    assert list((run / "tensorboard").glob("events*"))
    last = run / "checkpoints" / "last"
    assert last.is_symlink()
    assert {p.name for p in last.iterdir()} == {
        "manifest.json",
        "pretrained_model",
        "training_state",
    }
    model = load(run)
    assert model.card.views == ("corner2", "gripperPOV")
    assert model.card.task == "slide the window open"
    scores = model.score_episode(open_dataset(FIXTURE)[1])
    assert scores.potential.shape == (38,)
    rows = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "train/loss" in r] == [1, 2, 3, 4, 5, 6]


def test_same_command_same_numbers_and_resume_of_a_finished_run(tmp_path):
    for name in ("a", "b"):
        assert train(tmp_path / name) == 0
    one, two = ((tmp_path / n / "metrics.jsonl").read_bytes() for n in ("a", "b"))
    assert one == two
    assert er("train-reward", f"--output_dir={tmp_path / 'a'}", "--resume=true") == 0
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == one


def test_resume_continues_to_more_steps_exactly(tmp_path):
    """Cut after 3 of 6 steps: the schedule is that of the whole run, so the numbers are too."""
    assert train(tmp_path / "whole") == 0
    assert train(tmp_path / "cut") == 0
    checkpoints = tmp_path / "cut" / "checkpoints"
    shutil.rmtree(checkpoints / "00000006")
    assert er("train-reward", f"--output_dir={tmp_path / 'cut'}", "--resume=true") == 0
    whole = load(tmp_path / "whole" / "checkpoints" / "last").state_dict()
    again = load(tmp_path / "cut" / "checkpoints" / "last").state_dict()
    assert all(torch.equal(whole[k], again[k]) for k in whole)
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (
        tmp_path / "whole" / "metrics.jsonl"
    ).read_bytes()


@pytest.mark.parametrize("kind", ["sgfd", "stablenet"])
@pytest.mark.slow
def test_data_sets_are_variants_and_the_weights_are_logged_and_resumed(kind, tmp_path):
    two = [f"--dataset.root={FIXTURE},{FIXTURE}", f"--decorrelation.type={kind}"]
    quick = ["--decorrelation.warmup=2", "--decorrelation.steps=3", "--episodes=1,2,4,5"]
    more = [*two, *quick, "--val_fraction=0"]
    assert train(tmp_path / "whole", *more) == 0
    assert train(tmp_path / "cut", *more) == 0
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "00000006")
    assert er("train-reward", f"--output_dir={tmp_path / 'cut'}", "--resume=true") == 0
    whole, again = ((tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "cut"))
    assert again == whole
    rows = [json.loads(row) for row in whole.splitlines()]
    ess = [row["train/decorrelation/ess"] for row in rows if "train/loss" in row]
    assert ess[:2] == [1.0, 1.0]
    assert all(0.3 - 1e-6 <= value <= 1 for value in ess)
    # The variants show the same pictures, so SGFD finds nothing to decorrelate.
    assert (ess[-1] == 1.0) is (kind == "sgfd")


def test_a_loss_that_is_no_mean_over_samples_is_refused(tmp_path, capsys):
    more = ["--reward_model.type=tcc", "--decorrelation.type=stablenet"]
    argv = [f"--dataset.root={FIXTURE}", f"--output_dir={tmp_path / 'run'}", *more]
    assert er("train-reward", *argv) == 2
    assert "(dopamine, remaining_time); that of 'tcc'" in message(capsys)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--reward_model.shfit=2"], r"unknown configuration key '--reward_model.shfit'; did you"),
        (["--reward_model.type=dopamin"], "did you mean 'dopamine'"),
        (["--reward_model.views=corner2,wrist"], r"'wrist'.*corner2, gripperPOV"),
        (["--dataset.episodes=0,7"], "names 7, but .* has 3 episodes"),
        (["--dataset.episodes=0"], "none of the 1 training episodes is successful"),
        (["--device=tpu"], "available: cpu"),
        (["--steps=many"], "bad configuration value: `steps`"),
        (["--dataset.repo_id=a/b"], "exactly one of --dataset.root"),
        (["--decorrelation.type=sgdf"], "did you mean 'sgfd'"),
        (["--decorrelation.type=sgfd"], "one variant only: give several data sets"),
        (["--decorrelation.type=stablenet", "--decorrelation.min_ess=2"], "0 <= min_ess <= 1"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, text):
    assert train(tmp_path / "run", *arguments) == 2
    error = message(capsys)
    import re

    assert re.search(text, error), error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_an_existing_folder_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("keep")
    assert train(tmp_path / "run") == 2
    assert "--resume=true" in message(capsys)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["mine.txt"]


def test_resume_without_a_folder_says_so(capsys):
    assert er("train-reward", f"--dataset.root={FIXTURE}", "--resume=true") == 2
    assert "--output_dir=RUN" in message(capsys)


@pytest.mark.slow
def test_a_model_adapts_to_one_demonstration_of_another_task(tmp_path, capsys):
    assert train(tmp_path / "first") == 0
    before = load(tmp_path / "first").state_dict()
    adapt = [f"--reward_model.path={tmp_path / 'first'}", "--episodes=1"]
    folder = tmp_path / "second"
    root = f"--dataset.root={FIXTURE}"
    short = ["--steps=4", "--save_freq=4", "--log_freq=1", "--reward_model.pairs=30"]
    assert er("train-reward", root, f"--output_dir={folder}", *adapt, *short) == 0
    assert "1 training and 0 validation episodes" in capsys.readouterr().out
    model = load(folder)
    # The size came from the model, the learning rate from the preset, the pairs from the user.
    assert model.card.image_size == 32
    assert model.config.pairs == 30
    run = (folder / "config.yaml").read_text()
    assert "val_fraction: 0.0" in run
    moved = [
        (model.state_dict()[k] - v).abs().max().item() for k, v in before.items() if "network" in k
    ]
    assert 0 < max(moved) < 0.05
    assert model.card.extra["references"] == 1


def test_what_adaptation_refuses(tmp_path, capsys):
    assert train(tmp_path / "first") == 0
    capsys.readouterr()
    path = f"--reward_model.path={tmp_path / 'first'}"
    root = f"--dataset.root={FIXTURE}"
    assert er("train-reward", root, path, "--reward_model.dim=64") == 2
    assert "--reward_model.dim=64 does not fit the model" in message(capsys)
    assert er("train-reward", root, "--reward_model.path=nowhere") == 2
    assert "no reward model at 'nowhere'" in message(capsys)
    assert er("train-reward", root, path, "--episodes=0", "--dataset.episodes=1") == 2
    assert "not both" in message(capsys)
    assert er("train-reward", root, path, "--episodes=99") == 2
    assert "names 99" in message(capsys)


@pytest.mark.parametrize(
    "arguments",
    [
        ("remaining_time", "--reward_model.frames=4"),
        ("goal_distance", "--reward_model.frames=4"),
        ("tcc", "--reward_model.frames=4"),
        ("ensemble", "--reward_model.member.type=tcc", "--reward_model.member.frames=4"),
    ],
)
def test_every_method_trains_from_the_command_line(arguments, tmp_path):
    kind, *fields = arguments
    member = "member." if kind == "ensemble" else ""
    small = [
        "--steps=2",
        "--batch_size=2",
        "--val_freq=2",
        f"--reward_model.{member}encoder.image_size=32",
    ]
    run = tmp_path / "run"
    where = (f"--dataset.root={FIXTURE}", f"--output_dir={run}", f"--reward_model.type={kind}")
    assert er("train-reward", *where, *small, *fields) == 0
    model = load(run)
    assert model.card.type == kind
    assert model.card.views == ("corner2", "gripperPOV")
    assert model.score_episode(open_dataset(FIXTURE)[1]).potential.shape == (38,)


def test_a_frozen_encoder_sees_every_picture_once_and_the_cache_changes_no_weight(
    tmp_path, monkeypatch
):
    """Validation included; the second run finds all features in the folder."""
    from transformers import ViTConfig, ViTModel

    source = tmp_path / "vit"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(source)
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (source / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", **statistics})
    )
    found, close = [], ScoringCore.close

    def counted(core):
        found.append(core.stats())
        close(core)

    monkeypatch.setattr(ScoringCore, "close", counted)
    more = (f"--reward_model.encoder.name={source}", f"--cache.folder={tmp_path / 'features'}")
    for name in ("cold", "warm"):
        assert train(tmp_path / name, *more) == 0
    episodes = open_dataset(FIXTURE)
    frames = sum(len(views) for e in episodes for views in e.views.values())
    first, second = (stats.get("trunk_images", 0) for stats in found)
    assert 0 < first <= frames
    assert second == 0
    one, two = (
        (tmp_path / name / "checkpoints" / "last" / "pretrained_model" / "model.safetensors")
        for name in ("cold", "warm")
    )
    assert one.read_bytes() == two.read_bytes()
