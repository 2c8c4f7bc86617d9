"""`er score --saliency`: pictures, clips and robots' clips, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from embodied_reward.cli import main
from embodied_reward.data.video import write_video
from embodied_reward.scoring.clips import read_video
from tests.cli.test_score import TEXT, clip_model, frame, images  # noqa: F401


@pytest.fixture
def clips(tmp_path):
    shades = {"front": 4, "side": 9}
    return {
        view: write_video(tmp_path / f"{view}.mp4", [frame(k * s) for k in range(9)], fps=10)
        for view, s in shades.items()
    }


@pytest.fixture
def robot(tmp_path):
    from embodied_reward.rewards import RemainingTimeConfig, RemainingTimeModel
    from embodied_reward.vision.encoders import EncoderConfig

    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=32)
    model = RemainingTimeModel.create(
        RemainingTimeConfig(views=("front", "side"), encoder=encoder, dim=16)
    )
    model.horizon.fill_(20.0)
    folder = tmp_path / "reward"
    folder.mkdir()
    model.save(folder)
    return folder


@pytest.fixture
def no_scoring(monkeypatch):
    monkeypatch.setattr("embodied_reward.scoring.ScoringCore.score", None)


def run(*argv):
    return main(["score", *map(str, argv)])


def test_pictures_by_a_two_tower_model(images, clip_model, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "looks"
    options = (f"--scorer={clip_model}", f"--text={TEXT}", f"--saliency_dir={out}")
    assert run(images, *options, "--saliency=attention") == 0
    assert sorted(f.name for f in out.iterdir()) == [f"{k}_attention.png" for k in range(3)]
    picture = np.asarray(Image.open(out / "1_attention.png"))
    assert picture.std() > 5  # the frame above, its overlay beneath
    said = capsys.readouterr().out
    assert f"saliency: {out}/0_attention.png" in said
    assert "no map" not in said


def test_a_clip_of_a_scorer_is_drawn_frame_by_frame(clips, clip_model, tmp_path):  # noqa: F811
    options = (f"--scorer={clip_model}", f"--text={TEXT}", f"--saliency_dir={tmp_path}/looks")
    assert run(clips["front"], *options, "--saliency=normgrad") == 0
    frames = list(read_video(tmp_path / "looks" / "front_normgrad.mp4"))
    assert len(frames) == 9


@pytest.mark.parametrize("more", [[], ["--saliency_regions=20"], ["--saliency_layers=body.2"]])
def test_a_robots_clips_have_a_map_per_camera(clips, robot, tmp_path, more):
    views = ",".join(f"{view}={path}" for view, path in clips.items())
    out = tmp_path / "looks"
    options = (f"--scorer={robot}", f"--view={views}", f"--saliency_dir={out}")
    assert run(*options, "--saliency=normgrad", *more) == 0
    assert sorted(f.name for f in out.iterdir()) == ["front_normgrad.mp4", "front_normgrad.png"]
    strip = np.asarray(Image.open(out / "front_normgrad.png"))
    assert strip.shape[0] == 4 * (160 + 4)  # two cameras, each with its overlays
    shown = next(read_video(out / "front_normgrad.mp4"))[0]
    assert shown.shape[1] > 1000  # two cameras beside two overlays


def test_a_blind_model_is_said_to_be_blind(clips, robot, tmp_path, capsys):
    from embodied_reward.rewards import load

    model = load(robot)
    torch.nn.init.zeros_(model.head[-1].weight)
    blind = tmp_path / "blind"
    blind.mkdir()
    model.save(blind)
    views = ",".join(f"{view}={path}" for view, path in clips.items())
    options = (f"--scorer={blind}", f"--view={views}", f"--saliency_dir={tmp_path}/looks")
    assert run(*options, "--saliency=lrp") == 0
    assert "18 of 18 pictures have no map" in capsys.readouterr().out


@pytest.mark.usefixtures("no_scoring")
def test_what_has_no_map_is_refused_before_scoring(images, clip_model, tmp_path, capsys):  # noqa: F811
    options = (f"--scorer={clip_model}", f"--text={TEXT}", f"--saliency_dir={tmp_path}/looks")
    assert run(images, *options, "--saliency=lrp") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "--saliency=lrp: " in said
    assert "take attention for a transformer" in said
    judge = tmp_path / "judge.yaml"
    judge.write_text("type: openai\nurl: http://127.0.0.1:9/v1\nmodel: none\n")
    assert run(images, f"--scorer={judge}", f"--text={TEXT}", "--saliency=normgrad") == 2
    assert "in one piece: no trunk" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--saliency=gradcam"], "no saliency method 'gradcam'"),
        (["--saliency=attention"], "for vision transformers"),
        (["--saliency=normgrad", "--saliency_layers=body.2x"], "no layer 'body.2x'; it has body"),
        (["--saliency=lrp", "--saliency_layers=body.2"], "--saliency_layers is for normgrad"),
        (["--saliency_layers=body.2"], "need --saliency=METHOD"),
        (["--saliency=lrp", "--saliency_regions=-1"], "--saliency_regions"),
        (["--saliency=normgrad", "--scorer=http://127.0.0.1:1"], "no server gives"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(clips, robot, tmp_path, capsys, options, message):
    views = ",".join(f"{view}={path}" for view, path in clips.items())
    out = tmp_path / "looks"
    assert run(f"--scorer={robot}", f"--view={views}", f"--saliency_dir={out}", *options) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert message in said
    assert said.startswith("er score: ")
    assert not out.exists()
