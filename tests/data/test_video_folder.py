"""A folder of videos is opened like any dataset."""

import tracemalloc

import av
import numpy as np
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.data.convert import convert
from embodied_reward.data.formats.layout import Layout
from embodied_reward.data.inspect import summarise
from embodied_reward.data.video import write_video
from embodied_reward.errors import DatasetError
from embodied_reward.vision.frames import episode_frames, pictures_at


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


MEBIBYTE = 2**20
LARGE = (150, 720, 1280)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A film of 400 MiB when decoded: a bright bar goes from left to right."""
    root, (count, h, w) = tmp_path_factory.mktemp("large"), LARGE
    with av.open(str(root / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = w, h, "yuv420p"
        for t in range(count):
            frame = np.full((h, w, 3), 40, np.uint8)
            frame[:, 8 * t : 8 * t + 80] = (230, 190, 160)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(stream.encode())
    return root


def most_memory(run):
    """Return what `run` returns and the most memory that arrays took meanwhile [MiB]."""
    tracemalloc.start()
    try:
        return run(), tracemalloc.get_traced_memory()[1] / MEBIBYTE
    finally:
        tracemalloc.stop()


def bar(frames):
    """Return the centre of the bar in shares of the width, Float["t"]."""
    bright = frames.mean((1, 3)) > 120
    return (bright * np.arange(bright.shape[1])).sum(1) / bright.sum(1) / bright.shape[1]


def test_a_large_film_is_reduced_while_it_is_read(large):
    frames, memory = most_memory(lambda: open_dataset(large)[0].views["video"])
    assert frames.shape == (150, 144, 256, 3)
    assert memory < 70  # 16 MiB are kept; all frames as filmed are 396 MiB
    # The bar is where it was filmed, to a pixel.
    assert np.abs(bar(frames) - (8 * np.arange(150) + 39.5) / 1280).max() < 1 / 256
    (note,) = [n for n in summarise(open_dataset(large))["notes"] if "filmed" in n]
    assert "was filmed at 720x1280 and is read at 144x256 pixels" in note


def test_a_film_at_full_size_is_never_held_as_a_whole(large):
    episodes = open_dataset(large, layout=Layout(side=0))
    assert episodes.size("video") == (720, 1280)
    episode = episodes[0]
    (frames, present), memory = most_memory(lambda: episode_frames(episode, ("video",), 32))
    assert frames.shape == (150, 1, 32, 32, 3)
    assert present.all()
    assert memory < 160
    rows = [149, 0, 75]
    shown, memory = most_memory(lambda: pictures_at(episode, "video", rows))
    assert memory < 160
    assert np.abs(bar(shown) - (8 * np.array(rows) + 39.5) / 1280).max() < 2 / 1280
    _, memory = most_memory(lambda: check_dataset(episodes))
    assert memory < 160


def test_reading_in_blocks_gives_what_reading_at_once_does(large):
    layout = Layout(side=0)
    streamed, at_once = (open_dataset(large, layout=layout)[0] for _ in range(2))
    assert at_once.views["video"].shape == (150, 720, 1280, 3)  # now it is held
    blocks, whole = (episode_frames(e, ("video",), 32)[0] for e in (streamed, at_once))
    assert (blocks == whole).all()


def test_a_conversion_keeps_the_filmed_size_unless_it_is_asked_to_reduce(tmp_path):
    write_video(tmp_path / "films" / "one.mp4", clip(6, (300, 400)), 10.0)
    convert(tmp_path / "films", tmp_path / "kept.zarr", "zarr")
    assert open_dataset(tmp_path / "kept.zarr").size("video") == (300, 400)
    small = Layout(side=100)
    convert(tmp_path / "films", tmp_path / "small.zarr", "zarr", layout=small)
    assert open_dataset(tmp_path / "small.zarr")[0].views["video"].shape == (6, 75, 100, 3)


def test_a_film_from_a_telephone_held_upright_is_upright(tmp_path):
    """Its pictures are stored lying, and a matrix in the header says how players turn them."""
    upright = np.full((8, 64, 48, 3), 30, np.uint8)
    upright[:, :16] = (240, 200, 180)  # bright at the top
    lying = np.ascontiguousarray(np.rot90(upright, -1, axes=(1, 2)))
    path = write_video(tmp_path / "one.mp4", lying, 10.0)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44
    matrix = (0, -0x10000, 0, 0x10000, 0, 0, 0, 0, 0x40000000)
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in matrix)
    path.write_bytes(data)
    frames = open_dataset(tmp_path)[0].views["video"]
    assert frames.shape == upright.shape
    assert np.abs(frames.astype(int) - upright).mean() < 6


def test_a_side_that_cannot_be_is_refused(tmp_path):
    write_video(tmp_path / "one.mp4", clip(), 10.0)
    assert "--layout.side=-1: need >= 0" in message(
        lambda: open_dataset(tmp_path, layout=Layout(side=-1))
    )
