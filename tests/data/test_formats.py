"""Each foreign format is read as what it holds: frames, numbers, success, task, rate."""

import json
import zipfile

import foreign
import numpy as np
import pytest

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.data.formats.layout import Layout
from embodied_reward.errors import DatasetError


def facts(episodes):
    return {name: (fact.value, fact.origin) for name, fact in episodes.facts.items()}


@pytest.mark.parametrize(
    ("dtype", "scale", "range_"),
    [(np.float32, 1, "byte"), (np.uint8, 1, "byte"), (np.float32, 1 / 255, "unit")],
)
@pytest.mark.parametrize("version", [2, 3])
def test_pusht(tmp_path, dtype, scale, range_, version):
    made = foreign.demos()
    path = foreign.pusht(tmp_path / "p.zarr", made, dtype, scale, version)
    episodes = open_dataset(path)
    check_dataset(episodes)
    assert (episodes.views, episodes.fps, episodes.lengths) == (("img",), 10.0, (5, 3, 7))
    assert facts(episodes)["value_range"] == (range_, "detected")
    assert facts(episodes)["fps"] == (10.0, "assumed")
    for episode, demo in zip(episodes, made, strict=True):
        np.testing.assert_array_equal(episode.views["img"], demo.pictures["agentview"])
        np.testing.assert_array_equal(episode.action, demo.action[:, :2].astype(np.float32))
        np.testing.assert_array_equal(episode.state, demo.numbers["state"].astype(np.float32))
        assert (episode.success, episode.progress, episode.task) == (None, None, "")
    assert episodes.features["keypoint"]["shape"] == (9, 2)


@pytest.mark.parametrize("inside", ["", "pusht/replay.zarr/"])
def test_a_zip_wherever_the_store_lies_in_it(tmp_path, inside):
    made = foreign.demos()
    folder = foreign.pusht(tmp_path / "p.zarr", made)
    with zipfile.ZipFile(tmp_path / "p.zarr.zip", "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, inside + file.relative_to(folder).as_posix())
    for episode, demo in zip(open_dataset(tmp_path / "p.zarr.zip"), made, strict=True):
        np.testing.assert_array_equal(episode.views["img"], demo.pictures["agentview"])


def umi_demos():
    return foreign.demos(widths={"pose": 7})


def check_umi(path, made, exact=True):
    episodes = open_dataset(path)
    check_dataset(episodes)
    assert (episodes.kind, episodes.views) == ("UMI zarr", ("camera0_rgb",))
    assert episodes.fps == 59.94
    for episode, demo in zip(episodes, made, strict=True):
        pose = demo.numbers["pose"].astype(np.float32)
        np.testing.assert_array_equal(episode.state, pose)
        # No action is stored: the next pose, and the last one again.
        np.testing.assert_array_equal(episode.action, np.concatenate([pose[1:], pose[-1:]]))
        frames, truth = episode.views["camera0_rgb"], demo.pictures["agentview"]
        assert frames.shape == truth.shape
        if exact:
            np.testing.assert_array_equal(frames, truth)
        else:
            assert np.abs(frames.astype(int) - truth).mean() < 12
    assert facts(episodes)["action"] == ("the state of the next row", "assumed")


def test_umi(tmp_path):
    made = umi_demos()
    check_umi(foreign.umi(tmp_path / "u.zarr", made), made)


def test_umi_in_jpeg_xl(tmp_path):
    numcodecs = pytest.importorskip("imagecodecs.numcodecs")
    numcodecs.register_codecs(verbose=False)
    made = umi_demos()
    lossless = numcodecs.Jpegxl(lossless=True)
    check_umi(foreign.umi(tmp_path / "u.zarr", made, lossless), made)
    lossy = numcodecs.Jpegxl(level=90)
    check_umi(foreign.umi(tmp_path / "l.zarr", made, lossy), made, exact=False)


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_robomimic(tmp_path, compression):
    made = foreign.demos(count=12, views=("agentview", "eye"), widths=foreign.ROBOSUITE)
    path = foreign.robomimic(tmp_path / "r.hdf5", made, compression=compression)
    episodes = open_dataset(path)
    check_dataset(episodes)
    # demo_10 comes after demo_9, not after demo_1.
    assert episodes.lengths == tuple(len(d) for d in made)
    assert (episodes.kind, episodes.fps, episodes.tasks) == ("robomimic", 25.0, ("Lift",))
    assert facts(episodes)["orientation"] == ("upright", "assumed")
    for i, (episode, demo) in enumerate(zip(episodes, made, strict=True)):
        for view in ("agentview", "eye"):
            np.testing.assert_array_equal(episode.views[f"{view}_image"], demo.pictures[view])
        np.testing.assert_array_equal(episode.action, demo.action.astype(np.float32))
        numbers = demo.numbers
        state = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
        expected = np.concatenate([numbers[n] for n in state], axis=1).astype(np.float32)
        np.testing.assert_array_equal(episode.state, expected)
        expected = numbers["object"].astype(np.float32)
        np.testing.assert_array_equal(episode.environment_state, expected)
        assert episode.success is (i % 3 != 2)
        assert not episode.success_frames.any()  # the last transition's outcome is not stored


@pytest.mark.parametrize(
    ("convention", "expected"),
    [("opengl", ("flipped", "recorded")), (None, ("flipped", "assumed"))],
)
def test_libero_is_turned_upright(tmp_path, convention, expected):
    made = foreign.demos(widths=foreign.LIBERO)
    episodes = open_dataset(foreign.libero(tmp_path / "l.hdf5", made, convention))
    check_dataset(episodes)
    assert (episodes.kind, episodes.fps) == ("LIBERO", 20.0)
    assert episodes.tasks == ("open the middle drawer",)
    assert facts(episodes)["orientation"] == expected
    assert any("after the action" in note for note in episodes.notes)
    for episode, demo in zip(episodes, made, strict=True):
        np.testing.assert_array_equal(episode.views["agentview_rgb"], demo.pictures["agentview"])
        assert episode.state.shape[1] == 8
        assert episode.success is True


def test_maniskill(tmp_path):
    made = foreign.demos(views=("base", "hand"), widths=foreign.MANISKILL)
    episodes = open_dataset(foreign.maniskill(tmp_path / "trajectory.h5", made))
    check_dataset(episodes)
    assert (episodes.kind, episodes.fps, episodes.tasks) == ("ManiSkill", 10.0, ("PickCube-v1",))
    assert episodes.views == ("base", "hand")
    assert episodes.successes == (True, False, True)
    assert any("depth (no colour picture)" in note for note in episodes.notes)
    for episode, demo in zip(episodes, made, strict=True):
        # The observation after the last action has no row of its own.
        np.testing.assert_array_equal(episode.views["base"], demo.pictures["base"])
        expected = np.concatenate([demo.numbers["qpos"], demo.numbers["qvel"]], axis=1)
        np.testing.assert_array_equal(episode.state, expected.astype(np.float32))
    # The folder that ManiSkill downloads is a dataset too.
    assert open_dataset(tmp_path).lengths == episodes.lengths


def test_maniskill_without_its_json(tmp_path):
    made = foreign.demos(widths=foreign.MANISKILL)
    path = foreign.maniskill(tmp_path / "trajectory.h5", made, meta=False)
    episodes = open_dataset(path, layout=Layout(task="pick the cube"))
    assert (episodes.fps, episodes.tasks) == (20.0, ("pick the cube",))
    assert any("no 'trajectory.json'" in note for note in episodes.notes)


def test_videos(tmp_path):
    episodes = open_dataset(foreign.videos(tmp_path / "v"))
    check_dataset(episodes)
    assert (episodes.views, episodes.lengths, episodes.fps) == (("top", "wrist"), (6, 9), 10.0)
    assert (episodes.successes, episodes.episode_tasks) == ((True, False), ("task 0", "task 1"))
    assert episodes.storage("top") == "video"
    episode = episodes[1]
    assert (episode.success, episode.state, episode.action.shape) == (False, None, (9, 0))
    truth = foreign.bars(9, (60, 90, 200))
    assert np.abs(episode.views["top"].astype(int) - truth).mean() < 8
    width = (episode.views["top"][:, 8, :, 2] > 100).sum(axis=1)
    np.testing.assert_allclose(width, 2 * np.arange(1, 10), atol=2)


def test_videos_without_a_manifest(tmp_path):
    for i, length in enumerate((4, 6)):
        foreign.write_mp4(tmp_path / f"take{i}.mp4", foreign.bars(length, (60, 90, 200)))
    episodes = open_dataset(tmp_path)
    assert (episodes.views, episodes.lengths) == (("video",), (4, 6))
    assert episodes.successes == (None, None)
    assert facts(episodes)["fps"] == (10.0, "detected")


def turned(frames, orientation):
    return {
        "upright": frames,
        "flipped": frames[:, ::-1],
        "rotated": frames[:, ::-1, ::-1],
        "mirrored": frames[:, :, ::-1],
    }[orientation]


@pytest.mark.parametrize("orientation", ["upright", "flipped", "rotated", "mirrored"])
@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize("axes", ["hwc", "chw"])
def test_every_reading_of_a_picture_is_undone(tmp_path, orientation, colour, axes):
    import zarr

    frames = foreign.scene(np.random.default_rng(0), 4)
    stored = turned(frames, orientation)
    stored = stored[..., ::-1] if colour == "bgr" else stored
    stored = np.moveaxis(stored, -1, 1) if axes == "chw" else stored
    root = zarr.open_group(str(tmp_path / "s.zarr"), mode="w", zarr_format=2)
    foreign.add_v2(root.create_group("data"), "top", np.ascontiguousarray(stored))
    foreign.add_v2(root.create_group("meta"), "episode_ends", np.array([4]))
    layout = Layout(orientation=orientation, colour=colour)
    episodes = open_dataset(tmp_path / "s.zarr", layout=layout)
    np.testing.assert_array_equal(episodes[0].views["top"], frames)
    assert facts(episodes)["axes"] == (axes, "detected")
    assert facts(episodes)["orientation"] == (orientation, "given")


def test_a_lerobot_dataset_that_was_converted_upside_down(small_dataset):
    upright = open_dataset(small_dataset)[0].views["top"]
    rotated = open_dataset(small_dataset, layout=Layout(orientation="rotated"))
    np.testing.assert_array_equal(rotated[0].views["top"], upright[:, ::-1, ::-1])
    with pytest.raises(DatasetError, match="--layout.fps has no meaning for LeRobot datasets"):
        open_dataset(small_dataset, layout=Layout(fps=5))


def test_choosing_the_state(tmp_path):
    made = foreign.demos(widths=foreign.ROBOSUITE)
    path = foreign.robomimic(tmp_path / "r.hdf5", made)
    layout = Layout(state=("obs/object", "obs/robot0_eef_pos"), task="lift the cube", fps=12.5)
    episodes = open_dataset(path, layout=layout)
    expected = np.concatenate([made[0].numbers[n] for n in ("object", "robot0_eef_pos")], axis=1)
    np.testing.assert_array_equal(episodes[0].state, expected.astype(np.float32))
    assert (episodes[0].task, episodes.fps) == ("lift the cube", 12.5)
    with pytest.raises(DatasetError, match="no numeric array 'eef_pos'"):
        open_dataset(path, layout=Layout(state=("eef_pos",)))


def test_several_files_open_as_one(tmp_path):
    for name in ("a.hdf5", "b.hdf5"):
        foreign.robomimic(tmp_path / name, foreign.demos(widths=foreign.ROBOSUITE))
    episodes = open_dataset(f"{tmp_path / 'a.hdf5'},{tmp_path / 'b.hdf5'}")
    assert [e.index for e in episodes] == list(range(6))
    with pytest.raises(DatasetError, match="holds 2 HDF5 files; pass the ones"):
        open_dataset(tmp_path)


def test_dense_rewards_say_nothing_about_success(tmp_path):
    import h5py

    path = foreign.robomimic(tmp_path / "r.hdf5", foreign.demos(widths=foreign.ROBOSUITE))
    with h5py.File(path, "r+") as file:
        file["data/demo_1/rewards"][0] = 0.37
    assert open_dataset(path).successes == (None, None, None)


def test_chunks_of_zeros_that_zarr_3_leaves_out(tmp_path):
    path = foreign.pusht(tmp_path / "p.zarr", foreign.demos())
    next((path / "data" / "img").glob("1.*")).unlink()
    episodes = open_dataset(path)
    with pytest.raises(DatasetError, match=r"img/1\.0\.0\.0' of .* is missing"):
        check_dataset(episodes)
    filled = open_dataset(path, layout=Layout(missing_chunks="fill"))
    assert not filled[1].views["img"].any()
    check_dataset(filled)


def test_numbers_are_read_without_pictures(tmp_path):
    """An index and the numbers must not cost the decoding of a camera."""
    made = foreign.demos()
    path = foreign.pusht(tmp_path / "p.zarr", made, np.uint8)
    episodes = open_dataset(path)
    for file in (path / "data" / "img").glob("[0-9]*"):
        file.write_bytes(b"no chunk")
    assert (episodes.lengths, len(episodes), episodes.successes) == ((5, 3, 7), 3, (None,) * 3)
    np.testing.assert_array_equal(episodes[2].action, made[2].action[:, :2].astype(np.float32))
    with pytest.raises(DatasetError, match="img"):
        check_dataset(episodes)


def test_sources_survive_pickling_and_forking(tmp_path):
    """Data loaders send datasets to worker processes."""
    import copy

    folder = foreign.pusht(tmp_path / "p.zarr", foreign.demos(), np.uint8)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for file in folder.rglob("*"):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    for path in (folder, tmp_path / "p.zip"):
        episodes = open_dataset(path)
        before = episodes[1].views["img"]
        np.testing.assert_array_equal(copy.deepcopy(episodes)[1].views["img"], before)


def test_json_that_belongs_to_another_recording(tmp_path):
    path = foreign.maniskill(tmp_path / "t.h5", foreign.demos(widths=foreign.MANISKILL))
    other = json.loads(path.with_suffix(".json").read_text())
    other["episodes"][1]["elapsed_steps"] = 99
    path.with_suffix(".json").write_text(json.dumps(other))
    with pytest.raises(DatasetError, match="lists 99 steps for 'traj_1'"):
        open_dataset(path)
