"""`er train-judge`: a small judge learns drawn pictures and is scored by what `er score` loads."""

import json

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.scoring import Role, ScoreRequest, ScoringCore
from embodied_reward.scoring.sources import open_scorer
from tests.scoring.language.conftest import captioned, disk_pairs


def write(folder, rows):
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "data.jsonl"


def save(folder, name, image):
    from PIL import Image

    Image.fromarray(image).save(folder / name)
    return name


def held_out(output):
    """Return the shares printed before and after training."""
    rows = {line.split()[0]: line.split()[1] for line in output.splitlines() if "  of " in line}
    return float(rows["before"]), float(rows["after"])


def test_a_judge_learns_which_is_better(tmp_path, capsys):
    rows = []
    for k, (a, b, second) in enumerate(disk_pairs(160, 5)):
        names = [save(tmp_path, f"{k}{side}.png", image) for side, image in (("a", a), ("b", b))]
        best = names[::-1] if second else names
        rows.append({"prompt": "a large disk", "chosen": best[0], "rejected": best[1]})
    out = tmp_path / "judge"
    argv = ["--judge.model=small", "--steps=120", "--lr=0.002", f"--output_dir={out}"]
    assert main(["train-judge", f"--data={write(tmp_path, rows)}", *argv]) == 0
    before, after = held_out(capsys.readouterr().out)
    assert after >= 0.8 > before
    a, b, second = disk_pairs(1, 77)[0]
    with ScoringCore() as core:
        core.register(open_scorer(out))
        frames, roles = np.stack([a, b, b, a]), [Role.REFERENCE, Role.CURRENT] * 2
        request = ScoreRequest(
            scorers="judge", frames=frames, offsets=[0, 2, 4], role=roles, texts=("a large disk",)
        )
        margin = core.score(request)["judge"].require_ok()
    assert margin[0] == pytest.approx(-margin[1], abs=1e-5)


def test_a_likelihood_learns_prompts_of_what_passed(tmp_path, capsys):
    rows = [
        {"image": save(tmp_path, f"{k}.png", image), "prompt": text, "label": 1}
        for k, (image, text) in enumerate(captioned(120, 3))
    ]
    argv = ["--judge.type=likelihood", "--judge.model=small", "--steps=60", "--lr=0.003"]
    out = tmp_path / "likelihood"
    assert (
        main(["train-judge", f"--data={write(tmp_path, rows)}", *argv, f"--output_dir={out}"]) == 0
    )
    assert held_out(capsys.readouterr().out)[1] > 0.6


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--data=FILE is missing"),
        (["--data=x.jsonl"], "--judge.model is missing"),
        (["--data=x.jsonl", "--judge.model=small"], "no preference file at 'x.jsonl'"),
        (["--data=x.jsonl", "--judge.model=small", "--steps=0"], "--steps=0 must be at least 1"),
    ],
)
def test_mistakes_are_named(argv, message, capsys):
    assert main(["train-judge", *argv]) == 2
    assert message in capsys.readouterr().err
