"""`er train-policy --decorrelation.type=...` in environments that vary, with the real simulator."""

import json
import shutil

import numpy as np
import pytest

from embodied_reward.cli import main

ENV = ("--env.id=embodied_reward/TableReach-v0", "--env.horizon=12")
VARIED = ("--env.variation.actuator=1", "--env.variation.variants=2")
SMALL = (
    "--policy.net_arch=16,16",
    "--policy.batch_size=16",
    "--policy.bc_steps=10",
    "--policy.gradient_steps=1",
    "--policy.learning_starts=10",
    "--policy.actor_starts=15",
    "--decorrelation.warmup=3",
    "--decorrelation.steps=2",
    "--decorrelation.memory=64",
    "--reward.mode=success",  # replays the demonstrations, which the dense reward does not
    "--eval.freq=60",
    "--eval.n_episodes=1",
    "--threads=1",
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Two demonstrations in each of two variants of the world, a folder per variant."""
    root = tmp_path_factory.mktemp("variants")
    for variant in (0, 1):
        more = ("--env.horizon=40", "--episodes=2", "--views=side", "--size=16", VARIED[0])
        argv = [ENV[0], *more, f"--env.variation.variant={variant}"]
        assert main(["collect", *argv, f"--output_dir={root / str(variant)}"]) == 0
    return f"{root / '0'},{root / '1'}"


def train(root, *more, steps=120):
    return main(["train-policy", *ENV, *SMALL, f"--output_dir={root}", f"--steps={steps}", *more])


def metrics(root):
    return [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]


def logged(root, name):
    """Return the values of a number of the training's, which has a row every four episodes."""
    key = f"train/{name}"
    return [row[key] for row in metrics(root) if key in row]


def weighed(root, step):
    """Return how many times the weights of a checkpoint were computed; 3 are the uniform start."""
    folder = root / "checkpoints" / f"{step:08d}" / "training_state"
    return json.loads((folder / "decorrelation.json").read_text())["calls"]


@pytest.mark.parametrize("kind", ["sgfd", pytest.param("stablenet", marks=pytest.mark.slow)])
def test_varied_worlds_and_their_demonstrations_are_weighed_and_resumed(kind, demos, tmp_path):
    more = (f"--decorrelation.type={kind}", *VARIED, f"--dataset.root={demos}")
    assert train(tmp_path / "whole", *more) == 0
    ess = np.array(logged(tmp_path / "whole", "decorrelation_ess"))
    assert len(ess) > 1
    assert ((ess > 0.3 - 1e-6) & (ess <= 1)).all()
    assert ess[-1] < 1  # at first SGFD's classifier cannot tell the variants apart
    # A run that was cut off goes on with its memory and classifier, in other scenes.
    shutil.copytree(tmp_path / "whole", tmp_path / "cut", symlinks=True)
    for name in ("last", "best"):
        (tmp_path / "cut" / "checkpoints" / name).unlink(missing_ok=True)
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "00000120")
    assert main(["train-policy", f"--output_dir={tmp_path / 'cut'}", "--resume=true"]) == 0
    assert weighed(tmp_path / "cut", 60) == weighed(tmp_path / "whole", 60) > 0
    assert weighed(tmp_path / "cut", 120) == weighed(tmp_path / "whole", 120)
    assert min(logged(tmp_path / "cut", "decorrelation_ess")) > 0.3 - 1e-6


@pytest.mark.slow
def test_weights_change_what_is_learned_and_their_absence_changes_nothing(demos, tmp_path):
    given = (*VARIED, f"--dataset.root={demos}")
    plain = [option for option in SMALL if "decorrelation" not in option]
    argv = ["train-policy", *ENV, *plain, *given, "--steps=120"]
    assert main([*argv, f"--output_dir={tmp_path / 'plain'}"]) == 0
    assert train(tmp_path / "off", *given) == 0
    assert train(tmp_path / "on", *given, "--decorrelation.type=stablenet") == 0
    losses = {n: logged(tmp_path / n, "critic_loss") for n in ("plain", "off", "on")}
    assert losses["plain"] == losses["off"] != losses["on"]


def test_a_policy_of_varied_worlds_is_judged_in_worlds_that_were_held_out(demos, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(run, "--decorrelation.type=sgfd", *VARIED, steps=30) == 0
    out = f"--output_dir={tmp_path / 'judged'}"
    argv = [f"--policy.path={run}", "--episodes=1", "--videos=0", "--env.variation.split=test", out]
    assert main(["eval-policy", *argv]) == 0
    env = json.loads((tmp_path / "judged" / "metrics.json").read_text())["config"]["env"]
    assert env["variation"]["split"] == "test"
    assert env["variation"]["actuator"] == 1
    assert "0 of 1 succeeded" in capsys.readouterr().out


def test_an_unknown_number_of_variants_is_one_line(tmp_path, capsys):
    assert train(tmp_path / "run", "--decorrelation.type=sgfd", VARIED[0]) == 2
    error = capsys.readouterr().err
    assert "set --env.variation.variants=N" in error
    assert error.count("\n") == 1
