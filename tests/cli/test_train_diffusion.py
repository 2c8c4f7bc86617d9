"""`er train-policy --policy.type=diffusion` and its fine-tuning, in a real simulator."""

import json
import shutil

import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.diffusion.actor import DiffusionActor
from embodied_reward.policies.finetune.actor import SteeredActor

ENV = ("--env.id=embodied_reward/TableReach-v0", "--env.horizon=12", "--env.action_repeat=2")
TINY = (
    "--policy.type=diffusion",
    "--policy.down_dims=8,8",
    "--policy.diffusion_step_embed_dim=8",
    "--policy.batch_size=16",
    "--policy.num_train_timesteps=20",
    "--policy.num_inference_steps=2",
)
QUICK = ("--eval.n_episodes=2", "--threads=1")
AGENT = (
    "--finetune.rl.net_arch=8,8",
    "--finetune.rl.batch_size=8",
    "--finetune.rl.gradient_steps=1",
    "--finetune.rl.learning_starts=6",
)


def rows(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def train(root, *argv):
    return main(["train-policy", *ENV, *QUICK, f"--output_dir={root}", *argv])


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("demos") / "reach"
    argv = (ENV[0], ENV[2], "--episodes=2", "--size=16", f"--output_dir={root}")
    assert main(["collect", *argv]) == 0
    return root


@pytest.fixture(scope="module")
def clone(demos, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "clone"
    assert train(root, *TINY, f"--dataset.root={demos}", "--steps=40", "--eval.freq=20") == 0
    return root


def finetune(root, clone, method, *argv, steps=12):
    base = ("--policy.type=diffusion", f"--policy.path={clone}", f"--finetune.type={method}")
    return train(root, *base, *AGENT, f"--steps={steps}", "--eval.freq=0", *argv)


def test_a_clone_evaluates_logs_and_is_rolled_out(clone, tmp_path, capsys):
    assert [r["step"] for r in rows(clone) if "eval/success_rate" in r] == [20, 40]
    assert any("train/loss" in r for r in rows(clone))
    assert isinstance(load_policy(clone), DiffusionActor)
    out = tmp_path / "eval"
    argv = [f"--policy.path={clone}", "--episodes=2", "--videos=1", f"--output_dir={out}"]
    assert main(["eval-policy", *argv]) == 0
    assert "TableReach-v0: " in capsys.readouterr().out
    assert len(list((out / "videos").glob("*.mp4"))) == 1


def test_a_resumed_clone_is_the_uninterrupted_one(clone, demos, tmp_path):
    root = tmp_path / "run"
    shutil.copytree(clone, root, symlinks=True)
    # As if the run had been killed after its first checkpoint.
    shutil.rmtree(root / "checkpoints" / "00000040")
    assert main(["train-policy", f"--output_dir={root}", "--resume=true"]) == 0
    assert (root / "metrics.jsonl").read_bytes() == (clone / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    "method",
    [
        "dsrl",
        pytest.param("dsrl_na", marks=pytest.mark.slow),
        "residual",
        "best_of_n",
        pytest.param("noise_search", marks=pytest.mark.slow),
    ],
)
def test_fine_tuning_is_shaped_repeats_and_acts_after_loading(clone, tmp_path, method, capsys):
    assert finetune(tmp_path / "a", clone, method, "--reward.mode=oracle") == 0
    assert finetune(tmp_path / "b", clone, method, "--reward.mode=oracle") == 0
    assert (tmp_path / "a" / "metrics.jsonl").read_bytes() == (
        tmp_path / "b" / "metrics.jsonl"
    ).read_bytes()
    # Any shaping sum that does not telescope over a whole episode would have raised.
    assert any("episode/shaping" in key for r in rows(tmp_path / "a") for key in r)
    policy = load_policy(tmp_path / "a")
    assert isinstance(policy, SteeredActor)
    assert policy.spec.config.gamma == 0.95  # the method's own default, though others were set
    argv = [f"--policy.path={tmp_path / 'a'}", "--episodes=1", "--videos=0"]
    assert main(["eval-policy", *argv, f"--output_dir={tmp_path / 'eval'}"]) == 0
    assert "TableReach-v0: " in capsys.readouterr().out


@pytest.mark.parametrize("method", ["dsrl", "dsrl_na", "best_of_n"])
def test_fine_tuning_resumes(clone, tmp_path, capsys, method):
    root = tmp_path / "run"
    assert finetune(root, clone, method, "--reward.mode=success") == 0
    assert main(["train-policy", f"--output_dir={root}", "--resume=true", "--steps=16"]) == 0
    assert "resuming at decision 12" in capsys.readouterr().out
    assert rows(root)[-1]["step"] == 16


TUNER = (
    "--finetune.rl.net_arch=8",
    "--finetune.rl.n_steps=4",
    "--finetune.rl.batch_size=8",
    "--finetune.rl.actor_starts=4",
)


def tune(root, clone, method, *argv, steps=12):
    base = ("--policy.type=diffusion", f"--policy.path={clone}", f"--finetune.type={method}")
    return train(root, *base, *TUNER, f"--steps={steps}", "--eval.freq=0", *argv)


REPLAY = ("--finetune.replay_size=8", "--finetune.replay_threshold=0")


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("dppo", ()),
        ("prdp", REPLAY),
        ("tp_grpo", ()),
        ("euphonium", ()),
        ("rwr", ()),
        ("preference", ()),
    ],
)
def test_tuned_weights_are_lerobots_policy_repeat_and_resume(clone, tmp_path, method, more, capsys):
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    root = tmp_path / "a"
    for name in ("a", "b"):
        assert tune(tmp_path / name, clone, method, "--reward.mode=oracle", *more) == 0
    assert (root / "metrics.jsonl").read_bytes() == (tmp_path / "b" / "metrics.jsonl").read_bytes()
    assert any("episode/shaping" in key for r in rows(root) for key in r)
    policy, start = load_policy(root / "checkpoints" / "last"), load_policy(clone)
    assert isinstance(policy, DiffusionActor)
    assert policy.spec.meta["finetune"]["type"] == method
    theirs = DiffusionPolicy.from_pretrained(root / "checkpoints" / "last" / "pretrained_model")
    assert isinstance(start, DiffusionActor)
    pairs = [(a, b) for a, b in zip(theirs.parameters(), policy.model.parameters(), strict=True)]
    assert all(torch.equal(a, b) for a, b in pairs)
    before = zip(theirs.parameters(), start.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in before)
    argv = [f"--policy.path={root}", "--episodes=1", "--videos=0"]
    assert main(["eval-policy", *argv, f"--output_dir={tmp_path / 'eval'}"]) == 0
    assert "TableReach-v0: " in capsys.readouterr().out
    assert main(["train-policy", f"--output_dir={root}", "--resume=true", "--steps=16"]) == 0
    assert "resuming at decision 12" in capsys.readouterr().out
    assert rows(root)[-1]["step"] == 16


def test_rwr_clones_demonstrations_beside_its_own_plans(clone, demos, tmp_path):
    def learned(name, *argv):
        more = ("--finetune.signal=progress", "--finetune.demo_fraction=0.5", *argv)
        assert tune(tmp_path / name, clone, "rwr", "--reward.mode=oracle", *more) == 0
        return [r["train/loss"] for r in rows(tmp_path / name) if "train/loss" in r]

    alone, beside = learned("alone"), learned("beside", f"--dataset.root={demos}")
    assert len(beside) == len(alone) > 0
    assert beside != alone


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            (*TINY, "--policy.path=x", "--finetune.type=dppo", "--reward.mode=success",
             "--dataset.root=x"),
            "--finetune.type=dppo learns from its own rollouts alone",
        ),
        ((*TINY,), "give --dataset.root=DEMOS"),
        (("--finetune.type=dsrl", "--reward.mode=success"), "needs --policy.type=diffusion"),
        ((*TINY, "--policy.path=x"), "say how with --finetune.type"),
        ((*TINY, "--policy.weighting=progress"), "needs --reward.path=RUN"),
        ((*TINY, "--reward.path=x"), "cloning pays no reward"),
        ((*TINY, "--policy.path=x", "--finetune.type=dsr"), "did you mean 'dsrl'"),
        (
            (*TINY, "--policy.path=x", "--finetune.type=dsrl", "--finetune.rl.n_steps=0",
             "--reward.mode=success"),
            "--finetune.rl.n_steps must be at least 1",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_at_once(argv, message, tmp_path, capsys):
    assert train(tmp_path / "run", *argv) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
