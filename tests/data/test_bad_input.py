"""Each bad dataset gets one clear error before any training."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.errors import DatasetError

DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def copy(tmp_path, small_dataset):
    return shutil.copytree(small_dataset, tmp_path / "copy")


def message(call):
    with pytest.raises(DatasetError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def edit_info(root, **changes):
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_rows(root, key, edit):
    """Rewrite one column of the data file; `edit` maps its list of values to another."""
    table = pq.read_table(root / DATA)
    at = table.schema.get_field_index(key)
    column = pa.array(edit(table.column(key).to_pylist()), type=table.schema.field(key).type)
    pq.write_table(table.set_column(at, table.schema.field(key), column), root / DATA)


def truncate(path, keep=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])


def test_missing_view(small_dataset):
    text = message(lambda: open_dataset(small_dataset, views=["top", "front"]))
    assert "has no view 'front'; its views: top, wrist" in text


def test_missing_path_suggests_its_neighbour(small_dataset):
    text = message(lambda: open_dataset(small_dataset.parent / "demo"))
    assert "there is no dataset at" in text
    assert "did you mean 'demos'?" in text


def test_no_path():
    assert "no dataset path given" in message(lambda: open_dataset([]))
    assert "no dataset path given" in message(lambda: open_dataset(""))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("demo.hdf5", "demo.hdf5; only LeRobot v3 is read so far"),
        ("replay.zarr/.zgroup", "replay.zarr; only LeRobot v3"),
        ("clip.mp4", "clip.mp4': no readable video"),
        ("readme.txt", "readme.txt, but no meta/info.json"),
        (None, "an empty folder, but no meta/info.json"),
    ],
)
def test_other_formats_say_what_was_found(tmp_path, name, words):
    folder = tmp_path / "thing"
    folder.mkdir()
    if name:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x")
    assert words in message(lambda: open_dataset(folder))


def test_a_zarr_store_and_a_file(tmp_path):
    (tmp_path / "zarr.json").write_text("{}")
    assert "a zarr store" in message(lambda: open_dataset(tmp_path))
    assert "a file 'zarr.json'" in message(lambda: open_dataset(tmp_path / "zarr.json"))


def test_other_codebase_version_names_the_converter(copy):
    edit_info(copy, codebase_version="v2.1")
    text = message(lambda: open_dataset(copy))
    assert "version v2.1" in text
    assert "lerobot.scripts.convert_dataset_v21_to_v30" in text


def test_truncated_info(copy):
    truncate(copy / "meta" / "info.json")
    assert "info.json' is missing, truncated" in message(lambda: open_dataset(copy))


def test_incomplete_info(copy):
    path = copy / "meta" / "info.json"
    info = json.loads(path.read_text())
    del info["fps"]
    path.write_text(json.dumps(info))
    assert "lacks fps" in message(lambda: open_dataset(copy))


def test_empty_dataset(copy):
    shutil.rmtree(copy / "meta" / "episodes")
    assert "holds no episodes" in message(lambda: open_dataset(copy))
    assert "holds no episodes" in message(lambda: check_dataset([]))


def test_truncated_episode_table(copy):
    truncate(copy / EPISODES)
    text = message(lambda: open_dataset(copy))
    assert EPISODES in text
    assert "truncated" in text


def test_episode_count_that_disagrees(copy):
    edit_info(copy, total_episodes=4)
    assert "declares 4 episodes, meta/episodes lists 3" in message(lambda: open_dataset(copy))


def test_truncated_data_file(copy):
    truncate(copy / DATA)
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert DATA in text
    assert "truncated" in text


def test_missing_data_file(copy):
    (copy / DATA).unlink()
    assert DATA in message(lambda: check_dataset(open_dataset(copy)))
    assert DATA in message(lambda: open_dataset(copy).successes)


def test_missing_rows(copy):
    table = pq.read_table(copy / DATA)
    pq.write_table(table.slice(0, 30), copy / DATA)
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "episode 2 has 6 rows" in text
    assert "instead of 12" in text


def test_truncated_video(tmp_path, video_dataset):
    root = shutil.copytree(video_dataset, tmp_path / "copy")
    video = next(root.glob("videos/**/*.mp4"))
    truncate(video)
    text = message(lambda: check_dataset(open_dataset(root)))
    assert f"video file '{video}'" in text
    assert "episode 0" in text


def test_missing_video(tmp_path, video_dataset):
    root = shutil.copytree(video_dataset, tmp_path / "copy")
    shutil.rmtree(root / "videos")
    assert "video file" in message(lambda: check_dataset(open_dataset(root)))


def test_video_that_ends_early(tmp_path, video_dataset):
    root = shutil.copytree(video_dataset, tmp_path / "copy")
    table = pq.read_table(root / EPISODES)
    at = table.schema.get_field_index("videos/observation.image/from_timestamp")
    later = pa.array([0.0, 40.0], type=table.schema.field(at).type)
    pq.write_table(table.set_column(at, table.schema.field(at), later), root / EPISODES)
    assert "episode 1 cannot be decoded" in message(lambda: check_dataset(open_dataset(root)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    ("key", "name"),
    [("observation.state", "state"), ("action", "action"), ("progress", "progress")],
)
def test_numbers_that_are_not_finite(copy, key, name, value):
    def spoil(rows):
        row = rows[12 + 5]
        rows[12 + 5] = value if not isinstance(row, list) else [row[0], value, *row[2:]]
        return rows

    edit_rows(copy, key, spoil)
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert text.startswith(f"{name}[")
    assert "copy#1, frame 5 is not finite" in text


def test_progress_outside_its_range(copy):
    edit_rows(copy, "progress", lambda rows: [*rows[:-1], 1.5])
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "progress[0]" in text
    assert "copy#2, frame 11 is outside [0, 1] (1.5)" in text


def test_a_row_without_its_state(copy):
    edit_rows(copy, "observation.state", lambda rows: [*rows[:14], None, *rows[15:]])
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "rows of" in text
    assert "episode 1 differ in length" in text


def test_a_declared_column_that_is_not_there(copy):
    table = pq.read_table(copy / DATA)
    pq.write_table(table.drop_columns(["action"]), copy / DATA)
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert DATA in text
    assert "action" in text


def test_corrupt_picture(copy):
    def spoil(rows):
        rows[3]["bytes"] = rows[3]["bytes"][:40]
        return rows

    edit_rows(copy, "observation.images.wrist", spoil)
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "view 'wrist'" in text
    assert "episode 0, frame 3 is missing or corrupt" in text
    check_dataset(open_dataset(copy, views=["top"]))


def test_missing_picture(copy):
    edit_rows(copy, "observation.images.top", lambda rows: [*rows[:-1], None])
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "episode 2, frame 11 is missing or corrupt" in text


def test_pictures_of_two_sizes(tmp_path, copy, record):
    other = pq.read_table(record(tmp_path / "large", count=1, size=24) / DATA)
    large = other.column("observation.images.top").to_pylist()
    edit_rows(copy, "observation.images.top", lambda rows: [*rows[:24], *large])
    text = message(lambda: check_dataset(open_dataset(copy)))
    assert "picture size of view 'top' is (16, 16) and (24, 24)" in text
    edit_rows(copy, "observation.images.top", lambda rows: [*rows[:30], rows[0], *rows[31:]])
    text = message(lambda: check_dataset(open_dataset(copy).select([2])))
    assert "changes its size at" in text
    assert "episode 2, frame 6: 24x24 before, 16x16 there" in text


def test_episodes_with_different_cameras(small_dataset, tmp_path, record):
    mixed = [*open_dataset(small_dataset), *open_dataset(record(tmp_path / "o", views=("top",)))]
    assert "has no view 'wrist'; its views: top" in message(lambda: check_dataset(mixed))
    check_dataset(mixed, views=["top"])


def test_mixed_frame_rates(small_dataset):
    first, second, _ = open_dataset(small_dataset)
    text = message(lambda: check_dataset([first, replace(second, fps=10.0)]))
    assert "fps is 20.0 and 10.0" in text


def test_the_hub_does_not_have_it(monkeypatch):
    import huggingface_hub.constants

    # Nothing listens there: the answer is a refused connection, as without a network.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    text = message(lambda: open_dataset("nobody/nothing-here"))
    assert "no local dataset 'nobody/nothing-here'" in text
    assert "Hub" in text
