"""Opening datasets: our own, LeRobot's, its tools' output, several at once."""

import numpy as np
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.errors import DatasetError


def test_recorded_values_come_back_exactly(small_dataset, make_rows):
    episodes = open_dataset(small_dataset)
    assert (len(episodes), episodes.fps, episodes.views) == (3, 20.0, ("top", "wrist"))
    assert episodes.lengths == (12, 12, 12)
    assert episodes.tasks == ("open the drawer",)
    for index, episode in enumerate(episodes):
        rows = list(make_rows(index))
        for view in ("top", "wrist"):
            expected = np.stack([row[f"observation.images.{view}"] for row in rows])
            np.testing.assert_array_equal(episode.views[view], expected)
        for name, key in (
            ("state", "observation.state"),
            ("environment_state", "observation.environment_state"),
            ("action", "action"),
            ("progress", "progress"),
        ):
            values = getattr(episode, name)
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, np.stack([row[key] for row in rows]))


def test_success_belongs_to_the_observation_after_the_action(small_dataset):
    episode = open_dataset(small_dataset)[0]
    # next.success is true from row 8 on: the observation at 9 is the first that shows success.
    assert episode.success is True
    assert episode.success_frames.tolist() == [False] * 9 + [True] * 3


def test_successes_are_read_without_pictures(tmp_path, record):
    root = record(tmp_path / "failed", count=2, won_at=99)
    assert open_dataset(root).successes == (False, False)


def test_lerobot_itself_reads_what_was_recorded(small_dataset, make_rows):
    from lerobot.datasets import LeRobotDataset

    dataset = LeRobotDataset("local/demos", root=small_dataset)
    assert (dataset.num_episodes, dataset.num_frames, dataset.fps) == (3, 36, 20)
    row, item = list(make_rows(1))[4], dataset[12 + 4]
    picture = (item["observation.images.top"].numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(picture.transpose(1, 2, 0), row["observation.images.top"])
    np.testing.assert_array_equal(item["action"].numpy(), row["action"])
    assert item["task"] == "open the drawer"
    assert bool(item["next.success"]) is False


def test_a_frame_rate_that_is_not_whole_is_kept(tmp_path, record):
    from lerobot.datasets import LeRobotDataset

    root = record(tmp_path / "third", count=1, fps=80 / 3)
    assert open_dataset(root).fps == 80 / 3
    assert len(LeRobotDataset("local/third", root=root)) == 12


def test_video_dataset_that_lerobot_wrote(video_dataset):
    from lerobot.datasets import LeRobotDataset

    episodes = open_dataset(video_dataset)
    assert (episodes.views, episodes.lengths, episodes.successes) == (
        ("image",),
        (9, 14),
        (None, None),
    )
    assert episodes.tasks == ("task 0", "task 1")
    episode = episodes[1]
    assert (episode.success, episode.success_frames, episode.progress) == (None, None, None)
    assert episode.environment_state is None
    frames = episode.views["image"]
    reference = LeRobotDataset(
        "local/video", root=video_dataset, video_backend="pyav", return_uint8=True
    )
    assert frames.shape == (14, 64, 96, 3)
    assert frames.dtype == np.uint8
    for t in (0, 5, 13):
        theirs = reference[9 + t]["observation.image"].numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(frames[t], theirs)
    # The bar is 6 pixels wider in every frame: frames are in order and none is repeated.
    width = (frames[:, 32, :, 2] > 100).sum(axis=1)
    np.testing.assert_allclose(width, 6 * np.arange(1, 15), atol=2)


def test_output_of_lerobots_own_tools(tmp_path, small_dataset):
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.dataset_tools import delete_episodes, merge_datasets

    ours = LeRobotDataset("local/demos", root=small_dataset)
    fewer = delete_episodes(ours, [1], output_dir=tmp_path / "fewer", repo_id="local/fewer")
    merged = merge_datasets([ours, fewer], output_repo_id="local/m", output_dir=tmp_path / "merged")
    before = list(open_dataset(small_dataset))
    for root, expected in ((fewer.root, [0, 2]), (merged.root, [0, 1, 2, 0, 2])):
        episodes = open_dataset(root)
        assert len(episodes) == len(expected)
        for episode, index in zip(episodes, expected, strict=True):
            np.testing.assert_array_equal(episode.action, before[index].action)
            np.testing.assert_array_equal(episode.views["top"], before[index].views["top"])
        check_dataset(episodes)


def test_slices_and_selections_keep_their_index(small_dataset):
    episodes = open_dataset(small_dataset)
    assert [e.index for e in episodes[1:]] == [1, 2]
    chosen = episodes.select([2, 0])
    assert [e.index for e in chosen] == [2, 0]
    assert chosen.lengths == (12, 12)
    assert episodes[-1].index == 2
    with pytest.raises(IndexError):
        episodes[3]


def test_views_are_decoded_once_and_only_when_asked_for(small_dataset):
    episode = open_dataset(small_dataset, views=["wrist"])[0]
    assert list(episode.views) == ["wrist"]
    assert "top" not in episode.views
    assert episode.views["wrist"] is episode.views["wrist"]
    with pytest.raises(KeyError):
        episode.views["top"]


def test_several_datasets_open_as_one(tmp_path, small_dataset, record):
    second = record(tmp_path / "second", count=2, won_at=99)
    episodes = open_dataset(f"{small_dataset},{second}")
    assert [e.index for e in episodes] == [0, 1, 2, 3, 4]
    assert episodes.successes == (True, True, True, False, False)
    assert episodes[3].source == f"{second}#0"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"views": ("top",)}, "different cameras"),
        ({"fps": 10}, "fps is 20.0 and 10.0"),
        ({"size": 24}, "size of view 'top' is (16, 16) and (24, 24)"),
    ],
)
def test_datasets_that_do_not_fit_together(tmp_path, small_dataset, record, change, words):
    other = record(tmp_path / "other", count=1, **change)
    with pytest.raises(DatasetError) as caught:
        open_dataset([small_dataset, other])
    assert words in str(caught.value)


def test_common_view_of_different_cameras(tmp_path, small_dataset, record):
    other = record(tmp_path / "other", count=1, views=("top",))
    episodes = open_dataset([small_dataset, other], views=["top"])
    assert [list(e.views) for e in episodes] == [["top"]] * 4
