import os

import av
import numpy as np
import pytest

from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError


def clip(count=12, h=32, w=48):
    ramp = np.linspace(0, 255, w, dtype=np.uint8)
    return [np.roll(np.tile(ramp[None, :, None], (h, 1, 3)), 3 * t, axis=1) for t in range(count)]


def decode(path):
    with av.open(str(path)) as container:
        rate = float(container.streams.video[0].average_rate or 0)
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return np.array(frames), rate


def test_frames_come_back_in_order_at_their_rate(tmp_path):
    frames = clip()
    got, rate = decode(write_video(tmp_path / "a" / "clip.mp4", frames, 12.5))
    assert rate == 12.5
    assert len(got) == len(frames)
    for mine, theirs in zip(frames, got, strict=True):
        assert np.abs(mine.astype(int) - theirs.astype(int)).mean() < 6


def test_odd_sides_are_padded_by_one_pixel(tmp_path):
    got, _ = decode(write_video(tmp_path / "odd.mp4", clip(3, 33, 47), 10))
    assert got[0].shape == (34, 48, 3)


def test_no_frames_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(DatasetError, match="no frames"):
        write_video(tmp_path / "none.mp4", [], 10)
    assert os.listdir(tmp_path) == []


def test_frames_of_two_sizes_are_refused_and_the_old_video_stays(tmp_path):
    path = write_video(tmp_path / "v.mp4", clip(4), 10)
    before = path.read_bytes()
    with pytest.raises(DatasetError, match=r"frame 4 for .*\(40, 48\).*\(32, 48\)"):
        write_video(path, clip(4) + clip(1, 40, 48), 10)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_a_generator_that_fails_half_way_leaves_nothing(tmp_path):
    def frames():
        yield from clip(5)
        raise RuntimeError("camera unplugged")

    with pytest.raises(RuntimeError, match="unplugged"):
        write_video(tmp_path / "v.mp4", frames(), 10)
    assert os.listdir(tmp_path) == []
