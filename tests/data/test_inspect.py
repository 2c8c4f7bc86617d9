"""Summaries name what is wrong; contact sheets show what is there."""

import json

import numpy as np
import PIL.Image
import pytest

from embodied_reward.data import EpisodeRecorder, open_dataset
from embodied_reward.data.contact_sheet import contact_sheet
from embodied_reward.data.inspect import spread, summarise


def test_summary_of_a_recording(small_dataset):
    summary = summarise(open_dataset(small_dataset))
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["episodes"], summary["frames"], summary["fps"]) == (3, 36, 20.0)
    assert summary["seconds"] == pytest.approx(1.8)
    assert summary["lengths"] == {"min": 12, "median": 12.0, "max": 12}
    assert summary["success_rate"] == 1.0
    top = summary["views"]["top"]
    assert (top["size"], top["storage"], top["min"], top["max"]) == ([16, 16], "image", 0, 255)
    assert top["brightness"] == pytest.approx(127.5, abs=3)
    assert summary["features"]["progress"] == {"size": 1, "min": 0.0, "max": 1.0, "not_finite": 0}
    assert summary["features"]["state"]["size"] == 3
    assert len(summary["notes"]) == 1


def test_dataset_without_success_or_progress(video_dataset):
    summary = summarise(open_dataset(video_dataset))
    assert summary["success_rate"] is None
    assert "progress" not in summary["features"]
    assert summary["views"]["image"]["storage"] == "video"
    assert any("no 'next.success'" in note for note in summary["notes"])


def test_dead_and_frozen_cameras_are_named(tmp_path):
    rng = np.random.default_rng(0)
    frozen = rng.integers(0, 256, (16, 16, 3), np.uint8)
    with EpisodeRecorder(tmp_path / "d", fps=10, robot_type="r") as recorder:
        for _ in range(10):
            cameras = {
                "dead": np.zeros((16, 16, 3), np.uint8),
                "frozen": frozen,
                "alive": rng.integers(0, 256, (16, 16, 3), np.uint8),
            }
            row = {f"observation.images.{name}": value for name, value in cameras.items()}
            recorder.add({**row, "action": [0.0]})
        recorder.save_episode("t")
        notes = " ".join(summarise(open_dataset(recorder.finish()))["notes"])
    assert "view 'dead' is dark" in notes
    assert "view 'frozen' hardly changes" in notes
    assert "'alive'" not in notes


@pytest.mark.parametrize(("count", "among"), [(4, 1), (4, 3), (4, 4), (4, 9), (8, 200)])
def test_spread_covers_both_ends(count, among):
    chosen = spread(count, among)
    assert (chosen[0], chosen[-1]) == (0, among - 1)
    assert len(chosen) == len(set(chosen)) == min(count, among)


def test_contact_sheet_shows_the_frames(tmp_path, small_dataset):
    episodes = open_dataset(small_dataset)
    path = contact_sheet(episodes, tmp_path / "new" / "sheet.png", count=2, columns=4)
    with PIL.Image.open(path) as image:
        sheet = np.asarray(image)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    assert len(sheet) == 4 * 132
    # The second tile of the first row is frame 4 of episode 0, enlarged 7 times.
    tile = sheet[:112, 150 + 116 : 150 + 116 + 112]
    np.testing.assert_array_equal(tile[3::7, 3::7], episodes[0].views["top"][4])
