"""`er score`: pictures, clips and windows by every kind of scorer; files, tables and plots."""

import csv
import json
import re

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from embodied_reward.cli import main
from embodied_reward.cli.score_inputs import Windows, blocks, find_files
from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError
from embodied_reward.scoring import ScoreRequest, ScoringCore
from embodied_reward.scoring.language.base import LanguageConfig
from embodied_reward.scoring.language.likelihood import LikelihoodConfig, LikelihoodScorer
from embodied_reward.scoring.language.small import small_reader, word_tokenizer
from embodied_reward.scoring.sources import open_scorer

TEXT = "a red cube on a plate"
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def frame(shade, h=40, w=56):
    ramp = np.linspace(0, 80, w).astype(int)
    rows = np.arange(h)[:, None] // 2
    image = np.stack([rows + ramp, 20 + 0 * rows + ramp, shade + 0 * rows + 0 * ramp], -1)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory):
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny-clip"
    tokenizer = word_tokenizer([TEXT, "another text"], end=True)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "eos_token_id": 3}
    config = CLIPConfig(
        text_config={**SHAPE, **text, "bos_token_id": 2, "pad_token_id": 0},
        vision_config={**SHAPE, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    crop = {"height": 32, "width": 32}
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=crop)
    for part in (CLIPModel(config), pixels, tokenizer):
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for k in range(3):
        Image.fromarray(frame(60 * k, w=40 + 8 * k)).save(folder / f"{k}.png")
    (folder / "broken.png").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no picture either")
    return folder


@pytest.fixture
def clip(tmp_path):
    return write_video(tmp_path / "clip.mp4", [frame(8 * k) for k in range(20)], fps=10)


def run(*argv):
    return main(["score", *map(str, argv)])


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_folder_of_pictures_by_a_plain_clip_folder(images, clip_model, tmp_path, capsys):
    out = tmp_path / "scores.jsonl"
    assert run(images, f"--scorer={clip_model}", f"--text={TEXT}", f"--output={out}") == 0
    rows = {row["path"].rsplit("/", 1)[1]: row for row in read(out)}
    assert set(rows) == {"0.png", "1.png", "2.png", "broken.png"}
    assert rows["broken.png"]["score"] is None
    assert rows["broken.png"]["status"] == "BAD_INPUT"
    assert "readable" in rows["broken.png"]["detail"]
    with ScoringCore() as core:
        core.register(open_scorer(clip_model))
        for k in range(3):
            picture = np.asarray(Image.open(images / f"{k}.png"))[None]
            request = ScoreRequest(scorers="tiny-clip", frames=picture, texts=TEXT)
            expected = core.score(request)["tiny-clip"].score[0]
            assert rows[f"{k}.png"]["score"] == pytest.approx(expected, rel=1e-5)
    shown = capsys.readouterr().out
    assert "3 of 4 scored" in shown
    assert "1 BAD_INPUT" in shown
    assert re.search(r"broken\.png +- +BAD_INPUT", shown)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_for_other_programs(images, clip_model, tmp_path, suffix):
    out = tmp_path / f"scores.{suffix}"
    assert run(images, f"--scorer={clip_model}", f"--text={TEXT}", f"--output={out}") == 0
    if suffix == "csv":
        rows = list(csv.DictReader(out.read_text().splitlines()))
        scores = [float(row["score"]) for row in rows if row["score"]]
    else:
        table = pyarrow.parquet.read_table(out)
        rows, scores = table.to_pylist(), table["score"].drop_null().to_pylist()
    assert len(rows) == 4
    assert len(scores) == 3
    assert [row["status"] for row in rows].count("OK") == 3


def test_every_file_may_have_a_text_of_its_own(images, clip_model, tmp_path):
    texts = tmp_path / "texts.json"
    texts.write_text(json.dumps({"0.png": "another text"}))
    rows = []
    for more in ([], [f"--texts={texts}"]):
        out = tmp_path / "scores.jsonl"
        run(images, f"--scorer={clip_model}", "--text", TEXT, f"--output={out}", *more)
        rows.append({row["path"]: row["score"] for row in read(out)})
    changed = [path for path in rows[0] if rows[0][path] != rows[1][path]]
    assert changed == [str(images / "0.png")]


def test_windows_of_a_clip_over_time_with_a_plot(clip, clip_model, tmp_path, capsys):
    out, plot = tmp_path / "scores.jsonl", tmp_path / "scores.png"
    options = (f"--scorer={clip_model}", f"--text={TEXT}", "--window=4", "--stride=3")
    assert run(clip, *options, f"--output={out}", f"--plot={plot}") == 0
    rows = read(out)
    assert [row["start"] for row in rows] == pytest.approx([0.0, 0.3, 0.6, 0.9, 1.2, 1.5], abs=1e-3)
    assert all(row["frames"] == 4 for row in rows)
    assert rows[-1]["end"] == pytest.approx(1.8, abs=1e-3)
    assert len({row["score"] for row in rows}) == 6
    picture = np.asarray(Image.open(plot))
    assert picture.shape[0] > 300
    assert picture.std() > 5
    assert "0.30-0.60 s" in capsys.readouterr().out


def test_a_whole_clip_has_one_score_and_blocks_change_nothing(
    clip, clip_model, tmp_path, monkeypatch
):
    out = tmp_path / "scores.jsonl"
    assert run(clip, f"--scorer={clip_model}", f"--text={TEXT}", f"--output={out}") == 0
    (row,) = read(out)
    assert row["frames"] == 8
    found = []
    for size in (256, 5):
        monkeypatch.setattr("embodied_reward.cli.score_inputs.BLOCK_FRAMES", size)
        run(clip, f"--scorer={clip_model}", f"--text={TEXT}", "--window=3", f"--output={out}")
        found.append(read(out))
    assert len(found[0]) == 18
    for a, b in zip(*found, strict=True):
        assert a.pop("score") == pytest.approx(b.pop("score"), rel=1e-5)
        assert a == b


@pytest.mark.parametrize("size", [1, 3, 7, 256])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (4, 3), (3, 7), (30, 1)])
def test_blocks_hold_exactly_the_windows(clip, monkeypatch, size, window, stride):
    monkeypatch.setattr("embodied_reward.cli.score_inputs.BLOCK_FRAMES", size)
    starts, brightness = [], []
    for block in blocks([clip], Windows(window, stride)):
        assert len(block.frames) <= max(size, window) + stride
        for item in block.items:
            starts.append(round(item.times[0] * 10))
            brightness.append([block.frames[p][..., 2].mean() for p in item.frames])
    expected = list(range(0, max(20 - window, 0) + 1, stride))
    assert starts == expected
    for start, found in zip(starts, brightness, strict=True):
        shades = 8 * np.arange(start, min(start + window, 20))
        np.testing.assert_allclose(found, shades, atol=6)


def test_a_reference_picture(images, tmp_path):
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    folder = tmp_path / "dino"
    Dinov2Model(Dinov2Config(**SHAPE, image_size=32, patch_size=8)).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    BitImageProcessor(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    out = tmp_path / "scores.jsonl"
    options = (f"--scorer={folder}", f"--output={out}")
    assert run(images / "0.png", images / "1.png", *options, f"--reference={images}/0.png") == 0
    rows = read(out)
    assert rows[0]["score"] == pytest.approx(1, abs=1e-5)
    assert rows[1]["score"] < 0.9999
    assert run(images / "0.png", *options) == 1  # nothing to compare with
    assert read(out)[0]["status"] == "BAD_INPUT"


def test_a_language_model_by_its_folder(images, tmp_path):
    reader = small_reader([TEXT, LikelihoodConfig().query])
    scorer = LikelihoodScorer(reader, LikelihoodConfig(name="likely"))
    assert isinstance(scorer.config, LanguageConfig)
    scorer.save(tmp_path / "likely")
    out = tmp_path / "scores.jsonl"
    options = (f"--scorer={tmp_path / 'likely'}", f"--text={TEXT}", f"--output={out}")
    assert run(images / "0.png", *options) == 0
    (row,) = read(out)
    assert row["score"] == row["mean_log_p"] < 0
    assert row["sum_log_p"] == pytest.approx(row["mean_log_p"] * 6, rel=1e-5)


def test_a_reward_model_scores_every_frame(clip, tmp_path):
    from embodied_reward.rewards import RemainingTimeConfig, RemainingTimeModel

    torch.manual_seed(0)
    model = RemainingTimeModel.create(RemainingTimeConfig(views=("corner2",)))
    model.horizon.fill_(20.0)  # random weights, but a potential
    folder = tmp_path / "reward"
    folder.mkdir()
    model.save(folder)
    out, plot = tmp_path / "scores.jsonl", tmp_path / "plot.png"
    assert run(clip, f"--scorer={folder}", f"--output={out}", f"--plot={plot}") == 0
    rows = read(out)
    assert len(rows) == 20
    assert rows[10]["start"] == pytest.approx(1.0, abs=1e-3)
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert plot.is_file()
    view = (f"--scorer={folder}", f"--output={out}", f"--view=corner2={clip}")
    assert run(*view) == 0
    assert [row["score"] for row in read(out)] == [row["score"] for row in rows]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scorer=nowhere"], "no scorer at 'nowhere'"),
        ([], "give a scorer"),
        (["--scorer={clip}", "--output=x.xlsx"], "unknown format"),
        (["--scorer={clip}", "--windw=3"], "'window'"),
        (["--scorer={clip}", "--window=-1"], "--window"),
        (["--scorer={clip}", "--plot=x.png", "--text=a"], "--plot"),
        (["--scorer={clip}", "--view=a=b.mp4"], "--view"),
    ],
)
def test_mistakes_are_one_line(images, clip_model, capsys, options, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run(images, *(o.format(clip=clip_model) for o in options)) == 2
    said = capsys.readouterr().err.splitlines()[-1]  # above it transformers shows a bar
    assert message in said
    assert said.startswith("er score: ")
    assert not (tmp_path / "x.png").exists()


def test_files_that_are_not_there(tmp_path, capsys, clip_model):
    assert run(tmp_path / "no.png", f"--scorer={clip_model}") == 2
    assert "is not there" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="no picture"):
        find_files([tmp_path])


def test_help_lists_the_fields(capsys):
    assert main(["score", "--help"]) == 0
    assert "--window=0" in capsys.readouterr().out
