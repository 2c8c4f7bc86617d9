"""Turn stored pictures into upright RGB bytes."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embodied_reward.data.formats import limits
from embodied_reward.errors import DatasetError
from embodied_reward.types import UInt8

# What undoes each orientation; each is its own inverse.
_TURN = {
    "upright": (slice(None), slice(None)),
    "flipped": (slice(None, None, -1), slice(None)),
    "rotated": (slice(None, None, -1), slice(None, None, -1)),
    "mirrored": (slice(None), slice(None, None, -1)),
}
_MIN_FLOAT_SIDE = 8  # smaller float arrays of this rank are matrices, not pictures


@dataclass(frozen=True)
class Picture:
    """One view as it is stored.

    Attributes:
        name: the stored array.
        size: (height, width) in pixels.
        axes: `hwc` or `chw`.
        value_range: `byte` or `unit`.
        orientation: see `Layout`.
        colour: `rgb` or `bgr`.
    """

    name: str
    size: tuple[int, int]
    axes: str
    value_range: str = "byte"
    orientation: str = "upright"
    colour: str = "rgb"

    def upright(self, block: npt.NDArray, where: str) -> UInt8:
        """Return stored pictures, t first, as UInt8["t h w 3"].

        Raises:
            DatasetError: values that are not finite or outside the range.
        """
        block = block.transpose(0, 2, 3, 1) if self.axes == "chw" else block
        block = reorient(to_bytes(block, self.value_range, where), self.orientation)
        block = block[..., ::-1] if self.colour == "bgr" else block
        return np.ascontiguousarray(block)


def reorient[T: np.generic](frames: npt.NDArray[T], orientation: str) -> npt.NDArray[T]:
    """Return frames [..., h, w, 3] stored in `orientation` as upright ones."""
    rows, columns = _TURN[orientation]
    return frames[..., rows, columns, :]


def find_axes(shape: tuple[int, ...], dtype: np.dtype, wanted: str | None) -> str | None:
    """Return `hwc` or `chw` if one row of this shape and type is a colour picture, else None."""
    if len(shape) != 3 or dtype.kind not in "uif" or 0 in shape:
        return None
    for axes, channels in (("hwc", shape[2]), ("chw", shape[0])):
        if channels == 3 and wanted in (None, axes):
            sides = shape[:2] if axes == "hwc" else shape[1:]
            if dtype != np.uint8 and min(sides) < _MIN_FLOAT_SIDE:
                return None
            return axes
    return None


def sides(shape: tuple[int, ...], axes: str, where: str) -> tuple[int, int]:
    """Return (height, width) of a picture's shape. Raises DatasetError if absurd."""
    height, width = shape[:2] if axes == "hwc" else shape[1:]
    if max(height, width) > limits.SIDE:
        raise DatasetError(
            f"{where} declares pictures of {height}x{width} pixels, more than {limits.SIDE} a "
            "side; the file is damaged: get it again from its source"
        )
    return int(height), int(width)


def to_bytes(block: npt.NDArray, value_range: str, where: str) -> UInt8:
    """Return pictures of any numeric type as uint8; floats are rounded to the nearest level."""
    if block.dtype == np.uint8:
        return block
    scale, top = (255.0, 1.0) if value_range == "unit" else (1.0, 255.0)
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        raise DatasetError(
            f"{where} holds a pixel that is not finite; delete the episode or record it again"
        )
    low, high = float(block.min()), float(block.max())
    if low < 0 or high > top:
        raise DatasetError(
            f"{where} has pixels from {low:g} to {high:g} where {value_range} means 0 to {top:g}; "
            f"give --layout.value_range={'byte' if value_range == 'unit' else 'unit'}, "
            "or mend the file"
        )
    return np.rint(block * scale).astype(np.uint8)
