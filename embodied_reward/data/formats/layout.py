"""How pictures, numbers and time of a dataset are to be read, and who said so.

Formats without a standard leave these open: robosuite's pictures are stored upside down or not,
floats may mean 0 to 1 or 0 to 255, a zarr store does not say its frame rate. Every such choice
is an option of `Layout`; what is not given comes from the dataset's own record, then from what
the file shows, then from the format's habit, and `er data inspect` prints which.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from embodied_reward.errors import DatasetError

Orientation = Literal["auto", "upright", "flipped", "rotated", "mirrored"]
Colour = Literal["auto", "rgb", "bgr"]
ValueRange = Literal["auto", "byte", "unit"]
Axes = Literal["auto", "hwc", "chw"]
MissingChunks = Literal["refuse", "fill"]


@dataclass(frozen=True)
class Layout:
    """What a dataset does not say by itself; `auto` and empty mean: find out."""

    orientation: Orientation = "auto"
    """how pictures lie in the file: upright, flipped (first row is the bottom), rotated (by
    180 degrees) or mirrored (left is right)"""
    colour: Colour = "auto"
    """order of the colour channels in the file"""
    value_range: ValueRange = "auto"
    """range of pictures in the file: byte is 0 to 255 in any type, unit is floats in 0 to 1"""
    axes: Axes = "auto"
    """order of a picture's axes in the file"""
    fps: float | None = None
    """rows per second [Hz]"""
    task: str | None = None
    """the task in words, for every episode"""
    state: tuple[str, ...] = ()
    """stored arrays that make up observation.state, in this order"""
    environment_state: tuple[str, ...] = ()
    """stored arrays that make up observation.environment_state, in this order"""
    side: int | None = None
    """videos: longer side at which pictures are read, larger ones are reduced [px]; 0 reads them as
    filmed, and without it 256 (`er data convert`: as filmed)"""
    missing_chunks: MissingChunks = "refuse"
    """zarr: whether chunks that are not in the store are an error or mean the fill value"""


@dataclass(frozen=True)
class Fact:
    """One choice and where it comes from: `given`, `recorded`, `detected` or `assumed`."""

    value: Any
    origin: str


class Decisions:
    """Settles the open choices of one dataset and remembers each with its origin.

    Args:
        layout: what the caller gave.
        recorded: what the dataset says of itself; checked, because anybody may have written it.
        where: names the dataset in messages.
    """

    def __init__(self, layout: Layout, recorded: Mapping[str, Any], where: str) -> None:
        self._layout, self._where = layout, where
        self._recorded = {k: v for k, v in recorded.items() if v is not None}
        self.facts: dict[str, Fact] = {}
        check_fps(layout.fps, "--layout.fps")
        if layout.side is not None and layout.side < 0:
            raise DatasetError(f"--layout.side={layout.side}: need >= 0 [px]")

    def given(self, name: str) -> Any:
        """Return what the caller gave for `name`, or None."""
        value = getattr(self._layout, name)
        return None if value in ("auto", ()) else value

    def known(self, name: str) -> Any:
        """Return what the caller gave or the dataset records for `name`, or None."""
        if self.given(name) is None and name in self._recorded:
            return self._accepted(name, self._recorded[name])
        return self.given(name)

    def settle(self, name: str, otherwise: Any, origin: str = "assumed") -> Any:
        """Return the value of `name`: given, else recorded, else `otherwise`.

        Raises:
            DatasetError: the dataset records a value that is not accepted.
        """
        if self.given(name) is not None:
            fact = Fact(self.given(name), "given")
        elif name in self._recorded:
            fact = Fact(self._accepted(name, self._recorded[name]), "recorded")
        else:
            fact = Fact(otherwise, origin)
        self.facts[name] = fact
        return fact.value

    def _accepted(self, name: str, value: Any) -> Any:
        if name == "fps":
            return check_fps(value, f"the frame rate that {self._where} records")
        choices = get_args(get_type_hints(Layout)[name])
        if value not in choices:
            raise DatasetError(
                f"{self._where} records {name} = {value!r}; accepted: {', '.join(choices)}; "
                f"give the right one with --layout.{name}"
            )
        return value


def refuse_options(layout: Layout, names: tuple[str, ...], where: str) -> None:
    """Raise DatasetError if `layout` sets any option other than `names`."""
    if layout.side == 0:
        layout = replace(layout, side=None)  # pictures as they are stored: every format can do that
    for field in fields(Layout):
        if field.name not in names and getattr(layout, field.name) != field.default:
            raise DatasetError(
                f"--layout.{field.name} has no meaning for {where}; "
                f"it takes {', '.join(f'--layout.{n}' for n in names)}"
            )


def check_fps(value: Any, what: str) -> float | None:
    """Return a frame rate as float, None unchanged. Raises DatasetError if it is none."""
    if value is None:
        return None
    number = float(value) if isinstance(value, int | float) else math.nan
    if not math.isfinite(number) or not 0 < number <= 10_000:
        raise DatasetError(f"{what} is {value!r}; give a rate in Hz, such as --layout.fps=20")
    return number
