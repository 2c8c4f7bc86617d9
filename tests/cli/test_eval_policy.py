"""`er eval-policy` on a policy that `er train-policy` wrote."""

import json

import av
import numpy as np
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.rewards import DopamineConfig, DopamineModel

ENV = ("--env.id=metaworld/faucet-open-v3", "--env.action_repeat=8")


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("demos") / "faucet"
    more = ("--env.horizon=30", "--episodes=1", "--views=corner2", "--size=24")
    assert main(["collect", *ENV, *more, f"--output_dir={root}"]) == 0
    return root


@pytest.fixture(scope="module")
def policy(demos, tmp_path_factory):
    """A clone of one demonstration: RL is never reached."""
    root = tmp_path_factory.mktemp("policy") / "run"
    more = ("--env.horizon=12", "--reward.mode=success", "--policy.net_arch=32,32", "--threads=1")
    argv = [*ENV, *more, f"--dataset.root={demos}", "--steps=1", "--eval.n_episodes=1"]
    assert main(["train-policy", *argv, f"--output_dir={root}"]) == 0
    return root


def evaluate(policy, root, *more):
    return main(["eval-policy", f"--policy.path={policy}", f"--output_dir={root}", *more])


def frames_of(path):
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]


def test_success_interval_and_videos(policy, tmp_path, capsys):
    root = tmp_path / "out"
    more = ("--episodes=3", "--videos=2", "--views=corner2,gripperPOV", "--size=32")
    assert evaluate(policy, root, *more) == 0
    out = capsys.readouterr().out
    report = json.loads((root / "metrics.json").read_text())
    assert report["episodes"] == len(report["success"]) == 3
    assert f"{sum(report['success'])} of 3 succeeded" in out
    assert report["eval/success_low"] <= report["eval/success_rate"] <= report["eval/success_high"]
    # The environment is the policy's own: its horizon and action repeat hold.
    assert report["config"]["env"]["horizon"] == 12
    assert report["config"]["env"]["action_repeat"] == 8
    assert report["seeds"] == [20_000, 20_001, 20_002]
    videos = sorted((root / "videos").glob("*.mp4"))
    assert [v.name[:11] for v in videos] == ["episode_000", "episode_001"]
    frames = frames_of(videos[0])
    assert len(frames) == report["lengths"][0] + 1
    height, width = frames[0].shape[:2]
    assert width == 512  # two views of 256 pixels side by side, the curves below
    assert height > 300
    assert np.abs(frames[0][:256].astype(int) - frames[-1][:256]).mean() > 1  # the arm moved


def test_evaluation_is_reproducible_and_explicit_settings_win(policy, tmp_path):
    reports = []
    file = tmp_path / "short.yaml"
    file.write_text("env: {id: metaworld/faucet-open-v3, horizon: 4}")
    cases = {
        "a": (),
        "b": (),
        "c": ("--env.horizon=3",),
        "d": (f"--config_path={file}",),
        "e": ("--preset=thorough",),
    }
    for name, more in cases.items():
        assert evaluate(policy, tmp_path / name, "--episodes=2", "--videos=0", *more) == 0
        report = json.loads((tmp_path / name / "metrics.json").read_text())
        reports.append({k: report[k] for k in ("success", "lengths", "seeds")})
    assert reports[0] == reports[1]
    assert reports[2]["lengths"] == [3, 3]
    assert reports[3]["lengths"] == [4, 4]
    assert reports[4] == reports[0]  # a preset without an environment keeps the policy's own


def test_a_reward_model_draws_its_curves(policy, demos, tmp_path):
    torch.manual_seed(0)
    model = DopamineModel.create(DopamineConfig(views=("corner2",)))
    model.set_references(model.dataset(list(open_dataset(demos))))
    folder = tmp_path / "pretrained_model"
    folder.mkdir()
    model.save(folder)
    pictures = {}
    for name, more in (("with", (f"--reward.path={folder}",)), ("without", ("--size=64",))):
        more = ("--episodes=1", "--videos=1", "--views=corner2", *more)
        assert evaluate(policy, tmp_path / name, *more) == 0
        pictures[name] = frames_of(next((tmp_path / name / "videos").iterdir()))[-1]
    plot = {name: picture[256:].astype(int) for name, picture in pictures.items()}
    blue = {n: (p[..., 2] - p[..., 0] > 60).sum() for n, p in plot.items()}
    assert blue["with"] > blue["without"] + 50  # the potential's line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--policy.path=RUN"),
        (["--policy.path=nowhere"], "no policy at 'nowhere'"),
        (["--policy.path={policy}", "--env.id=metaworld/faucet"], "metaworld/faucet-"),
        (["--policy.path={policy}", "--episodes=0"], "at least one episode"),
        (["--policy.path={policy}", "--episode=1"], "did you mean 'episodes'"),
        (["--policy.path={policy}", "--reward.path=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(more, message, policy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    argv = [token.format(policy=policy) for token in more]
    assert main(["eval-policy", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))
