"""`er train-policy` with the real simulator, real demonstrations and a real reward model."""

import json
import multiprocessing
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from embodied_reward import config as configs
from embodied_reward.cli import main
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.policy_env import plain_env
from embodied_reward.cli.train_policy import TrainPolicyConfig
from embodied_reward.data import open_dataset
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.rewards import DopamineConfig, DopamineModel, load
from embodied_reward.scoring.stream import StreamScorer

TASK = "metaworld/faucet-open-v3"
ENV = (f"--env.id={TASK}", "--env.action_repeat=8", "--env.horizon=15")
FAST = (
    "--policy.net_arch=16,16",
    "--policy.batch_size=16",
    "--policy.bc_steps=40",
    "--policy.gradient_steps=1",
    "--policy.learning_starts=10",
    "--policy.actor_starts=20",
    "--eval.n_episodes=1",
    "--threads=1",
)
VIEW = "corner2"


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("demos") / "faucet"
    argv = (*ENV[:2], "--env.horizon=30", "--episodes=2", f"--views={VIEW}", "--size=24")
    assert main(["collect", *argv, f"--output_dir={root}"]) == 0
    return root


@pytest.fixture(scope="module")
def reward(demos, tmp_path_factory):
    """A reward model with random weights: its scores are arbitrary, but deterministic."""
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=(VIEW,)))
    model.set_references(model.dataset(list(open_dataset(demos))))
    folder = tmp_path_factory.mktemp("reward") / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    return folder


def train(root, demos, *more, steps=60):
    given = [f"--dataset.root={demos}"] if demos else []
    argv = [*ENV, *FAST, *given, f"--output_dir={root}", f"--steps={steps}", *more]
    return main(["train-policy", *argv])


def rows(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def oracle_run(demos, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "oracle"
    assert train(root, demos, "--reward.mode=oracle", "--eval.freq=30") == 0
    return root


def test_a_run_leaves_config_metrics_tensorboard_and_checkpoints(oracle_run):
    config = configs.decode(TrainPolicyConfig, configs.read_yaml(oracle_run / "config.yaml"))
    assert (config.env.id, config.reward.mode, config.steps) == (TASK, "oracle", 60)
    logged = rows(oracle_run)
    evaluated = [r["step"] for r in logged if "eval/success_rate" in r]
    assert evaluated == [0, 30, 60]
    assert any("rollout/ep_rew_learned_mean" in r and "reward/shaping_mean" in r for r in logged)
    assert not any(key.startswith("time/") for r in logged for key in r)
    assert list((oracle_run / "tensorboard").iterdir())
    for link in ("last", "best"):
        folder = oracle_run / "checkpoints" / link
        assert (folder / "pretrained_model" / "model.safetensors").is_file()
        assert (folder / "sb3_model.zip").is_file()
    assert load_policy(oracle_run).spec.meta["env"]["id"] == TASK


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(oracle_run, demos, tmp_path):
    more = ("--reward.mode=oracle", "--eval.freq=30")
    assert train(tmp_path / "again", demos, *more) == 0
    expected = (oracle_run / "metrics.jsonl").read_bytes()
    assert (tmp_path / "again" / "metrics.jsonl").read_bytes() == expected
    assert train(tmp_path / "other", demos, *more, "--seed=1") == 0
    assert (tmp_path / "other" / "metrics.jsonl").read_bytes() != expected


def test_a_finished_run_can_be_prolonged(oracle_run, demos, tmp_path, capsys):
    root = tmp_path / "run"
    shutil.copytree(oracle_run, root, symlinks=True)
    before = rows(root)
    assert main(["train-policy", f"--output_dir={root}", "--resume=true"]) == 0
    assert "nothing left to do" in capsys.readouterr().out
    assert main(["train-policy", f"--output_dir={root}", "--resume=true", "--steps=90"]) == 0
    assert "resuming at decision 60" in capsys.readouterr().out
    after = rows(root)
    assert after[: len(before)] == before
    assert after[-1]["step"] == 90
    assert [r["step"] for r in after] == sorted(r["step"] for r in after)


def test_learned_potential_from_pixels_on_two_environments(demos, reward, tmp_path, capsys):
    root = tmp_path / "run"
    more = (f"--reward.path={reward}", "--reward.mode=potential", "--n_envs=2", "--eval.freq=0")
    assert train(root, demos, *more, "--policy.gamma=0.9", steps=80) == 0
    out = capsys.readouterr().out
    assert "gamma 0.9" in out
    assert "keeps the optimal policy" in out
    assert f"--reward.path={reward}" in out
    logged = [r for r in rows(root) if "reward/potential_mean" in r]
    assert logged
    assert all(0 <= r["reward/potential_mean"] <= 1 for r in logged)


@pytest.mark.slow
def test_worker_processes_learn_what_turns_in_one_process_learn(demos, reward, tmp_path):
    more = (f"--reward.path={reward}", "--reward.mode=potential", "--n_envs=2", "--eval.freq=0")
    found = []
    for name in ("serial", "subprocess"):
        root = tmp_path / name
        assert train(root, demos, *more, f"--workers={name}", steps=80) == 0
        found.append([r for r in rows(root) if "reward/potential_mean" in r])
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert a["reward/potential_mean"] == pytest.approx(b["reward/potential_mean"], abs=1e-5)
    assert multiprocessing.active_children() == []


def test_tiers_rate_and_n_steps_reach_the_learner(demos, tmp_path, capsys):
    root, fps = tmp_path / "run", open_dataset(demos)[0].fps
    more = (
        "--reward.mode=oracle",
        "--reward.tiers=4",
        "--policy.discount_rate=0.4",
        "--policy.n_steps=3",
    )
    assert train(root, demos, "--reward.kappa=9", *more) == 0
    gamma, out = float(np.exp(-0.4 / fps)), capsys.readouterr().out
    assert f"gamma {gamma:g}" in out
    assert "warning: kappa Phi spans" in out
    assert "--reward.kappa=1" in out
    assert load_policy(root).spec.config.gamma == gamma
    checkpoint = sorted((root / "checkpoints").glob("0*"))[-1]
    replay = load_file(checkpoint / "training_state" / "replay.safetensors")
    assert set(np.unique(replay["next_potentials"])) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    # The configuration that is saved is the one that was given: a resumed run works it out again.
    assert train(root, demos, "--reward.kappa=9", *more, "--resume=true", steps=70) == 0


def test_replaying_a_demonstration_online_gives_the_demonstrations_potentials(demos, reward):
    """Replay buffer and environment use one and the same potential: same frames, same model."""
    model, episode = load(reward), open_dataset(demos)[0]
    config = EnvConfig(id=TASK, action_repeat=8, horizon=30)
    env = plain_env(config, 0, views=(VIEW,), size=24)
    scene = np.random.SeedSequence([0, 0, 0]).spawn(2)[0]
    obs, _ = env.reset(seed=int(scene.generate_state(1)[0]))
    np.testing.assert_allclose(obs["agent_pos"], episode.state[0], atol=1e-6)
    scorer, online = StreamScorer(model, 1), []
    online.append(scorer.start([0], {VIEW: env.frames()[VIEW][None]}).potential[0])
    for action in episode.action[:-1]:
        ended = env.step(action)[2]
        online.append(scorer.step({VIEW: env.frames()[VIEW][None]}).potential[0])
        if ended:
            break
    env.close()
    expected = model.score_episode(episode).potential
    assert len(online) > 5
    np.testing.assert_allclose(online, expected[: len(online)], atol=1e-5)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--reward.mode=potental"], "did you mean 'potential'"),
        (["--reward.mode=potential"], "needs --reward.path"),
        (["--reward.mode=oracle", "--env.action_repeat=4"], "--env.action_repeat=8"),
        (["--reward.mode=oracle", "--policy.gama=0.9"], "policy.gamma"),
        (["--reward.mode=oracle", "--policy.type=sacc"], "did you mean 'sac'"),
        (["--reward.mode=oracle", "--reward.kappa=0"], "kappa"),
        (["--reward.mode=oracle", "--env.id=metaworld/faucet-opn-v3"], "faucet-open-v3"),
        (["--reward.mode=success", "--dataset.root=nowhere"], "nowhere"),
        (["--reward.mode=potential", "--reward.path=nowhere"], "nowhere"),
        (["--reward.mode=oracle", "--steps=0"], "--steps"),
        (["--reward.mode=oracle", "--policy.gamma=0.9", "--policy.discount_rate=1"], "not both"),
        (["--reward.mode=oracle", "--policy.discount_rate=-1"], "discount rate"),
        (["--reward.mode=success", "--workers=subproces"], "did you mean 'subprocess'"),
        (
            ["--reward.mode=success", "--workers=subprocess", "--success.pays=true"]
            + ["--success.path=nowhere"],
            "use --workers=serial",
        ),
        (["--reward.mode=success", "--reward.tiers=4"], "leave --reward.tiers out"),
        (["--reward.mode=success", "--decorrelation.type=sgfd"], "found one variant only"),
        (["--reward.mode=oracle", "--reward.tiers=4", "--reward.hysteresis=0.3"], "[0, 0.25)"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(more, message, demos, tmp_path, capsys):
    assert train(tmp_path / "run", demos, *more) == 2
    error = capsys.readouterr().err
    assert re.search(re.escape(message), error), error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ppo_and_task_reward_without_demonstrations(tmp_path, capsys):
    more = ("--policy.type=ppo", "--policy.n_steps=16", "--reward.mode=task", "--eval.freq=0")
    fast = [f for f in FAST if "gradient_steps" not in f and "learning_starts" not in f]
    argv = [*ENV, *fast, *more, f"--output_dir={tmp_path / 'run'}", "--steps=32"]
    assert main(["train-policy", *argv]) == 0
    assert "dense reward" in capsys.readouterr().out
    assert load_policy(tmp_path / "run").spec.config.type == "ppo"
    last = [r for r in rows(tmp_path / "run") if "rollout/ep_rew_mean" in r][-1]
    assert last["rollout/ep_rew_mean"] > 1  # Meta-World's dense reward, not success


def test_interrupted_run_can_be_resumed(demos, tmp_path):
    root = tmp_path / "run"
    argv = [*ENV, *FAST, f"--dataset.root={demos}", f"--output_dir={root}", "--reward.mode=oracle"]
    command = [sys.executable, "-m", "embodied_reward.cli", "train-policy", *argv]
    process = subprocess.Popen(
        [*command, "--steps=100000", "--eval.freq=50"], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (root / "checkpoints" / "00000050").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume=true" in out
    done = int((root / "checkpoints" / "last").resolve().name)
    assert done >= 50
    assert train(root, None, "--resume=true", "--eval.freq=0", steps=done + 20) == 0
    assert rows(root)[-1]["step"] == done + 20
