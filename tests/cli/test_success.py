"""A success detector in `er train-policy`, `er eval-policy` and `er calibrate-success`."""

import json

import numpy as np
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.rewards import DopamineConfig, DopamineModel, SuccessConfig, SuccessModel, load
from embodied_reward.rewards.detector import Calibration

ENV = ("--env.id=metaworld/faucet-open-v3", "--env.action_repeat=8", "--env.horizon=12")
VIEWS = ("corner2", "gripperPOV")
FAST = (
    "--policy.net_arch=16,16",
    "--policy.batch_size=16",
    "--policy.bc_steps=40",
    "--policy.actor_starts=20",
    "--eval.n_episodes=1",
    "--eval.freq=0",
    "--threads=1",
)
SAC = ("--policy.gradient_steps=1", "--policy.learning_starts=10")
PPO = ("--policy.type=ppo", "--policy.n_steps=32")
ACCOUNTS = {
    "length", "base_return", "learned_return", "shaping_sum", "telescoped_sum", "residual",
    "final_potential", "true_success", "detected_success", "false_success", "missed_success",
    "hover",
}  # fmt: skip


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("demos") / "faucet"
    argv = (*ENV[:2], "--env.horizon=30", "--episodes=2", f"--views={','.join(VIEWS)}")
    assert main(["collect", *argv, "--size=24", f"--output_dir={root}"]) == 0
    return root


@pytest.fixture(scope="module")
def failures(tmp_path_factory):
    root = tmp_path_factory.mktemp("failures") / "faucet"
    argv = (*ENV, "--episodes=3", "--quality=retreat", "--only_success=false", "--size=24")
    assert main(["collect", *argv, f"--views={','.join(VIEWS)}", f"--output_dir={root}"]) == 0
    return root


@pytest.fixture(scope="module")
def reward(demos, tmp_path_factory):
    """Random weights: its scores are arbitrary, but deterministic."""
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=VIEWS[:1]))
    model.set_references(model.dataset(list(open_dataset(demos))))
    folder = tmp_path_factory.mktemp("reward") / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Random weights and a threshold that everything reaches: it cries success every time."""
    torch.manual_seed(0)
    model = SuccessModel.create(SuccessConfig(views=VIEWS, persistence=2))
    model.calibration = Calibration(0.0, 2, 0.01, 0.01, "episode", 99, "failures")
    folder = tmp_path_factory.mktemp("detector") / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    return folder


def train(root, demos, *more, fast=SAC, steps=50):
    argv = [*ENV, *FAST, *fast, f"--dataset.root={demos}", f"--output_dir={root}"]
    return main(["train-policy", *argv, f"--steps={steps}", *more])


def episodes(root):
    rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "episode/length" in row]


@pytest.mark.parametrize(
    "fast", [SAC, pytest.param(PPO, marks=pytest.mark.slow)], ids=["sac", "ppo"]
)
def test_every_episode_is_accounted_for_and_the_detector_only_watches(
    fast, demos, reward, detector, tmp_path, capsys
):
    more = (f"--reward.path={reward}", "--reward.mode=potential", "--n_envs=2")
    watched = tmp_path / "watched"
    steps = 64
    assert train(watched, demos, *more, f"--success.path={detector}", fast=fast, steps=steps) == 0
    assert "watching, paying nothing: success >= 0 for 2 frames" in capsys.readouterr().out
    logged = episodes(watched)
    assert len(logged) >= 4
    for row in logged:
        assert {k.removeprefix("episode/") for k in row if k.startswith("episode/")} == ACCOUNTS
        assert abs(row["episode/residual"]) < 1e-4
        assert row["episode/detected_success"] == 1.0
        assert row["episode/false_success"] == 1.0 - row["episode/true_success"]
        learned = row["episode/learned_return"]
        assert learned != pytest.approx(row["episode/base_return"], abs=1e-6)
    last, failed = logged[-1], [r for r in logged if not r["episode/true_success"]]
    assert failed
    assert last["run/false_positive_rate"] == 1.0
    assert 0 < last["run/false_positive_rate_low"] < last["run/false_positive_rate_high"] == 1.0
    assert 0 <= last["run/hover_rate"] <= 1
    # Without the detector the run is the same: it pays nothing and draws no random number.
    alone = tmp_path / "alone"
    assert train(alone, demos, *more, fast=fast, steps=steps) == 0
    assert "not calibrated" in capsys.readouterr().out
    for ours, theirs in zip(logged, episodes(alone), strict=True):
        for key in ("step", "episode/base_return", "episode/learned_return", "episode/shaping_sum"):
            assert ours[key] == theirs[key]
    assert all(row["episode/detected_success"] is not None for row in episodes(alone))


def test_without_any_model_the_detector_is_unknown_not_wrong(demos, tmp_path):
    assert train(tmp_path / "run", demos, "--reward.mode=oracle") == 0
    for row in episodes(tmp_path / "run"):
        assert row["episode/detected_success"] is None
        assert row["episode/true_success"] is not None
        assert "run/false_positive_rate" not in row


def test_a_detector_that_pays_is_labelled_and_the_truth_stays_known(
    demos, detector, tmp_path, capsys
):
    more = (f"--success.path={detector}", "--success.pays=true", "--reward.mode=success")
    assert train(tmp_path / "run", demos, *more, steps=30) == 0
    assert "NOT the simulator's truth" in capsys.readouterr().out
    logged = episodes(tmp_path / "run")
    assert len(logged) > 10
    for row in logged:  # it fires at the second frame, which ends the episode
        assert (row["episode/length"], row["episode/base_return"]) == (1.0, 1.0)
    assert sum(row["episode/true_success"] for row in logged) < len(logged)


def test_a_resumed_run_goes_on_counting(demos, detector, tmp_path):
    more = (f"--success.path={detector}", "--reward.mode=oracle")
    assert train(tmp_path / "run", demos, *more) == 0
    first = episodes(tmp_path / "run")
    argv = [f"--output_dir={tmp_path / 'run'}", "--resume=true", "--steps=100"]
    assert main(["train-policy", *argv]) == 0
    after = episodes(tmp_path / "run")[len(first) :]
    # Wilson's lower bound of n out of n grows with n alone.
    assert after[0]["run/false_positive_rate_low"] > first[-1]["run/false_positive_rate_low"]


def test_a_view_that_is_not_rendered_is_masked(demos, detector, tmp_path):
    more = (f"--success.path={detector}", "--reward.mode=success", "--reward.views=corner2")
    with pytest.warns(UserWarning, match=r"does not render \['gripperPOV'\]"):
        assert train(tmp_path / "run", demos, *more, steps=30) == 0
    assert episodes(tmp_path / "run")[0]["episode/detected_success"] == 1.0


def test_false_positives_of_a_policy_and_calibration_on_its_failures(
    demos, detector, tmp_path, capsys
):
    assert train(tmp_path / "policy", demos, "--reward.mode=success", steps=1) == 0
    roll = [f"--policy.path={tmp_path / 'policy'}", "--episodes=4", "--videos=1", "--size=24"]
    roll += ["--deterministic=false"]
    rolled = tmp_path / "roll"
    argv = [*roll, f"--success.path={detector}", f"--output_dir={rolled}"]
    assert main(["eval-policy", *argv]) == 0
    report = json.loads((rolled / "metrics.json").read_text())
    judged, failed = report["detector"], report["success"].count(False)
    assert failed
    assert judged["false_positive_rate"]["n"] == failed
    assert judged["false_positive_rate"]["value"] == 1.0
    # One score per frame, and one of the frame held after a success (persistence 2).
    pairs = zip(report["lengths"], report["success"], strict=True)
    assert [len(s) for s in judged["scores"]] == [n + 1 + won for n, won in pairs]
    assert f"false positives: {failed} of {failed} failed episodes" in capsys.readouterr().out

    fitted = tmp_path / "fitted"
    argv = [f"--success.path={detector}", f"--rollouts={rolled}", f"--output_dir={fitted}"]
    assert main(["calibrate-success", *argv, "--persistence=1"]) == 0
    assert f"{1 / (failed + 1):.1%} of failed episodes fire" in capsys.readouterr().out
    rule = load(fitted).calibration.detector
    pairs = zip(judged["scores"], report["success"], strict=True)
    assert not any(rule.episode(np.asarray(s)).any() for s, won in pairs if not won)
    argv = [*roll, f"--success.path={fitted}", f"--output_dir={tmp_path / 'again'}"]
    features = tmp_path / "features"
    assert main(["eval-policy", *argv, f"--cache.folder={features}"]) == 0
    assert any(file.is_file() for file in features.rglob("*"))
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["success"] == report["success"]
    assert again["detector"]["scores"] == judged["scores"]
    assert again["detector"]["false_positive_rate"]["value"] == 0.0


def test_calibration_on_recorded_failures(demos, failures, detector, tmp_path, capsys):
    out, features = tmp_path / "fitted", tmp_path / "features"
    argv = [f"--success.path={detector}", f"--dataset.root={demos},{failures}"]
    argv += ["--target_fpr=0.25", f"--cache.folder={features}"]
    assert main(["calibrate-success", *argv, f"--output_dir={out}"]) == 0
    said = capsys.readouterr().out
    assert any(file.is_file() for file in features.rglob("*"))
    assert "at most 25.0% of failed episodes fire" in said
    assert "of 2 successful episodes of this dataset are detected" in said
    model = load(out)
    assert (model.calibration.failures, model.calibration.persistence) == (3, 3)
    assert model.card.weights_sha256 == load(detector).card.weights_sha256


def test_a_detector_is_trained_like_any_reward_model(demos, failures, tmp_path, capsys):
    root = tmp_path / "run"
    argv = ["--reward_model.type=success", f"--dataset.root={demos},{failures}", "--steps=3"]
    more = ["--reward_model.frames=6", "--val_freq=3", "--threads=1", f"--output_dir={root}"]
    assert main(["train-reward", *argv, *more]) == 0
    out = capsys.readouterr().out
    assert "of failed episodes fire" in out
    assert "er calibrate-success --success.path=" in out
    assert load(root).calibration is not None


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["train-policy", *ENV, "--reward.path={detector}"], "--success.path"),
        (
            ["eval-reward", "--reward_model.path={detector}", "--dataset.root={demos}"],
            "no progress",
        ),
        (["train-policy", *ENV, "--success.pays=true", "--reward.mode=success"], "--success.path"),
        (
            ["train-policy", *ENV, "--success.pays=true", "--success.path=x", "--reward.mode=task"],
            "leave --success.pays out",
        ),
        (["calibrate-success", "--rollouts=x"], "--success.path=RUN"),
        (["calibrate-success", "--success.path={detector}"], "either --rollouts"),
        (["calibrate-success", "--success.path={reward}", "--rollouts=x"], "type 'dopamine'"),
        (["calibrate-success", "--success.path={detector}", "--rollouts=x"], "no metrics.json"),
        (
            ["calibrate-success", "--success.path={detector}", "--dataset.root={demos}"],
            "none of the 2 episodes failed",
        ),
        (["calibrate-success", "--success.path={detector}", "--target_fpr=2"], "target_fpr"),
        (["calibrate-success", "--success.path={detector}", "--unit=step"], "episode, frame"),
    ],
)
def test_mistakes_are_one_line(argv, message, demos, reward, detector, tmp_path, capsys):
    argv = [word.format(demos=demos, reward=reward, detector=detector) for word in argv]
    assert main([*argv, f"--output_dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert list(tmp_path.iterdir()) == []
