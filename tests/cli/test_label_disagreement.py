"""`--strategy=disagreement` with a trained ensemble: what it disputes most is asked first."""

import json

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.rewards import load


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("disputed") / "demos"
    rng = np.random.default_rng(0)
    with EpisodeRecorder(root, fps=10, robot_type="r") as recorder:
        for _ in range(6):
            for t in range(8):
                picture = rng.integers(0, 256, (32, 32, 3), np.uint8)
                recorder.add(
                    {
                        "action": np.zeros(1),
                        "progress": np.float32(t / 7),
                        "next.success": t >= 6,
                        "observation.images.top": picture,
                    }
                )
            recorder.save_episode("open the drawer")
        recorder.finish()
    return root


def train(root, out, kind, *more):
    argv = [f"--dataset.root={root}", f"--reward_model.type={kind}", f"--output_dir={out}"]
    assert main(["train-reward", *argv, "--steps=2", *more]) == 0


@pytest.mark.slow
def test_the_most_disputed_pairs_come_first(demos, tmp_path, capsys):
    train(demos, tmp_path / "model", "ensemble", "--reward_model.count=2",
          "--reward_model.member.type=remaining_time")  # fmt: skip
    out = tmp_path / "p.jsonl"
    argv = [f"--dataset.root={demos}", f"--output={out}", "--oracle", "--count=15"]
    argv += ["--strategy=disagreement", f"--reward_model.path={tmp_path / 'model'}"]
    assert main(["label-preferences", *argv]) == 0
    model = load(tmp_path / "model")
    finals = [
        np.array([m.score_episode(e).potential[-1] for m in model.members])
        for e in open_dataset(demos)
    ]
    rows = [json.loads(line)["episodes"] for line in out.read_text().splitlines()]
    doubts = [np.std(finals[i] - finals[j]) for i, j in rows]
    assert len(doubts) == 15
    assert max(doubts) > 0
    assert doubts == sorted(doubts, reverse=True)


def test_a_single_model_is_refused(demos, tmp_path, capsys):
    train(demos, tmp_path / "model", "remaining_time")
    capsys.readouterr()
    argv = [f"--dataset.root={demos}", f"--output={tmp_path / 'p.jsonl'}"]
    argv += ["--strategy=disagreement", f"--reward_model.path={tmp_path / 'model'}"]
    assert main(["label-preferences", *argv]) == 2
    assert "needs an ensemble of models of progress" in capsys.readouterr().err
    assert not (tmp_path / "p.jsonl").exists()
