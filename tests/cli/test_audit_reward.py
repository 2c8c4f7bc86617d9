"""`er audit-reward`: a table, numbers and pictures for own tasks and Meta-World."""

import json

import numpy as np
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.rewards import RemainingTimeConfig, RemainingTimeModel, TccConfig, TccModel
from embodied_reward.vision.encoders import EncoderConfig


def saved(folder, kind, config, **fields):
    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=32)
    model = kind.create(config(encoder=encoder, dim=16, **fields))
    if hasattr(model, "horizon"):
        model.horizon.fill_(20.0)
    else:
        size = (2, len(fields["views"]), 32, 32, 3)
        model.reference_goal = torch.randint(0, 256, size, dtype=torch.uint8)
        model.reference_start = torch.randint(0, 256, size, dtype=torch.uint8)
    folder.mkdir()
    model.save(folder)
    return folder


def audit(path, env, out, *more):
    return main(
        [
            "audit-reward",
            f"--reward_model.path={path}",
            f"--env.id={env}",
            "--env.horizon=12",
            "--episodes=2",
            "--stride=4",
            f"--output_dir={out}",
            *more,
        ]
    )


def test_two_models_on_a_task_of_our_own(tmp_path, capsys):
    one = saved(tmp_path / "one", RemainingTimeModel, RemainingTimeConfig, views=("top",))
    two = saved(tmp_path / "two", TccModel, TccConfig, views=("top", "oblique"))
    env, out = "embodied_reward/SweepToGoal-MediumStick-v0", tmp_path / "out"
    assert audit(one, env, out, f"--compare={two}", "--saliency=normgrad,lrp") == 0
    tree = json.loads((out / "saliency.json").read_text())
    rows = {(r["model"], r["method"], r["view"]): r for r in tree["rows"]}
    assert ("remaining_time", "lrp", "top") in rows
    assert ("tcc (fresh)", "normgrad", "oblique") in rows
    assert ("tcc", "normgrad", "all views") in rows
    assert ("edges (no model)", "", "top") in rows
    head = rows["tcc", "normgrad", "top"]["groups"]["gripper+objects"]
    # 4 frames an episode: 0, 4, 8, 12
    assert (head["frames"], head["blind"]) == (8, 0)
    assert 0.005 < head["area"] < 0.1
    assert head["ratio"] == pytest.approx(head["share"] / head["area"])
    shares = [rows["tcc", "lrp", "top"]["groups"][part]["share"] for part in
              ("background", "arm", "gripper", "objects", "goal")]  # fmt: skip
    assert sum(shares) == pytest.approx(1.0)
    assert len(rows["tcc", "lrp", "top"]["episodes"]) == 2
    assert np.isclose(np.mean([r["groups"]["arm"]["area"] for r in rows.values()]), 0)
    drawn = {f.name for f in out.iterdir()}
    assert {"remaining_time_lrp_000.png", "tcc_normgrad_000.mp4", "saliency.json"} <= drawn
    said = capsys.readouterr().out
    assert "1.0x is chance" in said
    assert "remaining_time (fresh)" in said


def test_the_same_seed_gives_the_same_numbers_on_meta_world(tmp_path):
    views = ("corner2", "gripperPOV")
    model = saved(tmp_path / "model", RemainingTimeModel, RemainingTimeConfig, views=views)
    found = []
    for k, seed in enumerate((3, 3, 4)):
        more = (f"--seed={seed}", "--drawn=0", "--episodes=1", "--env.action_repeat=2")
        assert audit(model, "metaworld/drawer-open-v3", tmp_path / f"out{k}", *more) == 0
        found.append(json.loads((tmp_path / f"out{k}" / "saliency.json").read_text())["rows"])
    assert found[0] == found[1] != found[2]
    arm = next(r for r in found[0] if r["view"] == "corner2")["groups"]["arm"]
    assert 0.1 < arm["area"] < 0.4


def test_a_blind_model_has_no_number(tmp_path, capsys):
    torch.manual_seed(0)
    model = RemainingTimeModel.create(
        RemainingTimeConfig(views=("front",), encoder=EncoderConfig(image_size=32), dim=16)
    )
    model.horizon.fill_(20.0)
    torch.nn.init.zeros_(model.head[-1].weight)
    (tmp_path / "blind").mkdir()
    model.save(tmp_path / "blind")
    more = ("--untrained=0", "--episodes=1")
    assert audit(tmp_path / "blind", "trap/insert", tmp_path / "out", *more) == 0
    rows = json.loads((tmp_path / "out" / "saliency.json").read_text())["rows"]
    head = next(r for r in rows if r["model"] == "remaining_time")["groups"]["gripper+objects"]
    assert head["share"] is None
    assert head["ratio"] is None
    assert head["blind"] == 4
    assert "4 maps are missing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--env.id=metaworld/nothing-v3"], "unknown environment"),
        (["--saliency=attention"], "for vision transformers"),
        (["--saliency="], "give a method"),
        (["--episodes=0"], "--episodes=0"),
        (["--reward_model.path=nowhere"], "no reward model at 'nowhere'"),
        (["--quality=perfect"], "perfect"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path, capsys, more, message):
    model = saved(tmp_path / "model", RemainingTimeModel, RemainingTimeConfig, views=("front",))
    assert audit(model, "trap/insert", tmp_path / "out", *more) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert message in said
    assert said.startswith("er audit-reward: ")
    assert not (tmp_path / "out").exists()
