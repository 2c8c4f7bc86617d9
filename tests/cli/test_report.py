"""`er report` end to end, on a model that was trained for seconds."""

import json

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.cli.report import ReportConfig, with_path
from embodied_reward.cli.report_evidence import success_threshold
from embodied_reward.data import EpisodeRecorder

FAST = ["--resamples=20", "--probe_budget=4", "--probe_episodes=2"]


def record(root, outcomes):
    with EpisodeRecorder(root, fps=10, robot_type="toy") as recorder:
        for index, success in enumerate(outcomes):
            path = np.linspace(0, 1, 24 + index)
            for t, y in enumerate(path if success else np.minimum(path, 1 - path)):
                picture = np.full((24, 24, 3), 30, np.uint8)
                picture[9:15, int(y * 18) : int(y * 18) + 6] = (250, 200, 40)
                recorder.add(
                    {
                        "observation.images.front": picture,
                        "observation.images.wrist": picture[::-1].copy(),
                        "observation.state": np.zeros(2, np.float32),
                        "action": np.zeros(2, np.float32),
                        "next.reward": 0.0,
                        "next.done": t == len(path) - 1,
                        "next.success": success and t >= len(path) - 4,
                        "progress": np.float32(y),
                    }
                )
            recorder.save_episode("cross the table")
        return recorder.finish()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    return record(root / "demos", [True] * 4), record(root / "unseen", [True, False, True, False])


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("runs") / "reward"
    argv = [f"--dataset.root={data[0]}", f"--output_dir={out}", "--preset=smoke", "--threads=1"]
    assert main(["train-reward", *argv, "--reward_model.encoder.image_size=32"]) == 0
    return out


def read(path):
    html = path.read_text(encoding="utf-8")
    start = html.index('type="application/json">') + len('type="application/json">')
    return json.loads(html[start : html.index("</script>", start)])


@pytest.mark.slow
def test_a_run_alone_is_enough_and_the_page_says_which_episodes(run, capsys):
    assert main(["report", str(run), *FAST]) == 0
    printed = capsys.readouterr().out
    assert f"report: {run / 'report.html'}" in printed
    document = read(run / "report.html")
    assert document["headline"]["episodes"] == "The run's validation split: 1 of 4 episodes."
    assert "chosen" in document["headline"]["caution"]
    assert document["headline"]["command"].startswith(f"er report --reward_model.path={run}")
    assert document["training"]
    undefined = {r["key"]: r["cells"][0] for r in document["metrics"]["rows"]}["success_auc"]
    assert undefined["value"] is None
    assert undefined["reason"]


def test_unseen_episodes_are_called_unseen_and_a_checkpoint_will_do(run, data, tmp_path):
    out = tmp_path / "page.html"
    model = run / "checkpoints" / "last" / "pretrained_model"
    argv = [f"--reward_model.path={model}", f"--dataset.root={data[1]}", f"--output={out}", *FAST]
    assert main(["report", *argv]) == 0
    first = read(out)
    assert first["headline"]["episodes"].startswith("4 unseen episodes")
    assert first["headline"]["caution"] == ""
    assert len(first["probes"]) == 11
    assert {r["name"]: r["verdict"] for r in first["probes"]}["hovering"] != "undefined"
    assert main(["report", *argv]) == 0
    assert read(out) == first


def test_training_episodes_are_called_so(run, data, tmp_path):
    out = tmp_path / "page.html"
    assert main(["report", str(run), f"--dataset.root={data[0]}", f"--output={out}", *FAST]) == 0
    assert "training episodes included" in read(out)["headline"]["caution"]


def test_a_policy_run_gives_learning_curves(tmp_path):
    (tmp_path / "config.yaml").write_text("policy: {type: sac}\nenv: {id: toy}\nseed: 3\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval/success_rate": 0.5}\n')
    assert main(["report", str(tmp_path)]) == 0
    document = read(tmp_path / "report.html")
    assert document["kind"] == "policy"
    assert document["headline"]["facts"]["algorithm"] == "sac"
    assert document["training"][0]["points"] == [[0, 0.5]]


@pytest.mark.parametrize("argv", [[], ["--shown=3"]])
def test_no_model_is_one_clear_line(argv, capsys):
    assert main(["report", *argv]) == 2
    assert "give the model: `er report RUN`" in capsys.readouterr().err


def test_a_folder_without_a_model_leaves_nothing_behind(tmp_path, capsys):
    assert main(["report", str(tmp_path / "nothing")]) == 2
    assert "no reward model at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_first_word_is_the_model():
    assert with_path(["RUN", "--seed=1"]) == ["--reward_model.path=RUN", "--seed=1"]
    assert with_path(["--seed=1"]) == ["--seed=1"]


class Model:
    def __init__(self, extra):
        self.card = type("C", (), {"extra": extra})


@pytest.mark.parametrize(
    ("given", "extra", "expected"),
    [
        (None, {}, 0.5),
        (None, {"calibration": None}, 0.5),
        (None, {"calibration": {"threshold": 0.83}}, 0.83),
        (0.7, {"calibration": {"threshold": 0.83}}, 0.7),
    ],
)
def test_the_threshold_is_what_was_asked_for_else_the_models_own(given, extra, expected):
    config = ReportConfig(success_threshold=given)
    assert success_threshold(config, Model(extra)) == expected
