"""The `--env.variation.*` group: levels of every factor, and folders for backgrounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.envs.variation import Variation
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.types import UInt8

if TYPE_CHECKING:
    from embodied_reward.envs import VisualEnv
    from embodied_reward.envs.variation import Material

_SIDE = 128  # pictures and frames are kept no larger than this needs [px]
_FRAMES = 200  # of one video


@dataclass(frozen=True)
class VariationConfig(Variation):
    """What varies in the environment; nothing by default."""

    pictures: str = ""  # folder of pictures for `texture`, half of them per split
    videos: str = ""  # folder of videos for `video`, half of them per split

    @property
    def settings(self) -> Variation:
        """The same without the folders."""
        return Variation(**{f.name: getattr(self, f.name) for f in fields(Variation)})


def varied(env: "VisualEnv", config: VariationConfig) -> "VisualEnv":
    """Return the environment itself where nothing varies, else wrapped.

    Raises:
        ConfigError: a folder without what it should hold, or for a factor that is 0.
        EnvError: a factor that has nothing to vary in this environment.
    """
    _check_folders(config)
    if not config.levels:
        return env
    from embodied_reward.envs.variation import VariedEnv

    return VariedEnv(env, config.settings, material=material(config))


def material(config: VariationConfig) -> "Material":
    """Read this split's half of the folders. Raises ConfigError, DatasetError."""
    from embodied_reward.envs.variation import Material
    from embodied_reward.scoring.clips import PICTURES, VIDEOS, read_picture

    return Material(
        pictures=_read(config, "pictures", PICTURES, lambda path: _small(read_picture(path))),
        videos=_read(config, "videos", VIDEOS, _video),
    )


def _check_folders(config: VariationConfig) -> None:
    for folder, factor in (("pictures", "texture"), ("videos", "video")):
        if getattr(config, folder) and not getattr(config, factor):
            raise ConfigError(
                f"--env.variation.{folder} is for '{factor}', which is off; "
                f"add --env.variation.{factor}=1"
            )


def _read(
    config: VariationConfig, kind: str, endings: Sequence[str], read: Callable[[Path], UInt8]
) -> list[UInt8]:
    name = getattr(config, kind)
    if not name:
        return []
    if not Path(name).is_dir():
        raise ConfigError(f"--env.variation.{kind}='{name}' is no folder")
    paths = sorted(p for p in Path(name).iterdir() if p.suffix.lower() in endings)
    if len(paths) < 2:
        raise ConfigError(
            f"--env.variation.{kind}='{name}' holds {len(paths)} {kind} ({' '.join(endings)}); "
            "train and test need at least one each"
        )
    return [_readable(read, path) for path in half(paths, config.split, config.seed)]


def half(paths: Sequence[Path], split: str, seed: int) -> list[Path]:
    """Return train's or test's half of the files: a seeded shuffle, every other one."""
    from embodied_reward.envs.variation import SPLITS

    order = np.random.default_rng(seed).permutation(len(paths))
    return [paths[i] for i in order[SPLITS.index(split) :: len(SPLITS)]]


def _readable(read: Callable[[Path], UInt8], path: Path) -> UInt8:
    try:
        return read(path)
    except DatasetError as error:
        raise DatasetError(f"'{path}' is {error}; remove it from the folder") from error


def _video(path: Path) -> UInt8:
    from embodied_reward.scoring.clips import read_video

    return np.stack([_small(frame) for frame, _ in read_video(path, range(_FRAMES))])


def _small(picture: UInt8) -> UInt8:
    """Return every n-th pixel, so that the shorter side is at least `_SIDE` where it was."""
    every = max(min(picture.shape[:2]) // _SIDE, 1)
    return picture[::every, ::every].copy()
