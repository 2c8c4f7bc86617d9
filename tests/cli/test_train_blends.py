"""`er train-policy --reward.blend=NAME`: one flag for SAC and PPO, logged, saved and resumed."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.rewards import DopamineConfig, DopamineModel

VIEW = "top"
ENV = ("--env.id=embodied_reward/SweepToGoal-MediumStick-v0", "--env.horizon=10", "--n_envs=2")
SMALL = (
    *("--policy.net_arch=16,16", "--policy.batch_size=16", "--eval.n_episodes=1", "--threads=1"),
    *("--eval.freq=0", "--blend.every=2", "--blend.window=4"),
)
KIND = {
    "sac": ("--policy.type=sac", "--policy.gradient_steps=1", "--policy.learning_starts=20"),
    "ppo": ("--policy.type=ppo", "--policy.n_steps=16"),
}


def train(root, kind, *more, steps=128):
    argv = [*ENV, *SMALL, *KIND[kind], "--policy.bc_steps=0", *more]
    return main(["train-policy", *argv, f"--output_dir={root}", f"--steps={steps}"])


def rows(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def reward(tmp_path_factory):
    """A reward model with random weights; its two anchors disagree."""
    root = tmp_path_factory.mktemp("demos") / "sweep"
    argv = (ENV[0], "--env.horizon=60", "--episodes=1", f"--views={VIEW}", "--size=24")
    assert main(["collect", *argv, f"--output_dir={root}"]) == 0
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=(VIEW,)))
    model.set_references(model.dataset(list(open_dataset(root))))
    folder = tmp_path_factory.mktemp("reward") / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    return folder


@pytest.mark.parametrize("kind", ["sac", "ppo"])
@pytest.mark.parametrize("blend", ["bilevel", "calibrated", "group", "exploration"])
def test_a_blend_is_named_logged_and_saved(kind, blend, tmp_path, capsys):
    root = tmp_path / "run"
    assert train(root, kind, "--reward.mode=oracle", f"--reward.blend={blend}") == 0
    out = capsys.readouterr().out
    assert re.search(rf"blend '{blend}': .*(optimal policy|keeps)", out), out
    logged = [r for r in rows(root) if any(key.startswith("blend/") for key in r)]
    assert logged
    state = root / "checkpoints" / "last" / "training_state"
    assert json.loads((state / "blend.json").read_text())["weight"] > 0
    episodes = load_file(state / "blend.safetensors")["lengths"]
    assert len(episodes) == 4
    assert (episodes == 10).all()


def test_a_resumed_run_takes_its_blend_back_and_only_its_own(tmp_path, capsys):
    first = tmp_path / "first"
    more = ("--reward.mode=oracle", "--reward.blend=exploration")
    assert train(first, "sac", *more, steps=300) == 0
    before = load_file(first / "checkpoints" / "last" / "training_state" / "blend.safetensors")
    assert before["visits"].sum() == 300
    found = []
    for name in ("a", "b"):
        root = tmp_path / name
        shutil.copytree(first, root, symlinks=True)
        argv = [f"--output_dir={root}", "--resume=true", "--steps=340"]
        assert main(["train-policy", *argv]) == 0
        after = load_file(root / "checkpoints" / "last" / "training_state" / "blend.safetensors")
        assert after["visits"].sum() == 340
        found.append((root / "metrics.jsonl").read_bytes())
    assert found[0] == found[1]
    argv = [f"--output_dir={first}", "--resume=true", "--steps=360", "--reward.blend=group"]
    assert main(["train-policy", *argv]) == 2
    assert "same --reward.blend" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["sac", "ppo"])
def test_what_the_model_doubts_moves_the_potential_less(kind, reward, tmp_path, capsys):
    steps, given = [], ("--reward.mode=potential", f"--reward.path={reward}")
    for blend, tau in (("fixed", 1.0), ("uncertainty", 0.02)):
        root = tmp_path / blend
        more = (f"--reward.blend={blend}", f"--blend.temperature={tau}")
        assert train(root, kind, *given, *more, steps=64) == 0
        shaping = [r["reward/shaping_mean"] for r in rows(root) if "reward/shaping_mean" in r]
        ends = [r for r in rows(root) if "episode/residual" in r]
        assert max(abs(r["episode/residual"]) for r in ends) < 1e-6
        steps.append(np.abs(shaping).mean())
    assert steps[0] != steps[1]
    assert "keeps what the reward mode keeps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reward.mode=oracle", "--reward.blend=bilevl"], "did you mean 'bilevel'"),
        (["--reward.mode=success", "--reward.blend=bilevel"], "adds no learned reward"),
        (["--reward.mode=oracle", "--reward.blend=uncertainty"], "has no uncertainty"),
        (["--reward.mode=oracle", "--reward.blend=group", "--blend.every=9"], "--blend.every"),
        (["--reward.mode=oracle", "--blend.rates=1"], "blend.rate"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(more, message, tmp_path, capsys):
    assert train(tmp_path / "run", "ppo", *more) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_new_states_are_paid_without_any_learned_reward(tmp_path):
    assert (
        train(tmp_path / "run", "ppo", "--reward.mode=success", "--reward.blend=exploration") == 0
    )
