"""`er train-reward --preferences=...`, from recorded episodes to a checkpoint, and its refusals."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.rewards import load

FINALS = (1.0, 0.2, 0.7, 0.4, 1.0, 0.1, 0.9, 0.55)
QUICK = [
    "--steps=4",
    "--batch_size=8",
    "--val_freq=2",
    "--log_freq=1",
    "--val_fraction=0.25",
    "--reward_model.encoder.image_size=32",
    "--reward_model.frames=4",
    "--reward_model.dim=16",
    "--seed=3",
]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A square travels to the right; episode k gets `FINALS[k]` of the way."""
    root = tmp_path_factory.mktemp("preferred") / "demos"
    with EpisodeRecorder(root, fps=10, robot_type="r") as recorder:
        for k, final in enumerate(FINALS):
            for t in range(6):
                at = int(2 + 24 * final * t / 5)
                picture = np.full((32, 32, 3), 40, np.uint8)
                picture[4 + k : 10 + k, at : at + 6] = (250, 90, 0)
                recorder.add(
                    {
                        "action": np.zeros(1),
                        "progress": np.float32(final * t / 5),
                        "next.success": final == 1.0 and t >= 4,
                        "observation.images.top": picture,
                    }
                )
            recorder.save_episode("push the square")
        recorder.finish()
    return root


@pytest.fixture(scope="module")
def answers(demos):
    """What the oracle says about every pair."""
    path = demos.parent / "answers.jsonl"
    argv = [f"--dataset.root={demos}", f"--output={path}", "--oracle", "--count=28"]
    assert main(["label-preferences", *argv]) == 0
    return path


def train(root, run, kind, *more):
    argv = [f"--dataset.root={root}", f"--reward_model.type={kind}", f"--output_dir={run}"]
    return main(["train-reward", *argv, *QUICK, *more])


@pytest.mark.parametrize("kind", ["rapl", "rlhf"])
def test_a_run_reports_held_out_accuracy_and_loads(demos, answers, tmp_path, kind, capsys):
    run = tmp_path / "run"
    assert train(demos, run, kind, f"--preferences={answers}") == 0
    assert "er eval-reward --reward_model.path=" in capsys.readouterr().out
    rows = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "val/accuracy" in r] == [2, 4]
    assert all(0 <= r["train/accuracy"] <= 1 for r in rows if "train/accuracy" in r)
    assert list((run / "tensorboard").glob("events*"))
    model = load(run)
    assert (model.card.type, model.card.task) == (kind, "push the square")
    returns = [model.episode_return(e) for e in open_dataset(demos)]
    assert np.isfinite(returns).all()
    assert "preferences: " in (run / "config.yaml").read_text()
    assert main(["eval-reward", f"--reward_model.path={run}", f"--dataset.root={demos}",
                 f"--output_dir={tmp_path / 'eval'}", "--videos=0", "--robustness=0",
                 "--resamples=0"]) == 0  # fmt: skip


def test_same_command_same_numbers_and_resume_goes_on(demos, answers, tmp_path):
    for name in ("a", "b"):
        assert train(demos, tmp_path / name, "rapl", f"--preferences={answers}") == 0
    one, two = ((tmp_path / n / "metrics.jsonl").read_bytes() for n in ("a", "b"))
    assert one == two
    argv = [f"--output_dir={tmp_path / 'a'}", "--resume=true", "--steps=6"]
    assert main(["train-reward", *argv]) == 0
    longer = load(tmp_path / "a" / "checkpoints" / "last").state_dict()
    shorter = load(tmp_path / "b" / "checkpoints" / "last").state_dict()
    assert not torch.equal(longer["projection.weight"], shorter["projection.weight"])
    assert torch.equal(longer["reference_frame"], shorter["reference_frame"])


def test_a_resumed_run_learns_from_the_answers_it_began_with(demos, answers, tmp_path):
    journal = tmp_path / "answers.jsonl"
    journal.write_bytes(answers.read_bytes())
    for name in ("whole", "cut"):
        assert (
            train(demos, tmp_path / name, "rapl", f"--preferences={journal}", "--save_freq=2") == 0
        )
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "00000004")
    with journal.open("a") as file:
        file.write('{"type": "pair", "episodes": [0, 1], "preferred": null}\n' * 50)
    argv = [f"--output_dir={tmp_path / 'cut'}", "--resume=true"]
    assert main(["train-reward", *argv]) == 0
    whole, cut = (
        load(tmp_path / n / "checkpoints" / "last").state_dict() for n in ("whole", "cut")
    )
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_preferences_imply_their_own_batch_size(demos, answers, tmp_path):
    few = [a for a in QUICK if "batch_size" not in a]
    argv = [f"--dataset.root={demos}", "--reward_model.type=rlhf", f"--preferences={answers}"]
    assert main(["train-reward", *argv, *few, f"--output_dir={tmp_path / 'run'}"]) == 0
    assert "batch_size: 64" in (tmp_path / "run" / "config.yaml").read_text()


def test_transport_without_alignment_needs_no_preferences(demos, tmp_path):
    run = tmp_path / "run"
    assert train(demos, run, "rapl", "--steps=0") == 0
    model = load(run)
    finals = [FINALS[i] for i in model.reference_index.tolist()]
    assert set(finals) == {1.0}
    assert np.isfinite(model.episode_return(open_dataset(demos)[1]))


def test_several_datasets_are_labelled_and_trained_as_one(demos, tmp_path):
    both, path = f"{demos},{demos}", tmp_path / "both.jsonl"
    argv = [f"--dataset.root={both}", f"--output={path}", "--oracle", "--count=40"]
    assert main(["label-preferences", *argv]) == 0
    rows = [json.loads(line)["episodes"] for line in path.read_text().splitlines()]
    assert max(max(row) for row in rows) > 7
    assert train(both, tmp_path / "run", "rapl", f"--preferences={path}") == 0


def row(**fields):
    return json.dumps({"type": "pair", "episodes": [0, 1], "preferred": 0, **fields})


@pytest.mark.parametrize(
    ("kind", "lines", "text"),
    [
        ("rapl", [], "holds no preference; compare episodes with `er label-preferences`"),
        ("rapl", [row(), row(episodes=[0, 99])], "line 2 names episode 99, which the dataset"),
        ("rlhf", [row(preferred=None)] * 30, "training episodes are ties"),
        (
            "rapl",
            [row(dataset="data/other")],
            "no preference about '.*demos', but about 'data/other'; open the dataset",
        ),
        ("tcc", [row()], "type=tcc does not learn from preferences"),
        (
            "rlhf",
            ['{"type": "triplet", "anchor": 0, "closer": 1, "farther": 2}'],
            "'rlhf' does not read these preferences.*--mode=pair",
        ),
    ],
)
def test_bad_preferences_are_one_line_and_leave_nothing(demos, tmp_path, capsys, kind, lines, text):
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    assert train(demos, tmp_path / "run", kind, f"--preferences={path}") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("er train-reward: ")
    assert "\n" not in error
    assert re.search(text, error), error
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_preferences_are_asked_for(demos, tmp_path, capsys):
    assert train(demos, tmp_path / "run", "rapl") == 2
    error = capsys.readouterr().err
    assert "give --preferences=FILE" in error
    assert "--steps=0 for transport without alignment" in error


def test_what_an_ensemble_of_preference_models_disputes_is_asked_first(demos, answers, tmp_path):
    more = ["--reward_model.member.type=rlhf", "--reward_model.count=2",
            "--reward_model.bootstrap=false", "--reward_model.member.encoder.image_size=32",
            f"--preferences={answers}", "--steps=2"]  # fmt: skip
    argv = [f"--dataset.root={demos}", "--reward_model.type=ensemble", *more]
    assert main(["train-reward", *argv, f"--output_dir={tmp_path / 'run'}"]) == 0
    out = tmp_path / "disputed.jsonl"
    argv = [f"--dataset.root={demos}", f"--output={out}", "--oracle", "--count=10"]
    argv += ["--strategy=disagreement", f"--reward_model.path={tmp_path / 'run'}"]
    assert main(["label-preferences", *argv]) == 0
    worth = np.array(
        [[m.episode_return(e) for m in load(tmp_path / "run").members] for e in open_dataset(demos)]
    )
    worth /= worth.std(0)
    asked = [json.loads(line)["episodes"] for line in out.read_text().splitlines()]
    doubts = [np.std(worth[i] - worth[j]) for i, j in asked]
    assert doubts == sorted(doubts, reverse=True)
    assert max(doubts) > 0
