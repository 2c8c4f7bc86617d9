"""Tiny datasets in other people's formats, written the way their own tools write them."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import av
import h5py
import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

LZ4 = numcodecs.Blosc("lz4", clevel=5, shuffle=numcodecs.Blosc.NOSHUFFLE)


def scene(rng, length, size=(8, 10)):
    """Upright pictures with a bright sky and a red left border: no two orientations look alike."""
    frames = rng.integers(0, 60, (length, *size, 3), np.uint8)
    frames[:, : size[0] // 2] += 150
    frames[:, :, :2] = (220, 20, 30)
    return frames


@dataclass
class Demo:
    """What a dataset is made of; `pictures` are upright RGB."""

    pictures: dict[str, np.ndarray]
    action: np.ndarray
    numbers: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self):
        return len(self.action)


def demos(count=3, views=("agentview",), widths=None, seed=0, lengths=(5, 3, 7), size=(8, 10)):
    rng = np.random.default_rng(seed)
    widths = widths or {"state": 3}
    made = []
    for index in range(count):
        length = lengths[index % len(lengths)]
        numbers = {name: rng.normal(size=(length, n)) for name, n in widths.items()}
        pictures = {view: scene(rng, length, size) for view in views}
        made.append(Demo(pictures, rng.uniform(-1, 1, (length, 4)), numbers))
    return made


def stack(episodes, get):
    return np.concatenate([get(e) for e in episodes])


def add_v2(group, name, data, chunks=None, compressor=LZ4):
    array = group.create_array(
        name,
        shape=data.shape,
        chunks=chunks or data.shape,
        dtype=data.dtype,
        compressors=compressor,
        config={"write_empty_chunks": True},
    )
    array[:] = data
    return array


def pusht(path, episodes, dtype=np.float32, scale=1.0, version=2, **kwargs):
    """Diffusion policy's PushT: float pictures 0 to 255, state, action, keypoints."""
    pictures = stack(episodes, lambda e: e.pictures["agentview"]) / 255 * 255 * scale
    root = zarr.open_group(str(path), mode="w", zarr_format=version)
    data, meta = root.create_group("data"), root.create_group("meta")
    add = add_v3 if version == 3 else add_v2
    add(data, "img", pictures.astype(dtype), (4, *pictures.shape[1:]), **kwargs)
    add(data, "state", stack(episodes, lambda e: e.numbers["state"]).astype(np.float32))
    add(data, "action", stack(episodes, lambda e: e.action[:, :2]).astype(np.float32))
    total = sum(map(len, episodes))
    add(data, "keypoint", np.arange(18.0 * total, dtype=np.float32).reshape(total, 9, 2))
    add(meta, "episode_ends", np.cumsum([len(e) for e in episodes]))
    return path


def add_v3(group, name, data, chunks=None):
    array = group.create_array(
        name, shape=data.shape, chunks=chunks or data.shape, dtype=data.dtype
    )
    array[:] = data


def umi(path, episodes, compressor=LZ4):
    """UMI: one picture a chunk, poses, no action."""
    root = zarr.open_group(str(path), mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    pictures = stack(episodes, lambda e: e.pictures["agentview"])
    add_v2(data, "camera0_rgb", pictures, (1, *pictures.shape[1:]), compressor)
    names = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1}
    poses = stack(episodes, lambda e: e.numbers["pose"]).astype(np.float32)
    at = 0
    for name, width in names.items():
        add_v2(data, f"robot0_{name}", poses[:, at : at + width])
        at += width
    add_v2(meta, "episode_ends", np.cumsum([len(e) for e in episodes]))
    return path


def robomimic(path, episodes, success=(True, True, False), compression=None):
    """robomimic's `dataset_states_to_obs.py --done_mode 2`: upright pictures, sparse rewards."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i, episode in enumerate(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(episode)
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"] = episode.action
            won = np.zeros(len(episode))
            won[-1] = success[i % len(success)]
            demo["rewards"], demo["dones"] = won, np.arange(len(episode)) == len(episode) - 1
            demo["states"] = np.full((len(episode), 6), float(i))
            for view, frames in episode.pictures.items():
                demo.create_dataset(f"obs/{view}_image", data=frames, compression=compression)
                demo.create_dataset(f"next_obs/{view}_image", data=frames[::-1])
            for name, rows in episode.numbers.items():
                demo[f"obs/{name}"] = rows
        data.attrs["total"] = sum(map(len, episodes))
        data.attrs["env_args"] = json.dumps(
            {
                "env_name": "Lift",
                "type": 1,
                "env_kwargs": {"control_freq": 25, "robots": ["Panda"]},
            }
        )
        file.create_group("mask")["train"] = np.array([b"demo_0", b"demo_1"])
    return path


ROBOSUITE = {"robot0_gripper_qpos": 2, "object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4}


def libero(path, episodes, convention="opengl"):
    """LIBERO's `create_dataset.py`: pictures upside down, uint8 rewards, task in words."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for i, episode in enumerate(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = len(episode)
            demo.attrs["init_state"] = np.zeros(6)
            end = (np.arange(len(episode)) == len(episode) - 1).astype(np.uint8)
            demo["actions"], demo["rewards"], demo["dones"] = episode.action, end, end
            demo["states"] = np.zeros((len(episode), 6))
            demo["robot_states"] = np.ones((len(episode), 9))
            for view, frames in episode.pictures.items():
                demo[f"obs/{view}_rgb"] = frames[:, ::-1]
            for name, rows in episode.numbers.items():
                demo[f"obs/{name}"] = rows
        data.attrs["bddl_file_name"] = "libero_goal/open_the_middle_drawer.bddl"
        data.attrs["problem_info"] = json.dumps(
            {"language_instruction": ["open", "the", "middle", "drawer"]}
        )
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Libero", "env_kwargs": {"control_freq": 20, "reward_shaping": True}}
        )
        if convention:
            data.attrs["macros_image_convention"] = convention
    return path


LIBERO = {"ee_states": 6, "gripper_states": 2, "joint_states": 7, "ee_pos": 3, "ee_ori": 3}


def maniskill(path, episodes, success=(True, False, True), meta=True):
    """ManiSkill's `RecordEpisode` with obs_mode rgb: observations are one row longer."""
    with h5py.File(path, "w") as file:
        for i, episode in enumerate(episodes):
            traj, length = file.create_group(f"traj_{i}", track_order=True), len(episode)
            traj["actions"] = episode.action.astype(np.float32)
            won = (np.arange(length) == length - 1) & success[i % len(success)]
            traj["success"], traj["terminated"] = won, won
            traj["truncated"] = ~won & (np.arange(length) == length - 1)
            for view, frames in episode.pictures.items():
                longer = np.concatenate([frames, frames[-1:] // 2])
                traj[f"obs/sensor_data/{view}/rgb"] = longer
                traj[f"obs/sensor_data/{view}/depth"] = longer[..., :1].astype(np.int16)
                traj[f"obs/sensor_param/{view}/extrinsic_cv"] = np.zeros((length + 1, 3, 4), "f4")
            for name, rows in episode.numbers.items():
                traj[f"obs/agent/{name}"] = np.concatenate([rows, rows[-1:]]).astype(np.float32)
            traj["env_states/actors/cube"] = np.zeros((length + 1, 13), np.float32)
    if meta:
        lines = [{"episode_id": i, "elapsed_steps": len(e)} for i, e in enumerate(episodes)]
        info = {
            "env_id": "PickCube-v1",
            "env_kwargs": {"obs_mode": "rgb", "sim_config": {"control_freq": 10}},
        }
        text = json.dumps({"env_info": info, "episodes": lines})
        Path(path).with_suffix(".json").write_text(text)
    return path


MANISKILL = {"qpos": 9, "qvel": 9}


def bars(length, colour, size=(32, 48)):
    """A bar that grows by two pixels a frame survives any codec."""
    frames = np.full((length, *size, 3), 20, np.uint8)
    for t in range(length):
        frames[t, :16, : 2 * (t + 1)] = colour
    return frames


def write_mp4(path, frames, fps=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "5"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_mp4(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def videos(root, lengths=(6, 9), views=("top", "wrist"), manifest=True, fps=10):
    """A folder of mp4 files, with a manifest that says who filmed what."""
    episodes = []
    for i, length in enumerate(lengths):
        named = {view: f"{view}/{i}.mp4" for view in views}
        for k, (view, name) in enumerate(named.items()):
            del view
            write_mp4(root / name, bars(length, (60 + 100 * k, 90, 200)), fps)
        episodes.append({"views": named, "success": i == 0, "task": f"task {i}"})
    if manifest:
        (root / "manifest.json").write_text(json.dumps({"fps": fps, "episodes": episodes}))
    return root


def lerobot_v21(root, lengths=(6, 9), fps=10, video=True):
    """LeRobot of early 2025: a parquet and an mp4 per episode, metadata in JSON lines."""
    (root / "meta").mkdir(parents=True)
    key = "observation.images.top"
    features = {
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
    }
    counters = ("frame_index", "episode_index", "index", "task_index")
    features |= {name: {"dtype": "int64", "shape": [1], "names": None} for name in counters}
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    if video:
        features[key] = {
            "dtype": "video",
            "shape": [32, 48, 3],
            "names": ["height", "width", "channels"],
            "info": {"video.fps": float(fps), "video.codec": "h264", "video.channels": 3},
        }
    lines, stats, first = [], [], 0
    for i, length in enumerate(lengths):
        rows = {
            "action": [[float(i), float(t)] for t in range(length)],
            "observation.state": [[-float(i), t / 10] for t in range(length)],
            "timestamp": np.arange(length, dtype=np.float32) / fps,
            "frame_index": np.arange(length),
            "episode_index": np.full(length, i),
            "index": first + np.arange(length),
            "task_index": np.full(length, i),
        }
        place = root / "data" / "chunk-000" / f"episode_{i:06d}.parquet"
        place.parent.mkdir(parents=True, exist_ok=True)
        vectors = pa.list_(pa.float32())
        types = {"action": vectors, "observation.state": vectors}
        columns = {k: pa.array(v, type=types.get(k)) for k, v in rows.items()}
        pq.write_table(pa.table(columns), place)
        name = f"videos/chunk-000/{key}/episode_{i:06d}.mp4"
        if video:
            write_mp4(root / name, bars(length, (60, 90, 200)), fps)
        lines.append({"episode_index": i, "tasks": [f"task {i}"], "length": length})
        stats.append({"episode_index": i, "stats": _stats(rows, length, video and key)})
        first += length
    info = {
        "codebase_version": "v2.1",
        "robot_type": "arm",
        "total_episodes": len(lengths),
        "total_frames": sum(lengths),
        "total_tasks": len(lengths),
        "total_videos": len(lengths) * video,
        "total_chunks": 1,
        "chunks_size": 1000,
        "fps": fps,
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        if video
        else None,
        "features": features,
    }
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tasks = [{"task_index": i, "task": f"task {i}"} for i in range(len(lengths))]
    for name, rows in (("episodes", lines), ("episodes_stats", stats), ("tasks", tasks)):
        text = "\n".join(json.dumps(row) for row in rows) + "\n"
        (root / "meta" / f"{name}.jsonl").write_text(text)
    return root


def _stats(rows, length, key):
    found = {}
    for name, values in rows.items():
        array = np.asarray(values, np.float64).reshape(length, -1)
        found[name] = {
            "min": array.min(0).tolist(),
            "max": array.max(0).tolist(),
            "mean": array.mean(0).tolist(),
            "std": array.std(0).tolist(),
            "count": [length],
        }
    if key:
        channel = [[[0.5]], [[0.5]], [[0.5]]]
        found[key] = dict.fromkeys(("min", "max", "mean", "std"), channel) | {"count": [length]}
    return found
