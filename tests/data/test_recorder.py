"""What the recorder promises while it records."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from embodied_reward.data import EpisodeRecorder, open_dataset, staging
from embodied_reward.errors import DatasetError

IMAGES = "observation.images.cam"
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(max_examples=60, deadline=None)
@given(
    pictures=nps.arrays(
        np.uint8, st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.just(3))
    ),
    state=nps.arrays(np.float32, st.integers(1, 6), elements=floats),
    task=st.text(min_size=1),
)
def test_staged_episodes_come_back_exactly(tmp_path_factory, pictures, state, task):
    folder = tmp_path_factory.mktemp("staging")
    episode = staging.StagedEpisode({IMAGES: pictures, "action": state[None]}, task, {"seed": 3})
    path = staging.write_episode(folder, 0, episode)
    back = staging.read_episode(path)
    assert (back.task, back.meta) == (task, {"seed": 3})
    np.testing.assert_array_equal(back.arrays[IMAGES], pictures)
    np.testing.assert_array_equal(back.arrays["action"], state[None])


@settings(max_examples=6, deadline=None)
@given(
    pictures=nps.arrays(
        np.uint8, st.tuples(st.integers(1, 3), st.integers(4, 40), st.integers(4, 40), st.just(3))
    ),
    width=st.integers(1, 5),
    data=st.data(),
)
def test_lerobot_round_trip_is_lossless(tmp_path_factory, pictures, width, data):
    root = tmp_path_factory.mktemp("trip") / "d"
    shape = (len(pictures), width)
    # LeRobot squares values for its statistics, in float32.
    physical = st.floats(-(2.0**40), 2.0**40, width=32)
    actions = data.draw(nps.arrays(np.float32, shape, elements=physical))
    with EpisodeRecorder(root, fps=10, robot_type="r") as recorder:
        for picture, action in zip(pictures, actions, strict=True):
            recorder.add({IMAGES: picture, "action": action})
        recorder.save_episode("t")
        recorder.finish()
    episode = open_dataset(root)[0]
    np.testing.assert_array_equal(episode.views["cam"], pictures)
    np.testing.assert_array_equal(episode.action, actions)


def test_values_are_copied(tmp_path):
    picture, action = np.zeros((8, 8, 3), np.uint8), np.zeros(2, np.float32)
    with EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r") as recorder:
        recorder.add({IMAGES: picture, "action": action})
        picture[:], action[:] = 255, 1.0
        recorder.add({IMAGES: picture, "action": action})
        recorder.save_episode("t")
    staged = staging.read_episode(tmp_path / "d.recording" / "episode-000000.npz").arrays
    assert staged[IMAGES][0].max() == 0
    assert staged["action"][0].max() == 0


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"action": [np.nan, 0.0]}, "'action' holds a value that is not finite"),
        ({"action": [np.inf, 0.0]}, "not finite"),
        ({"action": [0.0, 0.0, 0.0]}, "'action' was ('float32', (2,)), now ('float32', (3,))"),
        ({IMAGES: np.zeros((8, 9, 3), np.uint8)}, "does not fit"),
        ({IMAGES: np.zeros((8, 8, 3), np.float32)}, "must be uint8 of shape (h, w, 3)"),
        ({IMAGES: np.zeros((3, 8, 8), np.uint8)}, "must be uint8 of shape (h, w, 3)"),
        ({"progress": 0.5}, "'progress' was nothing"),
    ],
)
def test_a_bad_row_is_refused_and_forgotten(tmp_path, row, words):
    good = {IMAGES: np.zeros((8, 8, 3), np.uint8), "action": np.zeros(2)}
    with EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r") as recorder:
        recorder.add(good)
        with pytest.raises(DatasetError) as caught:
            recorder.add({**good, **row})
        assert words in str(caught.value)
        assert "episode 0, frame 1" in str(caught.value)
        assert recorder.rows == 1
        recorder.add(good)
        assert recorder.save_episode("t") == 0


def test_an_episode_needs_rows(tmp_path):
    with EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r") as recorder:
        with pytest.raises(DatasetError, match="no rows"):
            recorder.save_episode("t")
        with pytest.raises(DatasetError, match="no finished episode"):
            recorder.finish()


def test_a_taken_path_is_refused(tmp_path, record):
    root = record(tmp_path / "d", count=1, finish=False)
    with pytest.raises(DatasetError, match=r"1 finished episodes; .*--resume=true"):
        EpisodeRecorder(root, fps=20, robot_type="sawyer")
    record(root, count=1, resume=True)
    with pytest.raises(DatasetError, match="already exists; choose another path"):
        EpisodeRecorder(root, fps=20, robot_type="sawyer", resume=True)


def test_two_processes_cannot_record_into_one_folder(tmp_path):
    first = EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r")
    with pytest.raises(DatasetError, match="another process is recording"):
        EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r", resume=True)
    first.close()
    assert list(tmp_path.iterdir()) == []
    EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r", resume=True).close()


def test_resume_refuses_other_settings_and_other_features(tmp_path, record):
    root = record(tmp_path / "d", count=1, finish=False)
    with pytest.raises(DatasetError, match=r"'fps' was 20, now 30; 'info.seed' was 0, now 1"):
        EpisodeRecorder(root, fps=30, robot_type="sawyer", info={"seed": 1}, resume=True)
    with pytest.raises(DatasetError, match="does not fit"):
        record(root, count=2, resume=True, size=24)


def test_a_resumed_recording_equals_an_uninterrupted_one(tmp_path, record, small_dataset):
    root = record(tmp_path / "d", count=1, finish=False)
    record(root, count=2, finish=False, resume=True)
    record(root, count=3, resume=True)
    for ours, theirs in zip(open_dataset(root), open_dataset(small_dataset), strict=True):
        np.testing.assert_array_equal(ours.views["top"], theirs.views["top"])
        np.testing.assert_array_equal(ours.action, theirs.action)


def test_nothing_is_left_beside_a_finished_dataset(tmp_path, record):
    record(tmp_path / "d", count=1)
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(("fps", "storage"), [(10, "video"), (80 / 3, "image")])
def test_large_views_become_video_where_lerobot_can_encode_one(tmp_path, fps, storage):
    rng = np.random.default_rng(0)
    with EpisodeRecorder(tmp_path / "d", fps=fps, robot_type="r") as recorder:
        for _ in range(2):
            for colour in rng.integers(40, 200, (5, 3), np.uint8):
                picture = np.full((144, 160, 3), colour, np.uint8)
                recorder.add({IMAGES: picture, "action": [0.0]})
            recorder.save_episode("t")
        staged = staging.read_episode(recorder.folder / "episode-000001.npz").arrays[IMAGES]
        episodes = open_dataset(recorder.finish())
    assert (episodes.storage("cam"), episodes.fps) == (storage, fps)
    frames = episodes[1].views["cam"]
    assert frames.shape == (5, 144, 160, 3)
    assert np.abs(frames.astype(int) - staged).mean() < (3 if storage == "video" else 0.5)
