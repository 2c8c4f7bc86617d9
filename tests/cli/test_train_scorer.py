"""`er train-scorer` on rendered pictures with a known preference."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from embodied_reward import cli
from embodied_reward.math.statistics import auc
from embodied_reward.scoring import FeatureCache, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.language.small import word_tokenizer
from embodied_reward.scoring.registry import load_scorer
from embodied_reward.training.checkpoint import point
from tests.scoring.heads.shapes import (
    labels_file,
    pairs_file,
    picture,
    sets_file,
    write,
    write_lines,
)

QUICK = ["--threads=1", "--val_freq=1000", "--log_freq=5"]


def train(data, folder, *extra):
    arguments = [f"--data={data}", f"--output_dir={folder}", *QUICK, *extra]
    return cli.main(["train-scorer", *arguments])


def table(output):
    """Return the printed accuracies by name."""
    lines = output.split("held-out pairs")[1].split("checkpoint:")[0].splitlines()[1:]
    rows = [line.split("[")[0].rsplit(maxsplit=1) for line in lines if "[" in line]
    return {name.strip(): float(value) for name, value in rows}


def unseen(count=200):
    """Pictures that no run was trained on, and whether their disc is high."""
    rng = np.random.default_rng(99)
    heights = rng.choice([0.2, 0.8], count)
    return np.stack([picture(rng, h) for h in heights]), (heights > 0.5).astype(int)


def ask(run, frames, **more):
    scorer = load_scorer(run)
    with ScoringCore(cache=FeatureCache(), mode="strict") as core:
        core.register(scorer)
        return core.score(ScoreRequest(scorers=(scorer.card.name,), frames=frames, **more))[
            scorer.card.name
        ]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pairs_file(tmp_path_factory.mktemp("pairs"), 240)


def test_a_head_and_its_trunk_learn_a_known_preference(pairs, tmp_path, capsys):
    run = tmp_path / "lift"
    assert train(pairs, run, "--steps=90", "--batch_size=32", "--name=lift") == 0
    output = capsys.readouterr().out
    found = table(output)
    assert set(found) == {"scorer", "constant", "brightness", "contrast", "file bytes"}
    assert found["constant"] == 0.5
    assert found["scorer"] >= 0.9
    assert found["scorer"] >= max(v for k, v in found.items() if k != "scorer") + 0.15
    assert f"er score PICTURES --scorer={run}" in output
    assert (run / "config.yaml").is_file()
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["val/accuracy"] > 0.9
    frames, high = unseen()
    scores = ask(run, frames).require_ok()
    assert auc(scores, high) >= 0.95
    assert np.array_equal(scores, ask(run, frames).score)
    card = load_scorer(run).card
    assert (card.name, card.type) == ("lift", "bradley_terry")
    # the normaliser is that of the training pictures
    assert abs(scores.mean()) < 1
    assert 0.3 < scores.std() < 3


def test_a_frozen_trunk_is_encoded_once_and_heads_train_on_its_features(pairs, tmp_path, capsys):
    options = ["--trunk.train=false", "--steps=300", f"--cache_dir={tmp_path / 'features'}"]
    assert train(pairs, tmp_path / "a", *options, "--head.type=voting") == 0
    assert any((tmp_path / "features").rglob("*.safetensors"))
    found = table(capsys.readouterr().out)
    assert found["scorer"] >= 0.65
    scorer = load_scorer(tmp_path / "a")
    torch.manual_seed(0)
    assert ask(tmp_path / "a", unseen(6)[0]).epistemic.min() > 0
    assert scorer.card.type == "voting"


@pytest.mark.parametrize(
    ("kind", "make_data"),
    [("n_way", sets_file), ("heteroscedastic", labels_file)],
)
@pytest.mark.slow
def test_sets_and_labels_train_too(kind, make_data, tmp_path, capsys):
    data = make_data(tmp_path / "data", 100)
    options = [f"--head.type={kind}", "--steps=60", "--batch_size=16"]
    assert train(data, tmp_path / "run", *options) == 0
    output = capsys.readouterr().out
    assert table(output)["scorer"] >= 0.85
    assert ("best of set" in output) == (kind == "n_way")
    frames, high = unseen(40)
    # n_way compares within a group: all forty pictures are one
    reply = ask(tmp_path / "run", frames, group=np.zeros(40, np.int64))
    assert auc(reply.require_ok(), high) >= 0.85
    assert np.isfinite(reply.aleatoric).all() == (kind == "heteroscedastic")


def test_the_same_seed_gives_the_same_numbers(pairs, tmp_path):
    short = ["--steps=6", "--batch_size=8"]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert train(pairs, tmp_path / name, *short, f"--seed={seed}", "--name=x") == 0
    rows = [(tmp_path / n / "metrics.jsonl").read_bytes() for n in "abc"]
    assert rows[0] == rows[1] != rows[2]
    frames, _ = unseen(8)
    assert ask(tmp_path / "a", frames) == ask(tmp_path / "b", frames)


def test_a_resumed_run_ends_where_an_unbroken_one_does(pairs, tmp_path, capsys):
    short = ["--steps=12", "--batch_size=8", "--save_freq=6", "--name=x"]
    assert train(pairs, tmp_path / "whole", *short) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "broken", symlinks=True)
    shutil.rmtree(tmp_path / "broken" / "checkpoints" / "00000012")
    point(tmp_path / "broken" / "checkpoints", "last", "00000006")
    assert cli.main(["train-scorer", f"--output_dir={tmp_path / 'broken'}", "--resume=true"]) == 0
    assert "resuming at step 6" in capsys.readouterr().out
    frames, _ = unseen(8)
    assert ask(tmp_path / "whole", frames) == ask(tmp_path / "broken", frames)
    both = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "broken")]
    assert both[0] == both[1]


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """A CLIP as users have it, with random weights and a vocabulary of six words."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    tokenizer = word_tokenizer(["a bright picture", "a dark picture"], end=True)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape["num_attention_heads"] = 4
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "eos_token_id": 3}
    config = CLIPConfig(
        text_config={**shape, **text, "bos_token_id": 2, "pad_token_id": 0},
        vision_config={**shape, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    folder = tmp_path_factory.mktemp("clip")
    crop = {"height": 32, "width": 32}
    for part in (CLIPModel(config), CLIPImageProcessor(size=crop, crop_size=crop), tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def by_prompt(tmp_path_factory):
    """Which of two pictures is preferred depends on the prompt alone."""
    folder, rng = tmp_path_factory.mktemp("prompts"), np.random.default_rng(0)
    lines = []
    for i in range(200):
        names = []
        for level in (60, 180):
            frame = rng.integers(level - 40, level + 40, (32, 32, 3), dtype=np.uint8)
            names.append(write(folder, f"{i}_{level}.png", frame))
        bright = bool(rng.integers(2))
        prompt = f"a {'bright' if bright else 'dark'} picture"
        chosen, rejected = names[::-1] if bright else names
        lines.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return write_lines(folder / "prefs.jsonl", lines)


def test_a_model_with_a_text_tower_reads_the_prompt(tiny_clip, by_prompt, tmp_path, capsys):
    options = [f"--trunk.name={tiny_clip}", "--steps=150"]
    assert train(by_prompt, tmp_path / "blind", *options, "--trunk.text=false") == 0
    assert table(capsys.readouterr().out)["scorer"] < 0.75
    assert train(by_prompt, tmp_path / "reads", *options) == 0
    output = capsys.readouterr().out
    assert table(output)["scorer"] >= 0.95
    assert "prompts are not read" not in output
    frames = np.stack([np.full((32, 32, 3), v, np.uint8) for v in (60, 180)])
    scores = {
        word: ask(tmp_path / "reads", frames, texts=f"a {word} picture").require_ok()
        for word in ("bright", "dark")
    }
    assert scores["bright"][1] > scores["bright"][0]
    assert scores["dark"][1] < scores["dark"][0]
    nothing = ask(tmp_path / "reads", frames)
    assert nothing.status.tolist() == [Status.BAD_INPUT] * 2
    line = {"chosen": "0_60.png", "rejected": "0_180.png"}
    data = write_lines(by_prompt.parent / "bare.jsonl", [line] * 9)
    assert train(data, tmp_path / "x", *options, "--trunk.text=true") == 2
    assert "bare.jsonl line 1 has no `prompt`" in message(capsys)


def message(capsys):
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("er train-")]
    assert len(error) == 1
    return error[0]


def test_bad_input_is_one_line_and_leaves_no_run(pairs, tmp_path, capsys):
    run = tmp_path / "run"
    assert cli.main(["train-scorer"]) == 2
    assert "--data=FILE is missing" in message(capsys)
    assert train(tmp_path / "none.jsonl", run) == 2
    assert "no preference file" in message(capsys)
    assert train(pairs, run, "--head.type=bradley_tery") == 2
    assert "did you mean 'bradley_terry'" in message(capsys)
    assert train(pairs, run, "--trunk.name=no/such/folder") == 2
    assert "'no/such/folder' is no image model" in message(capsys)
    assert train(pairs, run, "--trunk.text=true") == 2
    assert "'conv64' has no text tower" in message(capsys)
    assert train(pairs, run, "--batch_size=0") == 2
    assert "--batch_size=0 must be at least 1" in message(capsys)
    line = {"chosen": "0_a.png", "rejected": "0_b.png", "tie": True}
    assert train(write_lines(pairs.parent / "ties.jsonl", [line] * 3), run) == 2
    assert "holds only ties" in message(capsys)
    (pairs.parent / "broken.png").write_bytes(b"no picture")
    line = {"chosen": "0_a.png", "rejected": "broken.png"}
    assert train(write_lines(pairs.parent / "broken.jsonl", [line]), run) == 2
    assert "broken.jsonl line 1: '" in message(capsys)
    assert not run.exists() or not any(run.iterdir())
    assert train(pairs, run, "--steps=1") == 0
    capsys.readouterr()
    assert train(pairs, run, "--steps=1") == 2
    assert "already exists" in message(capsys)


@pytest.mark.slow  # a second interpreter imports torch
def test_simulators_are_not_imported():
    code = (
        "import sys, embodied_reward.cli.train_scorer\n"
        "print([m for m in ('mujoco', 'gymnasium', 'lerobot', 'stable_baselines3', "
        "'embodied_reward.rewards') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
