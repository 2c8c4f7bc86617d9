"""`er data convert` and `er data inspect` on other people's formats, through the entry point."""

import json
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from embodied_reward.cli import main
from embodied_reward.data import open_dataset
from embodied_reward.data.reference import match_reference

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "datasets" / "window_open_tiny"


@pytest.fixture(scope="module", autouse=True)
def foreign():
    folder = str(ROOT / "benchmarks" / "data_formats")
    sys.path.insert(0, folder)
    import foreign

    yield foreign
    sys.path.remove(folder)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_there_and_back(capsys):
    for source, output in ((TINY, "a.zarr.zip"), ("a.zarr.zip", "b.hdf5"), ("b.hdf5", "c")):
        assert main(["data", "convert", f"--input={source}", f"--output={output}"]) == 0
        out = capsys.readouterr().out
        assert f"3 episodes, 116 frames: {output}" in out
        assert "every number and every picture equals the source" in out
        assert f"er data inspect {output}" in out
    before, after = open_dataset(TINY), open_dataset("c")
    assert after.successes == before.successes
    np.testing.assert_array_equal(after[2].views["corner2"], before[2].views["corner2"])


@pytest.mark.slow
def test_a_model_is_trained_on_a_zip_of_zarr(capsys):
    assert main(["data", "convert", f"--input={TINY}", "--output=a.zarr.zip"]) == 0
    argv = ["train-reward", "--dataset.root=a.zarr.zip", "--reward_model.type=remaining_time"]
    assert main([*argv, "--steps=2", "--batch_size=4", "--output_dir=run"]) == 0
    assert (Path("run") / "model.safetensors").exists() or list(Path("run").rglob("*.safetensors"))
    argv = ["eval-reward", "--reward_model.path=run", "--dataset.root=a.zarr.zip"]
    capsys.readouterr()
    assert main(argv) == 0
    assert "remaining_time" in capsys.readouterr().out


def test_inspect_says_how_it_is_read(capsys, foreign):
    path = foreign.libero("l.hdf5", foreign.demos(widths=foreign.LIBERO), None)
    assert main(["data", "inspect", str(path)]) == 0
    out = capsys.readouterr().out
    rows = {line.split("│")[1].strip(): line for line in out.splitlines() if line.count("│") == 4}
    assert "flipped" in rows["orientation"]
    assert "assumed" in rows["orientation"]
    assert "20" in rows["fps"]
    assert "recorded" in rows["fps"]
    words = " ".join(out.split())
    assert "assumed: orientation, colour, state; check" in words
    assert "say with --layout.orientation=..." in words
    assert "LIBERO takes each picture after the action of its row" in words


def save_reference(frames):
    PIL.Image.fromarray(frames[0]).save("reference.png")
    return "--reference=reference.png"


def test_a_reference_picture_finds_what_is_upside_down(capsys, foreign):
    """robomimic's script turned pictures upright; if somebody turned them again, this shows."""
    made = foreign.demos(widths=foreign.ROBOSUITE, size=(24, 30))
    reference = save_reference(made[0].pictures["agentview"])
    for demo in made:
        demo.pictures["agentview"] = demo.pictures["agentview"][:, ::-1].copy()
    foreign.robomimic("r.hdf5", made)
    assert main(["data", "inspect", "r.hdf5", reference]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "pictures are flipped RGB relative to the reference" in out
    assert main(["data", "inspect", "r.hdf5", reference, "--layout.orientation=flipped"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "pictures lie as in the reference" in out


@pytest.mark.parametrize("orientation", ["upright", "flipped", "rotated", "mirrored"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_reference_names_every_reading(foreign, orientation, colour):
    from embodied_reward.data.formats.picture import reorient

    rng = np.random.default_rng(0)
    frames = foreign.scene(rng, 3, (40, 48))
    stored = reorient(frames, orientation)
    stored = stored[..., ::-1] if colour == "bgr" else stored
    # Another size, other noise: the same scene through another renderer.
    match = match_reference(list(stored), foreign.scene(rng, 1, (90, 100))[0])
    assert match.best == (orientation, colour)
    assert match.clear == (True, True)


def test_a_reference_that_tells_nothing():
    grey = np.full((20, 20, 3), 128, np.uint8)
    match = match_reference([grey], grey)
    assert match.clear == (False, False)
    assert "does not tell the orientations apart" in match.verdict


def test_pictures_of_our_own_environment_match_its_recording(capsys):
    """The fixture was recorded with upright frames of this camera."""
    reference = save_reference(open_dataset(TINY)[1].views["corner2"])
    assert main(["data", "inspect", str(TINY), reference, "--reference_view=corner2"]) == 0
    assert "pictures lie as in the reference" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_the_recording_matches_a_rendered_frame():
    """Another seed of the same task: the camera tells which way is up, whatever lies about."""
    from embodied_reward import envs
    from embodied_reward.data.formats.layout import Layout

    env = envs.make("metaworld/window-open-v3", views=("corner2",), size=96, seed=5)
    env.reset(seed=5)
    rendered = env.unwrapped.frames()["corner2"]
    env.close()
    for orientation in ("upright", "flipped", "rotated", "mirrored"):
        layout = Layout(orientation=orientation)
        frames = [e.views["corner2"][0] for e in open_dataset(TINY, layout=layout)]
        match = match_reference(frames, rendered)
        assert match.best == (orientation, "rgb")
        assert match.clear == (True, True)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give the dataset and its new place: --input=PATH --output=PATH"),
        (["--input=nowhere", "--output=o"], "there is no dataset at 'nowhere'"),
        ([f"--input={TINY}", f"--output={TINY}"], "already exists; choose another path"),
        ([f"--input={TINY}", "--output=o", "--format=rlds"], "bad configuration value"),
        (
            [f"--input={TINY}", "--output=o", "--layout.orientaton=x"],
            "did you mean 'layout.orientation'",
        ),
        ([f"--input={TINY}", "--output=o", "--layout.fps=5"], "no meaning for LeRobot datasets"),
        ([f"--input={TINY}", "--output=o.zarr", "--views=side"], "has no view 'side'"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(capsys, tmp_path, argv, words):
    assert main(["data", "convert", *argv]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_help_explains_every_field(capsys):
    assert main(["data", "convert", "--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  --")]
    assert len(lines) > 12
    assert all(len(line.split("  ")) > 2 for line in lines)


def test_labels_beside_a_file_are_refused(capsys, foreign):
    foreign.robomimic("r.hdf5", foreign.demos(widths=foreign.ROBOSUITE))
    assert main(["label", "--dataset.root=r.hdf5", "--reward_model.path=x"]) == 2
    assert "convert it first with 'er data convert'" in capsys.readouterr().err


def test_videos_from_a_manifest(capsys, foreign, tmp_path):
    foreign.videos(tmp_path / "v")
    (tmp_path / "v" / "manifest.json").write_text(
        json.dumps({"task": "wave", "episodes": [{"views": {"top": "top/0.mp4"}}]})
    )
    assert main(["data", "inspect", "v"]) == 0
    out = capsys.readouterr().out
    for words in ("videos", "wave", "32x48", "unknown"):
        assert words in out
