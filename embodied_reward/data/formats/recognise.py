"""Find out what lies at a path, and open it."""

import zipfile
from pathlib import Path

from embodied_reward.data.formats.layout import Layout
from embodied_reward.data.formats.source import Source
from embodied_reward.errors import DatasetError

_HDF5 = (".hdf5", ".h5")
_HDF5_MAGIC, _ZIP_MAGIC = b"\x89HDF\r\n\x1a\n", b"PK"


def open_foreign(path: Path, layout: Layout) -> Source | None:
    """Open a dataset that is not LeRobot's; None if nothing is recognised.

    Raises:
        DatasetError: recognised, but it cannot be read.
        MissingDependencyError: the format's package is not installed.
    """
    if path.is_file():
        return _file(path, layout)
    if not path.is_dir():
        return None
    if (path / "meta" / "episode_ends").is_dir():
        return _zarr(path, layout)
    files = sorted(p for p in path.iterdir() if p.suffix in _HDF5)
    if len(files) == 1:
        return _hdf5(files[0], layout)
    if files:
        raise DatasetError(
            f"'{path}' holds {len(files)} HDF5 files; pass the ones that belong together, joined "
            f"by commas, such as '{files[0]},{files[1]}'"
        )
    if (path / "manifest.json").is_file() or any(path.glob("*.mp4")) or any(path.glob("*/*.mp4")):
        from embodied_reward.data.formats.videos import VideoFolderSource

        return VideoFolderSource(path, layout)
    return None


def _file(path: Path, layout: Layout) -> Source | None:
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        raise DatasetError(f"cannot read '{path}': {error}") from error
    if magic == _HDF5_MAGIC or path.suffix in _HDF5:
        return _hdf5(path, layout)
    if magic[:2] == _ZIP_MAGIC or path.suffix == ".zip" or zipfile.is_zipfile(path):
        return _zarr(path, layout)
    return None


def _zarr(path: Path, layout: Layout) -> Source:
    from embodied_reward.data.formats.replay_buffer import ReplayBufferSource

    return ReplayBufferSource(path, layout)


def _hdf5(path: Path, layout: Layout) -> Source:
    from embodied_reward.data.formats import hdf5
    from embodied_reward.data.formats.maniskill import ManiSkillSource
    from embodied_reward.data.formats.robomimic import RobomimicSource

    with hdf5.opened(path) as file:
        names = list(file)[:50]
    if "data" in names:
        return RobomimicSource(path, layout)
    if any(name.startswith("traj_") for name in names):
        return ManiSkillSource(path, layout)
    inside = ", ".join(names[:5]) or "nothing"
    raise DatasetError(
        f"'{path}' holds {inside}; robomimic and LIBERO files have 'data/demo_0', ManiSkill's "
        "'traj_0'"
    )
