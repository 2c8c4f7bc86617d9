"""`er guard-scorer` on pictures of a simulator, and the scorer that it writes."""

import json

import numpy as np
import PIL.Image
import pytest

from embodied_reward import cli
from embodied_reward.envs import make
from embodied_reward.scoring import ScoreRequest, ScoringCore
from embodied_reward.scoring.sources import open_scorer
from embodied_reward.vision.corruptions import tear
from tests.scoring.heads.shapes import write, write_lines


def run(*arguments):
    return cli.main(["guard-scorer", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pairs of pictures of a peg, the better nearer to the hole, and a scorer trained on them."""
    folder = tmp_path_factory.mktemp("guard")
    env = make("trap/insert", views=("front",), size=64)
    rng = np.random.default_rng(0)
    lines = []
    for i in range(60):
        names = []
        for j, far in enumerate(sorted(rng.uniform(0, 0.9, 2), reverse=True)):
            env.reset(options={"place": (far, rng.uniform(-0.1, 0.1))})
            names.append(write(folder, f"{i}_{j}.png", env.frames()["front"]))
        lines.append({"prompt": "insert", "chosen": names[0], "rejected": names[1]})
    env.close()
    file = write_lines(folder / "prefs.jsonl", lines)
    options = ["--steps=20", "--batch_size=16", "--threads=1", "--val_freq=1000"]
    assert (
        cli.main(["train-scorer", f"--data={file}", f"--output_dir={folder / 's'}", *options]) == 0
    )
    return folder


def options(data, folder, *more):
    return [
        f"--scorer={data / 's'}",
        f"--data={data / 'prefs.jsonl'}",
        f"--output_dir={folder}",
        *more,
    ]


def shares(output):
    """Return the printed shares of corruptions that pay, before and after."""
    line = next(row for row in output.splitlines() if "corruption pays" in row)
    return [int(word.split("%")[0]) / 100 for word in line.split() if "%" in word]


def test_a_guarded_scorer_pays_for_fewer_corruptions_and_is_the_base_less_its_penalty(
    data, tmp_path, capsys
):
    assert run(*options(data, tmp_path / "g", "--share=0.85")) == 0
    output = capsys.readouterr().out
    before, after = shares(output)
    assert after <= 0.15 < before
    assert float(output.split("AUC ")[1].split()[0]) > 0.6
    assert f"er score PICTURES --scorer={tmp_path / 'g'}" in output
    weight = json.loads((tmp_path / "g" / "config.json").read_text())["weight"]
    files = sorted(data.glob("*.png"))[:10]
    frames = np.stack([np.asarray(PIL.Image.open(f)) for f in files])
    with ScoringCore() as core:
        for source in (tmp_path / "g", data / "s"):
            core.register(open_scorer(source))
        replies = core.score(ScoreRequest(scorers=core.names, frames=frames))
        assert core.stats()["trunk_images"] == len(frames)
    guarded, base = replies["g"], next(v for k, v in replies.items() if k != "g")
    np.testing.assert_allclose(guarded.dims[:, 0], base.score, rtol=1e-5)
    np.testing.assert_allclose(guarded.score, base.score - weight * guarded.dims[:, 1], rtol=1e-4)
    assert cli.main(["score", str(files[0]), f"--scorer={tmp_path / 'g'}"]) == 0
    assert "artefact=" in capsys.readouterr().out


def test_labelled_pictures_teach_what_is_broken(data, tmp_path, capsys):
    rng = np.random.default_rng(1)
    lines = []
    for i, file in enumerate(sorted(data.glob("*.png"))):
        frame = np.asarray(PIL.Image.open(file))
        shown = tear(frame[None], rng)[0] if i % 2 else frame
        lines.append({"image": write(tmp_path / "l", f"{i}.png", shown), "label": 1 - i % 2})
    file = write_lines(tmp_path / "l" / "labels.jsonl", lines)
    arguments = [f"--scorer={data / 's'}", f"--data={file}", "--weight=1", "--corruptions=[]"]
    assert run(*arguments, f"--output_dir={tmp_path / 'g'}") == 0
    assert "lambda 1\n" in capsys.readouterr().out
    with ScoringCore() as core:
        core.register(open_scorer(tmp_path / "g"))
        good = np.stack([np.asarray(PIL.Image.open(f)) for f in sorted(data.glob("*.png"))[:40]])
        p = [
            core.score(ScoreRequest(scorers=("g",), frames=x))["g"].dims[:, 1]
            for x in (good, tear(good, rng))
        ]
    assert p[1].mean() > p[0].mean() + 0.1


def test_the_same_seed_writes_the_same_bytes(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            run(*options(data, tmp_path / name, f"--seed={seed}", "--share=0.5", "--steps=20")) == 0
        )
    a, b, c = ((tmp_path / n / "model.safetensors").read_bytes() for n in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--scorer="], "--scorer is missing"),
        (["--scorer=nowhere"], "no scorer at 'nowhere'"),
        (["--corruptions=[blurr]"], "did you mean 'blur'"),
        (["--share=1.5"], "--share"),
        (["--val_fraction=0.999"], "give at least 2"),
        (["--corruptions=[]"], "nothing broken to learn from"),
        (["--corruptions=[cutout]", "--steps=1", "--share=1"], "held back, not 100%"),
    ],
)
def test_what_cannot_work_is_named_and_leaves_nothing(data, tmp_path, capsys, change, message):
    assert run(*options(data, tmp_path / "g"), *change) != 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_a_used_folder_is_refused_before_anything_is_read(data, tmp_path, capsys):
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "precious").touch()
    assert run(*options(data, tmp_path / "g")) != 0
    assert "already exists" in capsys.readouterr().err
