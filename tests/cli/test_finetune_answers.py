"""`er train-policy --finetune.type=preference --preferences=FILE`, on recorded episodes."""

import shutil

import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.diffusion.actor import DiffusionActor
from tests.cli.test_train_diffusion import ENV, TINY, rows, train


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    root = tmp_path_factory.mktemp("episodes") / "reach"
    argv = (ENV[0], ENV[2], "--episodes=3", "--size=16", f"--output_dir={root}")
    assert main(["collect", *argv, "--quality=mixed"]) == 0
    return root


@pytest.fixture(scope="module")
def answers(episodes, tmp_path_factory):
    file = tmp_path_factory.mktemp("answers") / "answers.jsonl"
    argv = (f"--dataset.root={episodes}", "--oracle", "--count=3", f"--output={file}")
    assert main(["label-preferences", *argv]) == 0
    return file


@pytest.fixture(scope="module")
def clone(episodes, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "clone"
    assert train(root, *TINY, f"--dataset.root={episodes}", "--steps=5", "--eval.freq=0") == 0
    return root


def preferred(root, clone, episodes, answers, *argv):
    base = ("--policy.type=diffusion", f"--policy.path={clone}", "--finetune.type=preference")
    data = (f"--dataset.root={episodes}", f"--preferences={answers}", "--steps=8", "--eval.freq=4")
    return train(root, *base, *data, *argv)


def test_answers_change_lerobots_policy_repeat_and_resume(
    clone, episodes, answers, tmp_path, capsys
):
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    root, again = tmp_path / "a", tmp_path / "b"
    growing = tmp_path / "answers.jsonl"
    shutil.copyfile(answers, growing)
    for folder in (root, again):
        assert preferred(folder, clone, episodes, growing) == 0
    assert "ordered pairs of 3 episodes" in capsys.readouterr().out
    assert (root / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()
    assert {r["step"] for r in rows(root) if "train/loss" in r} == {4, 8}
    # As if the run had been killed after its first checkpoint; answers that came later are left.
    with growing.open("a") as file:
        file.write('{"type": "pair", "episodes": [0, 2], "preferred": 1}\n' * 50)
    shutil.rmtree(again / "checkpoints" / "00000008")
    assert main(["train-policy", f"--output_dir={again}", "--resume=true"]) == 0
    assert (root / "metrics.jsonl").read_bytes() == (again / "metrics.jsonl").read_bytes()
    policy, start = load_policy(root), load_policy(clone)
    assert isinstance(policy, DiffusionActor)
    assert policy.spec.meta["finetune"]["type"] == "preference"
    theirs = DiffusionPolicy.from_pretrained(root / "checkpoints" / "last" / "pretrained_model")
    before = zip(theirs.parameters(), start.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in before)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--finetune.type=dppo",), "not with --finetune.type=dppo"),
        (("--dataset.root=",), "--preferences needs --dataset.root=EPISODES"),
        (("--policy.path=nowhere",), "nowhere"),
        (("--preferences=nowhere.jsonl",), "no preferences at 'nowhere.jsonl'"),
        (("--finetune.error_beta=0",), "--finetune.error_beta must be positive"),
    ],
)
def test_what_answers_cannot_do_is_said_at_once(
    argv, message, clone, episodes, answers, tmp_path, capsys
):
    assert preferred(tmp_path / "run", clone, episodes, answers, *argv) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
