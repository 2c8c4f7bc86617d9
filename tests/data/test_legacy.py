"""LeRobot v2.1 datasets arrive through LeRobot's own converter; the original stays as it was."""

import foreign
import numpy as np
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.data.convert import convert
from embodied_reward.errors import DatasetError


def snapshot(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize("video", [True, False])
def test_v21_becomes_v3(tmp_path, video):
    root = foreign.lerobot_v21(tmp_path / "old", video=video)
    before = snapshot(root)
    with pytest.raises(DatasetError, match=r"er data convert --input=.*old --output=.*old-v3"):
        open_dataset(root)
    result = convert(root, tmp_path / "new", "lerobot")
    assert (result.episodes, result.frames, result.picture_error) == (2, 15, None)
    assert all(p.stat().st_nlink == 1 for p in (tmp_path / "new").rglob("*") if p.is_file())
    assert snapshot(root) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]
    episodes = open_dataset(tmp_path / "new")
    check_dataset(episodes)
    assert (episodes.lengths, episodes.fps) == ((6, 9), 10.0)
    assert episodes.episode_tasks == ("task 0", "task 1")
    for i, episode in enumerate(episodes):
        expected = [[i, t] for t in range(len(episode))]
        np.testing.assert_array_equal(episode.action, np.array(expected, np.float32))
        if video:
            # LeRobot joins the videos without encoding them again: not one value changes.
            file = root / f"videos/chunk-000/observation.images.top/episode_{i:06d}.mp4"
            np.testing.assert_array_equal(episode.views["top"], foreign.read_mp4(file))


def test_v21_into_another_format(tmp_path):
    root = foreign.lerobot_v21(tmp_path / "old")
    convert(root, tmp_path / "new.zarr.zip", "zarr")
    episodes = open_dataset(tmp_path / "new.zarr.zip")
    assert episodes.lengths == (6, 9)
    assert episodes[1].state[3].tolist() == pytest.approx([-1.0, 0.3])


@pytest.mark.parametrize("name", ["episodes.jsonl", "tasks.jsonl", "episodes_stats.jsonl"])
@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_damaged_metadata(tmp_path, name, how):
    root = foreign.lerobot_v21(tmp_path / "old", video=False)
    file = root / "meta" / name
    if how == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DatasetError) as caught:
        convert(root, tmp_path / "new", "lerobot")
    assert name in str(caught.value) or "converter refuses" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["old"]


def test_links_out_of_the_dataset_are_not_followed(tmp_path):
    root = foreign.lerobot_v21(tmp_path / "old", video=False)
    secret = tmp_path / "secret.parquet"
    file = root / "data" / "chunk-000" / "episode_000001.parquet"
    file.rename(secret)
    file.symlink_to(secret)
    with pytest.raises(DatasetError, match="is a link out of the dataset"):
        convert(root, tmp_path / "new", "lerobot")
