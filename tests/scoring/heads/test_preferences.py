"""Reading preferences: every format, and one clear error for every bad line."""

import io
import json
import math

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError
from embodied_reward.scoring.clips import spread
from embodied_reward.scoring.heads import TIE, UNJUDGED
from embodied_reward.scoring.preferences import read_preferences


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in "abcd":
        frame = rng.integers(0, 256, (10, 14, 3), dtype=np.uint8)
        PIL.Image.fromarray(frame).save(tmp_path / f"{name}.png")
    return tmp_path


def read(folder, *lines):
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return read_preferences(folder / "p.jsonl")


def test_every_kind_of_line(folder):
    data = read(
        folder,
        {"prompt": "x", "chosen": "a.png", "rejected": "b.png"},
        {"chosen": "a.png", "rejected": "c.png", "tie": True, "user": 4, "reference": "d.png"},
        {"images": ["b.png", "c.png", ["a.png", "b.png"]], "best": 2},
        {"images": ["b.png", "c.png"], "best": None},
        {"image": "d.png", "label": 0},
        {"image": "d.png", "label": True},
    )
    assert [r.best for r in data.rows] == [(0,), (TIE,), (2,), (TIE,), (), ()]
    assert [r.label for r in data.rows] == [None] * 4 + [0, 1]
    assert data.rows[0].prompt == "x"
    assert (data.rows[1].user, data.rows[1].reference) == (4, data.rows[4].items[0])
    assert len(data.clips) == 5  # a, b, c, d and the clip of two pictures
    assert len(data.clips[data.rows[2].items[2]].frames(8)) == 2
    assert data.clips[0].frames(8)[0].shape == (10, 14, 3)
    assert data.dims == ("preference",)


def test_dimensions_may_be_judged_apart(folder):
    data = read(
        folder,
        {"images": ["a.png", "b.png"], "best": {"quality": 0, "motion": 1}},
        {"images": ["a.png", "c.png"], "best": {"motion": None}},
        {"chosen": "a.png", "rejected": "d.png"},
    )
    assert data.dims == ("quality", "motion")
    assert [r.best for r in data.rows] == [(0, 1), (UNJUDGED, TIE), (0, 0)]


def test_parquet_with_pictures_inside(folder):
    encoded = {"bytes": (folder / "a.png").read_bytes(), "path": "somewhere/else.png"}
    other = {"bytes": None, "path": "b.png"}
    rows = [
        {"prompt": "x", "images": [encoded, other], "best": 1, "image": None, "label": None},
        {"prompt": "x", "images": [encoded, other], "best": None, "image": None, "label": None},
        {"prompt": "x", "images": None, "best": None, "image": encoded, "label": 1},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "p.parquet")
    data = read_preferences(folder / "p.parquet")
    assert [r.best for r in data.rows] == [(1,), (TIE,), ()]
    assert len(data.clips) == 2
    direct = np.asarray(PIL.Image.open(folder / "a.png"))
    assert np.array_equal(data.clips[0].frames(1)[0], direct)


def test_a_video_gives_frames_spread_over_time(folder):
    frames = [np.full((16, 16, 3), 10 * k, np.uint8) for k in range(20)]
    write_video(folder / "v.mp4", frames, 10)
    data = read(folder, {"chosen": "v.mp4", "rejected": "a.png"})
    found = data.clips[0].frames(4)
    assert [round(float(f.mean()) / 10) for f in found] == [2, 7, 12, 17]
    assert len(data.clips[0].frames(100)) == 20
    assert spread(20, 4).tolist() == [2, 7, 12, 17]
    assert spread(3, 8).tolist() == [0, 1, 2]


def test_pictures_come_upright_and_in_colour(folder):
    tall = np.zeros((4, 8), np.uint8)
    tall[:, :4] = 255
    image = PIL.Image.fromarray(tall)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", exif=exif)
    (folder / "turned.png").write_bytes(buffer.getvalue())
    frame = read(folder, {"image": "turned.png", "label": 1}).clips[0].frames(1)[0]
    assert frame.shape == (8, 4, 3)
    assert frame[0].min() == 255


BAD = [
    ({"chosen": "a.png", "rejected": "x.png"}, "no file 'x.png'"),
    ({"chosen": "a.png"}, "`rejected` is missing"),
    ({"chosen": "a.png", "rejected": "a.png"}, "compares a candidate with itself"),
    ({"chosen": "a.png", "rejected": "b.png", "tie": "yes"}, "write true or false"),
    ({"chosen": "a.png", "rejcted": "b.png"}, "unknown key 'rejcted'; did you mean 'rejected'"),
    ({"prompt": "x"}, "must have either `chosen` and `rejected`, or"),
    ({"chosen": "a.png", "rejected": "b.png", "image": "c.png"}, "must have either"),
    ({"chosen": "a.png", "rejected": 3}, "a candidate is 3"),
    ({"chosen": "a.png", "rejected": []}, "an empty list"),
    ({"chosen": "a.png", "rejected": "b.png", "prompt": 3}, "write a text in quotes"),
    ({"chosen": "a.png", "rejected": "b.png", "user": "bob"}, "`user` is 'bob'"),
    ({"images": ["a.png"], "best": 0}, "at least two candidates"),
    ({"images": ["a.png", "b.png"], "best": 2}, "`best` is 2; accepted: whole numbers from 0 to 1"),
    ({"images": ["a.png", "b.png"]}, "`best` is missing"),
    ({"image": "a.png"}, "`label` is missing"),
    ({"image": "a.png", "label": math.nan}, "`label` is nan; accepted: whole numbers from 0 to 1"),
    ({"image": "a.png", "label": 0.5}, "`label` is 0.5"),
    (["a.png"], "holds a list"),
]


@pytest.mark.parametrize(("line", "message"), BAD, ids=[m for _, m in BAD])
def test_a_bad_line_is_named(folder, line, message):
    good = {"chosen": "a.png", "rejected": "b.png"}
    with pytest.raises(DatasetError, match=r"p\.jsonl line 2") as caught:
        read(folder, good, line)
    assert message in str(caught.value)


def test_files_that_hold_nothing_are_named(folder):
    with pytest.raises(DatasetError, match="no preference file"):
        read_preferences(folder / "none.jsonl")
    (folder / "p.jsonl").write_text("\n\n")
    with pytest.raises(DatasetError, match="is empty"):
        read_preferences(folder / "p.jsonl")
    (folder / "p.jsonl").write_text('\n{"chosen": "a.png",')
    with pytest.raises(DatasetError, match="line 2 is not JSON"):
        read_preferences(folder / "p.jsonl")
    (folder / "p.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="not UTF-8"):
        read_preferences(folder / "p.jsonl")
    (folder / "p.parquet").write_text("no")
    with pytest.raises(DatasetError, match="not a readable parquet file"):
        read_preferences(folder / "p.parquet")


@pytest.mark.parametrize("name", ["broken.png", "broken.mp4"])
def test_a_file_that_cannot_be_decoded_is_named_with_its_line(folder, name):
    (folder / name).write_bytes((folder / "a.png").read_bytes()[:40])
    data = read(folder, {"chosen": "a.png", "rejected": "b.png"}, {"image": name, "label": 1})
    with pytest.raises(DatasetError, match=r"p\.jsonl line 2: '.*broken.*' is no readable"):
        data.clips[-1].frames(4)
