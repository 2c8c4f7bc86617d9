"""A folder of videos is opened like any dataset."""

import numpy as np
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError


def clip(count=12, size=(32, 48), seed=0):
    rng = np.random.default_rng(seed)
    frames = np.full((count, *size, 3), 60, np.uint8)
    row = int(rng.integers(2, size[0] - 12))
    for t in range(count):
        frames[t, row : row + 10, 2 * t : 2 * t + 10] = (240, 180, 140)
    return frames


def message(run):
    with pytest.raises(DatasetError) as caught:
        run()
    return str(caught.value)


def test_every_file_of_a_flat_folder_is_an_episode(tmp_path):
    root = tmp_path / "open_the_drawer"
    for name, count in (("b", 9), ("a", 12)):
        write_video(root / f"{name}.mp4", clip(count), 10.0)
    (root / "notes.txt").write_text("filmed on a table")
    episodes = open_dataset(root)
    assert episodes.lengths == (12, 9)
    assert episodes.views == ("video",)
    assert episodes.fps == pytest.approx(10.0)
    assert episodes.tasks == ("open the drawer",)
    assert episodes.size("video") == (32, 48)
    check_dataset(episodes)
    first = episodes[0]
    assert first.views["video"].shape == (12, 32, 48, 3)
    assert np.abs(first.views["video"].astype(int) - clip(12)).mean() < 6
    assert (first.success, first.progress, first.state) == (None, None, None)
    assert episodes.rows(1)["index"].tolist() == list(range(12, 21))


def test_a_folder_per_camera_gives_views_and_files_of_one_name_one_episode(tmp_path):
    for view in ("front", "side"):
        for name in ("one", "two"):
            write_video(tmp_path / view / f"{name}.mp4", clip(seed=len(name + view)), 20.0)
    episodes = open_dataset(tmp_path)
    assert (len(episodes), episodes.views) == (2, ("front", "side"))
    assert open_dataset(f"{tmp_path},{tmp_path}").lengths == (12,) * 4


def test_what_does_not_fit_together_is_named(tmp_path):
    write_video(tmp_path / "a" / "front" / "one.mp4", clip(), 10.0)
    write_video(tmp_path / "a" / "side" / "two.mp4", clip(), 10.0)
    assert "one.mp4, two.mp4 from only one of the cameras" in message(
        lambda: open_dataset(tmp_path / "a")
    )
    write_video(tmp_path / "b" / "front" / "one.mp4", clip(12), 10.0)
    write_video(tmp_path / "b" / "side" / "one.mp4", clip(9), 10.0)
    assert "differ in length (front 12, side 9 frames)" in message(
        lambda: open_dataset(tmp_path / "b")
    )
    write_video(tmp_path / "c" / "one.mp4", clip(), 10.0)
    write_video(tmp_path / "c" / "two.mp4", clip(), 30.0)
    assert "different frame rates (10, 30 Hz)" in message(lambda: open_dataset(tmp_path / "c"))


def test_a_broken_file_is_named(tmp_path):
    good = write_video(tmp_path / "one.mp4", clip(), 10.0)
    (tmp_path / "two.mp4").write_bytes(good.read_bytes()[:200])
    assert "two.mp4' is missing, truncated or corrupt" in message(lambda: open_dataset(tmp_path))
