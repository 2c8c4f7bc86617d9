"""What our writers note in a file so that a reader, ours, need not guess.

Foreign readers ignore it. Written as the JSON attribute `NAME` of the root (zarr) or of `data`
(HDF5).
"""

from collections.abc import Mapping
from typing import Any

NAME = "embodied_reward"
SIM_STATE = "observation.sim_state"  # MuJoCo's flattened state, from which robomimic replays


def make_record(
    columns: Mapping[str, list[str]],
    views: list[str],
    *,
    fps: float,
    robot_type: str,
    info: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the record of a file whose pictures are upright RGB bytes, channels last.

    Args:
        columns: LeRobot key -> the stored arrays that make it up.
        views: stored arrays that are pictures.
        fps: rows per second [Hz].
        robot_type: LeRobot's name of the embodiment.
        info: json-able facts that came with the dataset.
    """
    pictures = {"orientation": "upright", "colour": "rgb", "value_range": "byte", "axes": "hwc"}
    return {
        "version": 1,
        "numbers": dict(columns),
        "views": views,
        "fps": fps,
        "robot_type": robot_type,
        "info": dict(info),
        **pictures,
    }
