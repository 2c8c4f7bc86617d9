"""LeRobot's key vocabulary, and feature declarations made from the arrays themselves."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.errors import DatasetError

IMAGES = "observation.images."
STATE = "observation.state"
ENVIRONMENT_STATE = "observation.environment_state"
ACTION = "action"
REWARD = "next.reward"
DONE = "next.done"
SUCCESS = "next.success"
PROGRESS = "progress"

# LeRobot's default codec visibly alters thin coloured detail at the sizes reward models read,
# and lossless images of this size are small; larger views are stored as video.
LOSSLESS_SIZE = 128

type Row = Mapping[str, Any]
type Arrays = Mapping[str, npt.NDArray[Any]]


def view_name(key: str) -> str:
    """Return the camera name of an image key: `observation.images.top` and `top` are one."""
    return key.removeprefix(IMAGES).removeprefix("observation.")


def to_array(key: str, value: Any, where: str) -> npt.NDArray[Any]:
    """Turn one value of a row into the array that is stored; scalars become shape (1,).

    Raises:
        DatasetError: an image that is not UInt8["h w 3"], or a number that is not finite.
    """
    array = np.atleast_1d(np.asarray(value))
    if key.startswith(IMAGES):
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise DatasetError(
                f"{where}: '{key}' must be uint8 of shape (h, w, 3), "
                f"got {array.dtype} of shape {array.shape}"
            )
        return array.copy()
    if array.dtype == np.bool_:
        return array
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DatasetError(f"{where}: '{key}' holds a value that is not finite: {array.tolist()}")
    return array


def shapes(arrays: Arrays) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return key -> (dtype, shape of one row); equal for episodes that fit together."""
    return {key: (str(a.dtype), a.shape[1:]) for key, a in sorted(arrays.items())}


def lerobot_features(arrays: Arrays, fps: float) -> dict[str, dict[str, Any]]:
    """Declare LeRobot features for one episode's arrays, each with a leading time axis."""
    return {key: _feature(key, array, fps) for key, array in arrays.items()}


def _feature(key: str, array: npt.NDArray[Any], fps: float) -> dict[str, Any]:
    shape = tuple(array.shape[1:])
    if not key.startswith(IMAGES):
        return {"dtype": str(array.dtype), "shape": shape, "names": None}
    return picture_feature(shape, fps)


def picture_feature(shape: tuple[int, ...], fps: float, storage: str = "auto") -> dict[str, Any]:
    """Declare a view of shape (h, w, 3): `image` (lossless), `video`, or `auto` by its size."""
    # LeRobot encodes videos at whole frame rates only.
    video = max(shape[:2]) > LOSSLESS_SIZE and float(fps).is_integer()
    kind = storage if storage != "auto" else "video" if video else "image"
    return {"dtype": kind, "shape": shape, "names": ["height", "width", "channels"]}


def whole_fps(fps: float) -> Any:
    """LeRobot declares fps as int; a whole number stays one, another is kept exactly."""
    return int(fps) if float(fps).is_integer() else float(fps)


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Silence the progress bars of Hugging Face `datasets`, one of which LeRobot shows a file."""
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
