"""`er train-reward --reward_model.type=perceptual` and what follows it, on real files."""

import base64
import io
import json
import re

import numpy as np
import PIL.Image
import pytest

from embodied_reward import cli
from embodied_reward.data import open_dataset
from embodied_reward.data.video import write_video
from embodied_reward.rewards import load
from tests.cli.test_train_reward import FIXTURE

HANDS = 3


def er(*arguments):
    return cli.main(list(arguments))


def fit(folder, *extra, root=FIXTURE):
    return er(
        "train-reward",
        "--reward_model.type=perceptual",
        f"--dataset.root={root}",
        f"--output_dir={folder}",
        *extra,
    )


def hand_video(seed, size=(96, 128)):
    """A hand comes from the left, takes a cup, carries it up and away, at a pace of its own."""
    rng = np.random.default_rng(seed)
    h, w = size
    reach, lift, carry = (int(n) for n in rng.integers(9, 16, 3))
    rows = np.r_[np.full(reach, 70), np.linspace(70, 25, lift), np.full(carry, 25)]
    columns = np.r_[np.linspace(0, 55, reach), np.full(lift, 55), np.linspace(55, 100, carry)]
    cup = np.r_[np.full((reach, 2), (74, 62)), np.c_[rows[reach:] + 4, columns[reach:] + 7]]
    frames = np.full((len(rows), h, w, 3), (150, 120, 90), np.uint8)
    for frame, y, x, (cy, cx) in zip(frames, rows, columns, cup, strict=True):
        frame[int(cy) : int(cy) + 16, int(cx) : int(cx) + 12] = (40, 60, 200)
        frame[int(y) : int(y) + 14, : int(x) + 12] = (235, 190, 160)
        frame += rng.integers(0, 6, frame.shape).astype(np.uint8)
    return frames


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos") / "lift_the_cup"
    for k in range(HANDS):
        write_video(root / f"{k}.mp4", hand_video(k), 10.0)
    return root


@pytest.fixture(scope="module")
def run(hands, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "hands"
    assert fit(folder, root=hands) == 0
    return folder


def message(capsys):
    error = capsys.readouterr().err.strip()
    assert error.startswith("er train-reward: ")
    assert "\n" not in error
    return error


def test_videos_of_hands_give_a_reward_that_rises_in_a_new_video(run, hands, tmp_path, capsys):
    model = load(run)
    assert model.card.views == ("video",)
    assert 2 <= model.steps <= 6
    clip = write_video(tmp_path / "new.mp4", hand_video(50), 10.0)
    backwards = write_video(tmp_path / "back.mp4", hand_video(50)[::-1], 10.0)
    orders = []
    for path in (clip, backwards):
        output = tmp_path / f"{path.stem}.jsonl"
        assert er("score", str(path), f"--scorer={run}", f"--output={output}") == 0
        scores = [json.loads(line)["score"] for line in output.read_text().splitlines()]
        orders.append(np.corrcoef(np.argsort(np.argsort(scores)), np.arange(len(scores)))[0, 1])
    assert orders[0] > 0.8
    assert orders[1] < -0.8


def test_a_report_about_hands_says_what_is_known_of_a_film(run, hands, tmp_path, capsys):
    page = tmp_path / "report.html"
    quick = ["--resamples=10", "--probe_episodes=1", "--probe_budget=2"]
    assert er("report", str(run), f"--output={page}", *quick) == 0
    said = capsys.readouterr().out
    assert "report: " in said
    text = page.read_text(encoding="utf-8")
    assert "perceptual" in text
    assert "The run's 3 training episodes; it held none out." in text
    document = json.loads(re.search(r'<script id="document"[^>]*>(.*?)</script>', text, re.S)[1])
    picture = document["steps"].removeprefix("data:image/webp;base64,")
    with PIL.Image.open(io.BytesIO(base64.b64decode(picture))) as shown:
        with PIL.Image.open(run / "steps.png") as sheet:
            ratio = sheet.width / sheet.height
        assert shown.width / shown.height == pytest.approx(ratio, rel=0.01)
        assert np.asarray(shown.convert("RGB")).std() > 10


def test_films_of_a_large_camera_are_reduced_and_give_a_reward(tmp_path):
    """Sixteen times the pixels: 384x512 are read at 192x256."""
    root = tmp_path / "films"
    for k in range(2):
        large = hand_video(k).repeat(4, axis=1).repeat(4, axis=2)
        write_video(root / f"{k}.mp4", large, 10.0)
    run = tmp_path / "run"
    assert fit(run, "--reward_model.steps=3", root=root) == 0
    potential = load(run).score_episode(open_dataset(root)[0]).potential
    assert np.corrcoef(potential, np.arange(len(potential)))[0, 1] > 0.8


def test_the_run_folder_is_that_of_a_training_with_pictures_of_the_steps(run):
    names = {p.name for p in run.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "checkpoints", "steps.png", "steps.json"}
    for link in ("best", "last"):
        assert (run / "checkpoints" / link / "manifest.json").is_file()
    (row,) = [json.loads(r) for r in (run / "metrics.jsonl").read_text().splitlines()]
    model = load(run)
    assert row["fit/steps"] == model.steps
    assert {f"fit/order_{n}" for n in range(2, 7)} <= set(row)
    steps = json.loads((run / "steps.json").read_text())
    assert len(steps) == HANDS
    for found in steps:
        assert len(found["first_rows"]) == model.steps
        assert found["first_rows"][0] == 0
        assert all(
            a < b for a, b in zip(found["first_rows"], found["first_rows"][1:], strict=False)
        )
    with PIL.Image.open(run / "steps.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.std() > 10
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500


def test_a_robot_dataset_from_fit_to_evaluation(tmp_path, capsys):
    run = tmp_path / "run"
    assert fit(run, "--reward_model.steps=3", "--seed=3") == 0
    output = capsys.readouterr().out
    assert "fitted without gradient steps" in output
    assert f"3 steps: {run / 'steps.png'}" in output
    assert "er eval-reward --reward_model.path=" in output
    out = tmp_path / "eval"
    done = er(
        "eval-reward", f"--reward_model.path={run}", f"--dataset.root={FIXTURE}",
        f"--output_dir={out}", "--videos=1", "--robustness=1", "--resamples=5",
    )  # fmt: skip
    assert done == 0
    report = json.loads((out / "metrics.json").read_text())
    assert report["reward_model"]["extra"]["steps"] == 3
    assert report["metrics"]["spearman"]["value"] > 0.5
    assert report["metrics"]["success_auc"]["value"] is None


def test_same_command_same_numbers_and_a_finished_run_is_left_alone(tmp_path, capsys):
    for name in ("a", "b"):
        assert fit(tmp_path / name, "--reward_model.steps=2") == 0
    one, two = (tmp_path / n / "checkpoints" / "best" for n in ("a", "b"))
    weights = "pretrained_model/model.safetensors"
    assert (one / weights).read_bytes() == (two / weights).read_bytes()
    before = (one / "manifest.json").stat().st_mtime_ns
    capsys.readouterr()
    assert er("train-reward", f"--output_dir={tmp_path / 'a'}", "--resume=true") == 0
    assert "fitted already" in capsys.readouterr().out
    assert (one / "manifest.json").stat().st_mtime_ns == before


def test_every_demonstration_is_fitted_to_unless_asked(tmp_path, capsys):
    assert fit(tmp_path / "all", "--reward_model.steps=2") == 0
    assert "3 training and 0 validation" in capsys.readouterr().out
    assert fit(tmp_path / "held", "--reward_model.steps=2", "--val_fraction=0.3") == 0
    assert "2 training and 1 validation" in capsys.readouterr().out
    rows = (tmp_path / "held" / "metrics.jsonl").read_text()
    assert "val/spearman" in rows


def test_a_fitted_model_is_fitted_again_to_other_demonstrations(run, hands, tmp_path):
    again = tmp_path / "again"
    done = er(
        "train-reward", f"--reward_model.path={run}", f"--dataset.root={hands}", "--episodes=0",
        f"--output_dir={again}",
    )  # fmt: skip
    assert done == 0
    assert len(json.loads((again / "steps.json").read_text())) == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--reward_model.steps=40"], "too few for 40 steps"),
        (["--reward_model.steps=1"], "two steps at least"),
        (["--reward_model.views=wrist"], "'wrist'"),
        (["--dataset.episodes=0"], "none of the 1 training episodes is successful"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_checkpoint(tmp_path, capsys, arguments, text):
    assert fit(tmp_path / "run", *arguments) == 2
    assert text in message(capsys)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_video_of_one_frame_is_named(tmp_path, capsys):
    write_video(tmp_path / "v" / "short.mp4", hand_video(0)[:1], 10.0)
    assert fit(tmp_path / "run", root=tmp_path / "v") == 2
    assert "#0 has 1 frame, too few for 2 steps" in message(capsys)
