"""Write robomimic's HDF5: `data/demo_<i>` with actions, rewards, dones, states and obs.

`next_obs` is left out, as by robomimic's own `--exclude-next-obs`. Pictures are upright and
gzip-compressed one by one, so that reading one row inflates one picture.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.data import schema
from embodied_reward.data.formats import record
from embodied_reward.data.formats.export import (
    Part,
    plan_export,
    read_columns,
)
from embodied_reward.data.formats.source import Source
from embodied_reward.errors import MissingDependencyError

if TYPE_CHECKING:
    import h5py

_NAMES = {
    schema.STATE: "obs/state",
    schema.ENVIRONMENT_STATE: "obs/environment_state",
    schema.ACTION: "actions",
    schema.REWARD: "rewards",
    schema.DONE: "dones",
    schema.SUCCESS: "success",
    schema.PROGRESS: "progress",
    record.SIM_STATE: "states",
}
_GYM = 2  # robomimic's EnvType.GYM_TYPE


def write_robomimic(source: Source, place: Path, progress: Callable[[int, int], None]) -> None:
    """Write every episode of `source` as the new file `place`.

    Raises:
        DatasetError: a number that is not finite, or a name that cannot be stored.
        MissingDependencyError: h5py is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            "writing HDF5 needs h5py; pip install 'embodied-reward[formats]'"
        ) from error
    planned = plan_export(source, _NAMES, "obs/")
    features, parts, views = planned.features, planned.parts, planned.views
    with h5py.File(place, "w") as file:
        data = file.create_group("data")
        for index, length in enumerate(source.lengths):
            demo = data.create_group(f"demo_{index}")
            demo.attrs["num_samples"] = length
            demo.attrs["ep_meta"] = json.dumps({"lang": source.tasks[index]})
            _write_numbers(demo, source, index, parts, features)
            _write_pictures(demo, source, index, views)
            progress(index + 1, len(source.lengths))
        data.attrs["total"] = sum(source.lengths)
        data.attrs["env_args"] = json.dumps(_env_args(source))
        data.attrs[record.NAME] = json.dumps(planned.noted(source))


def _write_numbers(
    demo: "h5py.Group",
    source: Source,
    index: int,
    parts: dict[str, list[Part]],
    features: dict[str, dict[str, Any]],
) -> None:
    length = source.lengths[index]
    for key, rows in read_columns(source, index, list(parts)).items():
        for part in parts[key]:
            values = rows[:, part.start : part.stop].reshape(length, *part.shape)
            demo.create_dataset(part.name, data=values.astype(features[key]["dtype"]))
    if schema.ACTION not in parts:
        demo.create_dataset("actions", data=np.zeros((length, 0), np.float32))
    # robomimic's loader wants both; what ends is known, what was rewarded may not be.
    if schema.DONE not in parts:
        demo.create_dataset("dones", data=np.arange(length) == length - 1)
    if schema.REWARD not in parts and schema.SUCCESS in parts:
        won = read_columns(source, index, [schema.SUCCESS])[schema.SUCCESS]
        demo.create_dataset("rewards", data=won[:, 0].astype(np.float32))


def _write_pictures(demo: "h5py.Group", source: Source, index: int, views: dict[str, str]) -> None:
    for view, name in views.items():
        size = (*source.size(view), 3)
        array = demo.create_dataset(
            name,
            (source.lengths[index], *size),
            np.uint8,
            chunks=(1, *size),
            compression="gzip",
            compression_opts=1,
        )
        row = 0
        for block in source.blocks(index, view):
            array[row : row + len(block)] = block
            row += len(block)


def _env_args(source: Source) -> dict[str, Any]:
    known = source.info.get("env_args")
    if isinstance(known, dict) and known:
        return known
    kwargs = {"control_freq": source.fps}
    return {"env_name": source.tasks[0] or "unknown", "type": _GYM, "env_kwargs": kwargs}
