"""`er data convert`: one dataset format into another."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from embodied_reward.data.formats.layout import Layout
from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from embodied_reward.data.convert import Conversion, Target

Format = Literal["auto", "lerobot", "zarr", "robomimic"]
Storage = Literal["auto", "image", "video"]
_SUFFIXES = {".zarr": "zarr", ".zip": "zarr", ".hdf5": "robomimic", ".h5": "robomimic"}


@dataclass
class ConvertConfig:
    """Write a dataset of any format that is read as LeRobot v3, zarr or robomimic."""

    input: str = ""
    """LeRobot v3 or v2.1, zarr replay buffer (folder or zip), robomimic, LIBERO or ManiSkill HDF5,
    or a folder of mp4 files"""
    output: str = ""
    """the new dataset, which must not exist; a zarr name ending in .zip is packed"""
    format: Format = "auto"
    """what to write; auto goes by the output's ending"""
    views: tuple[str, ...] = ()
    """cameras to carry; default all"""
    storage: Storage = "auto"
    """LeRobot: image is lossless, video compresses, auto is lossless up to 128 pixels a side"""
    verify: bool = True
    """read the result back and compare every number and picture with the source"""
    layout: Layout = field(default_factory=Layout)


def convert(config: ConvertConfig) -> int:
    """Convert a dataset. Raises ConfigError, DatasetError or MissingDependencyError."""
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.data.convert import Progress, convert

    if not config.input or not config.output:
        raise ConfigError("give the dataset and its new place: --input=PATH --output=PATH")
    with progress_bar() as bars:

        def start(stage: str) -> Progress:
            bar = bars.add_task(stage, total=None)
            return lambda done, total: bars.update(bar, completed=done, total=total)

        result = convert(
            config.input,
            config.output,
            _target(config),
            layout=config.layout,
            views=config.views,
            storage=config.storage,
            verify=config.verify,
            progress=start,
        )
    _report(result)
    return 0


def _target(config: ConvertConfig) -> "Target":
    if config.format != "auto":
        return config.format
    ending = next((e for e in _SUFFIXES if config.output.endswith(e)), None)
    return "lerobot" if ending is None else _SUFFIXES[ending]  # pyright: ignore[reportReturnType]


def _report(result: "Conversion") -> None:
    print(f"{result.episodes} episodes, {result.frames} frames: {result.path}")
    if result.picture_error is None:
        print("not compared with the source")
    elif result.picture_error > 0:
        print(
            f"numbers equal the source; video codec: worst frame {result.picture_error:.1f} of 255 "
            "from it on average (--storage=image is lossless)"
        )
    else:
        print("every number and every picture equals the source")
    if result.left_out:
        print(f"left out: {', '.join(result.left_out)}")
    print(f"next:\n  er data inspect {result.path}")
