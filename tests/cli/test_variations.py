"""`--env.variation.*` and `er variations`."""

import numpy as np
import PIL.Image
import pytest

from embodied_reward.cli import main
from embodied_reward.cli.env_config import EnvConfig, make_env
from embodied_reward.cli.env_variation import VariationConfig, half, varied
from embodied_reward.cli.eval_policy import _words
from embodied_reward.config import encode, parse
from embodied_reward.data import open_dataset
from embodied_reward.data.video import write_video
from embodied_reward.envs import make
from embodied_reward.errors import ConfigError, DatasetError

PUSH = "embodied_reward/TablePush-v0"


def collect(root, *more):
    argv = [f"--env.id={PUSH}", "--env.horizon=40", "--size=32", "--episodes=2", "--views=front"]
    return main(["collect", *argv, "--only_success=false", f"--output_dir={root}", *more])


def test_a_recording_with_other_looks_has_the_same_states(tmp_path):
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert collect(plain) == 0
    assert collect(other, "--env.variation.texture=1", "--env.variation.variants=2") == 0
    for one, two in zip(open_dataset(plain), open_dataset(other), strict=True):
        assert np.array_equal(one.state, two.state)
        assert np.array_equal(one.progress, two.progress)
        assert not np.array_equal(one.views["front"], two.views["front"])


def test_variants_and_settings_stand_in_the_dataset(tmp_path):
    assert collect(tmp_path / "d", "--env.variation.mass=1", "--env.variation.variant=3") == 0
    texts = [p.read_text() for p in (tmp_path / "d").rglob("*.json*")]
    assert any('"variant": 3' in text for text in texts)
    assert any('"mass": 1.0' in text and '"split": "train"' in text for text in texts)


def test_a_policys_environment_comes_back_with_its_variation():
    config = EnvConfig(variation=VariationConfig(light=0.25, split="test", variants=4))
    assert parse(EnvConfig, list(_words(encode(config), "--")), verb="collect") == config


def test_an_unvaried_environment_is_not_wrapped():
    env = make_env(EnvConfig(id=PUSH), views=(), size=32)
    assert env is env.unwrapped
    env.close()


def save_pictures(folder, colours):
    folder.mkdir()
    for i, colour in enumerate(colours):
        PIL.Image.new("RGB", (300, 200), colour).save(folder / f"{i}.png")


def shown(config):
    env = varied(make("embodied_reward/SweepToGoal-MediumStick-v0", size=48), config)
    colours = set()
    for seed in range(8):
        env.reset(seed=seed)
        colours.add(int(env.frames()["top"][20:40, 5:43].reshape(-1, 3).sum(axis=0).argmax()))
    env.close()
    return colours


def test_train_and_test_see_different_pictures_of_a_folder(tmp_path):
    save_pictures(tmp_path / "p", ["#ff0000", "#0000ff"])
    config = {"texture": 1.0, "pictures": str(tmp_path / "p")}
    train = shown(VariationConfig(**config))
    test = shown(VariationConfig(**config, split="test"))
    assert len(train) == len(test) == 1
    assert train | test == {0, 2}


def test_videos_of_a_folder_move(tmp_path):
    (tmp_path / "v").mkdir()
    for name in ("a", "b"):
        frames = [np.full((64, 64, 3), 25 * i, np.uint8) for i in range(10)]
        write_video(tmp_path / "v" / f"{name}.mp4", frames, fps=10)
    config = VariationConfig(video=1.0, videos=str(tmp_path / "v"))
    env = varied(make(PUSH, size=32), config)
    env.reset(seed=0)
    corner = []
    for _ in range(5):
        corner.append(int(env.frames()["front"][:4, :4].mean()))
        env.step(np.zeros(4, np.float32))
    env.close()
    assert np.diff(corner).all()


def test_halves_share_nothing_and_leave_nothing_out(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(7)]
    train, test = half(paths, "train", 3), half(paths, "test", 3)
    assert sorted(train + test) == sorted(paths)
    assert not set(train) & set(test)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pictures": "p"}, "--env.variation.pictures is for 'texture', which is off"),
        ({"pictures": "p", "texture": 1.0}, "'p' is no folder"),
        ({"videos": ".", "video": 1.0}, "holds 0 videos .*at least one each"),
    ],
)
def test_bad_folders_are_one_clear_error(fields, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = make(PUSH)
    with pytest.raises(ConfigError, match=message):
        varied(env, VariationConfig(**fields))
    env.close()


def test_a_broken_picture_is_named(tmp_path):
    save_pictures(tmp_path / "p", ["#ff0000", "#0000ff"])
    for path in (tmp_path / "p").iterdir():
        path.write_bytes(b"no picture")
    env = make(PUSH)
    with pytest.raises(DatasetError, match=r"\.png' is no readable picture.*remove it"):
        varied(env, VariationConfig(texture=1.0, pictures=str(tmp_path / "p")))
    env.close()


def test_the_sheet_shows_train_and_test(tmp_path, capsys):
    path = tmp_path / "sheet.png"
    argv = [f"--env.id={PUSH}", "--factors=texture,mass", "--levels=0.5,1", "--size=48"]
    assert main(["variations", *argv, "--steps=30", f"--output={path}"]) == 0
    sheet = np.asarray(PIL.Image.open(path))
    assert sheet.shape == (24 + 2 * (48 + 19), 112 + 5 * 52, 3)
    texture = [sheet[24:72, 112 + 52 * i : 160 + 52 * i] for i in range(5)]
    assert len({tile.tobytes() for tile in texture}) == 5
    assert "2 factors" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--factors=textur"], "unknown factor 'textur'"),
        (["--levels=2"], "--levels must be one or more numbers in"),
        (["--env.variation.light=2"], "'light' must be a level in"),
        (["--env.variation.lihgt=1"], "unknown configuration key '--env.variation.lihgt'"),
        (["--factors=gravity", "--env.id=embodied_reward/Group-LongStick-v0"], "no gravity"),
    ],
)
def test_a_users_mistake_is_one_line(argv, message, capsys):
    assert main(["variations", *argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_help_explains_every_factor(capsys):
    assert main(["collect", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--env.variation.texture=0.0" in text
    assert "patterns on floor, table and walls" in text
