"""Open demonstrations: one sequence of episodes, whatever lies on the disk."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from embodied_reward.data import schema, staging
from embodied_reward.data.formats import limits
from embodied_reward.data.formats.layout import Fact, Layout
from embodied_reward.data.formats.recognise import open_foreign
from embodied_reward.data.formats.source import Source
from embodied_reward.data.lerobot import LeRobotSource
from embodied_reward.errors import DatasetError, did_you_mean
from embodied_reward.types import Episode, Float32, Int64, StreamedViews, UInt8


class EpisodeSequence(Sequence[Episode]):
    """Episodes of one dataset, or of several that fit together, in their order.

    Episodes are read when asked for; their views are decoded on first access and kept by the
    episode, so hold on to an episode to decode it once. Reading a view of more than 32 MiB by
    `views.blocks` keeps nothing.

    Attributes:
        root: the dataset's folder, or the folders joined by commas.
        views: names of the views that episodes carry.
        fps: rows per second [Hz].
        features: LeRobot's feature declarations of the first dataset.
        kind: the first dataset's format.
        facts: how the first dataset is read (orientation, frame rate, ...), and who said so.
        notes: what a reader should know about the first dataset, in words.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        views: Sequence[str],
        rows: Sequence[tuple[int, int, int]] | None = None,
    ) -> None:
        self._sources = tuple(sources)
        # (source, episode inside it, index in the opened sequence) of every episode
        self._rows = tuple(rows if rows is not None else _all_rows(self._sources))
        self.root = ",".join(str(source.root) for source in self._sources)
        self.views = tuple(views)
        self.fps = self._sources[0].fps
        self.features: Mapping[str, dict[str, Any]] = self._sources[0].features
        self.kind: str = self._sources[0].kind
        self.facts: Mapping[str, Fact] = self._sources[0].facts
        self.notes: tuple[str, ...] = tuple(self._sources[0].notes)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Episode: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "Episode | Self":
        if isinstance(index, slice):
            return self.select(range(len(self))[index])
        source, number, position = self._rows[index]
        episode = _read(self._sources[source], number, position, self.views)
        return dataclasses.replace(episode, variant=source)

    def select(self, indices: Sequence[int]) -> Self:
        """Return the episodes at `indices` as a sequence; they keep their `index`."""
        return type(self)(self._sources, self.views, [self._rows[i] for i in indices])

    @property
    def lengths(self) -> tuple[int, ...]:
        """Rows of each episode; reads no data file."""
        return tuple(self._sources[s].lengths[n] for s, n, _ in self._rows)

    @cached_property
    def successes(self) -> tuple[bool | None, ...]:
        """Whether each episode ever succeeded, None where unknown; decodes no pictures."""
        return tuple(self._sources[s].successes[n] for s, n, _ in self._rows)

    @property
    def indices(self) -> tuple[int, ...]:
        """The `index` of each episode: its place in the whole dataset, also after `select`."""
        return tuple(position for _, _, position in self._rows)

    @property
    def episode_tasks(self) -> tuple[str, ...]:
        """The task of each episode in words; reads no data file."""
        return tuple(self._sources[s].tasks[n] for s, n, _ in self._rows)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The distinct tasks in words, sorted."""
        return tuple(sorted(set(self.episode_tasks)))

    def size(self, view: str) -> tuple[int, int]:
        """Return the declared (height, width) of a view in pixels."""
        return self._sources[0].size(view)

    def rows(self, index: int) -> dict[str, Int64]:
        """Return LeRobot's numbers of an episode's frames, each Int64["t"].

        `index` counts through the whole dataset, `episode_index` is the episode's own number,
        `frame_index` counts inside the episode.
        """
        source, number, _ = self._rows[index]
        names = ["index", "episode_index", "frame_index"]
        found = self._sources[source].columns(number, names)
        return {name: found[name][:, 0].astype(np.int64) for name in names}

    def storage(self, view: str) -> str:
        """Return how a view is stored: `image` (lossless) or `video`."""
        source = self._sources[0]
        return source.features[source.view_keys[view]]["dtype"]


class LazyViews(StreamedViews):
    """Views of one stored episode; one is decoded when asked for and then kept.

    Args:
        source: the dataset.
        number: the episode's place in it.
        names: of the views.
    """

    def __init__(self, source: Source, number: int, names: Sequence[str]) -> None:
        self._source, self._number, self._names = source, number, tuple(names)
        self._frames: dict[str, UInt8] = {}

    def __getitem__(self, name: str) -> UInt8:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._frames:
            self._frames[name] = self._source.frames(self._number, name)
        return self._frames[name]

    def blocks(self, name: str) -> Iterator[UInt8]:
        """Yield all frames at once if they are few or known, else decode and forget them."""
        if name in self._frames or name not in self._names or not self._large(name):
            yield self[name]
        else:
            yield from self._source.blocks(self._number, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _large(self, name: str) -> bool:
        height, width = self._source.size(name)
        return self._source.lengths[self._number] * height * width * 3 > limits.BLOCK


def open_dataset(
    path: str | Path | Sequence[str | Path],
    *,
    views: Sequence[str] | None = None,
    layout: Layout | None = None,
) -> EpisodeSequence:
    """Open a dataset, or several (a list, or paths joined by commas) as one.

    LeRobot v3, zarr replay buffers (diffusion policy, UMI; folder or zip), robomimic, LIBERO and
    ManiSkill files, and folders of videos are recognised by what lies there.

    Args:
        path: a folder, a file, or a Hub id `user/name` (downloaded by LeRobot into its cache).
        views: the views to carry, in this order; None for all.
        layout: what the dataset does not say by itself (orientation, frame rate, ...).

    Raises:
        DatasetError: no dataset, corrupt or unfinished, a missing view, or datasets that do not
            fit together.
        MissingDependencyError: the format's package is not installed.
    """
    paths = path.split(",") if isinstance(path, str) else path
    paths = [paths] if isinstance(paths, Path) else list(paths)
    if not paths or not all(str(p) for p in paths):
        raise DatasetError("no dataset path given; pass --dataset.root=PATH")
    sources = [open_source(p, layout) for p in paths]
    names = _choose_views(sources, views)
    for other in sources[1:]:
        _same_kind(sources[0], other, names)
    return EpisodeSequence(sources, names)


def open_source(path: str | Path, layout: Layout | None = None) -> Source:
    """Open one dataset; see `open_dataset`. Raises DatasetError, MissingDependencyError."""
    layout, place = layout or Layout(), Path(path).expanduser()
    lerobot = (place / "meta" / "info.json").is_file()
    foreign = open_foreign(place, layout) if place.exists() and not lerobot else None
    return foreign or LeRobotSource(_locate(path), layout)


def _all_rows(sources: Sequence[Source]) -> list[tuple[int, int, int]]:
    pairs = [(s, n) for s, source in enumerate(sources) for n in range(len(source.lengths))]
    return [(s, n, position) for position, (s, n) in enumerate(pairs)]


def _read(source: Source, number: int, position: int, views: Sequence[str]) -> Episode:
    wanted = (
        schema.ACTION,
        schema.STATE,
        schema.ENVIRONMENT_STATE,
        schema.SUCCESS,
        schema.PROGRESS,
    )
    columns = source.columns(number, [key for key in wanted if key in source.features])
    length, won = source.lengths[number], columns.get(schema.SUCCESS)
    progress = columns.get(schema.PROGRESS)
    return Episode(
        views=LazyViews(source, number, views),
        action=_float(columns.get(schema.ACTION, np.zeros((length, 0)))),
        state=_optional(columns.get(schema.STATE)),
        environment_state=_optional(columns.get(schema.ENVIRONMENT_STATE)),
        success=None if won is None else bool(won.any()),
        # Row t's observation is the outcome of action t-1; nothing is achieved before acting.
        success_frames=None if won is None else np.append(False, won[:-1, 0].astype(bool)),
        progress=None if progress is None else _float(progress[:, 0]),
        fps=source.fps,
        task=source.tasks[number],
        index=position,
        source=f"{source.root}#{number}",
        length=length,
        keyframes=source.keyframes(number),
    )


def _float(array: np.ndarray) -> Float32:
    # A double too large for a float becomes infinite, which `check_dataset` reports.
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _optional(array: np.ndarray | None) -> Float32 | None:
    return None if array is None else _float(array)


def _choose_views(sources: Sequence[Source], views: Sequence[str] | None) -> tuple[str, ...]:
    for source in sources:
        for view in views or ():
            if view not in source.view_keys:
                known = ", ".join(source.view_keys) or "none"
                raise DatasetError(f"'{source.root}' has no view '{view}'; its views: {known}")
    if views is not None:
        return tuple(views)
    for source in sources[1:]:
        if set(source.view_keys) != set(sources[0].view_keys):
            raise DatasetError(
                f"datasets with different cameras: '{sources[0].root}' has "
                f"{', '.join(sources[0].view_keys)}, '{source.root}' has "
                f"{', '.join(source.view_keys)}; name the common ones with --dataset.views=..."
            )
    return tuple(sources[0].view_keys)


def _same_kind(a: Source, b: Source, views: Sequence[str]) -> None:
    facts: dict[str, tuple[object, object]] = {"fps": (a.fps, b.fps)}
    facts |= {f"size of view '{view}'": (a.size(view), b.size(view)) for view in views}
    for key in (schema.ACTION, schema.STATE, schema.ENVIRONMENT_STATE):
        facts[f"shape of '{key}'"] = (_shape(a, key), _shape(b, key))
    wrong = [f"{what} is {x} and {y}" for what, (x, y) in facts.items() if x != y]
    if wrong:
        raise DatasetError(f"'{a.root}' and '{b.root}' do not fit together: {'; '.join(wrong)}")


def _shape(source: Source, key: str) -> tuple[int, ...] | None:
    return tuple(source.features[key]["shape"]) if key in source.features else None


def _locate(path: str | Path) -> Path:
    """Return the local root of a LeRobot dataset, downloading a Hub id."""
    root = Path(path).expanduser()
    if (root / "meta" / "info.json").is_file():
        return root
    folder = staging.folder_of(staging.root_of(root))
    if staging.is_recording(folder):
        raise DatasetError(_unfinished(staging.root_of(root), len(staging.episodes_in(folder))))
    if root.exists():
        raise DatasetError(f"'{root}' is not a dataset that can be read: found {_found(root)}")
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(path)) and not root.parent.exists():
        return _download(str(path))
    siblings = [p.name for p in root.parent.iterdir()] if root.parent.is_dir() else []
    hint = f"; {did_you_mean(root.name, siblings)}" if siblings else ""
    raise DatasetError(f"there is no dataset at '{root}'{hint}")


def _unfinished(root: Path, count: int) -> str:
    return (
        f"'{root}' is an unfinished recording with {count} finished episodes; assemble them with "
        f"'er data recover {root}', or continue with "
        f"'er collect --resume=true --output_dir={root}'"
    )


def _found(root: Path) -> str:
    if root.is_file():
        return f"a file '{root.name}'; pass a folder, an HDF5 file or a zip of a zarr store"
    names = sorted(p.name for p in root.iterdir())
    if {".zgroup", "zarr.json"} & set(names):
        return "a zarr store without meta/episode_ends, which replay buffers have"
    inside = ", ".join(names[:5]) or "an empty folder"
    return f"{inside}, but no meta/info.json (LeRobot), meta/episode_ends (zarr), HDF5 or mp4 files"


def _download(repo_id: str) -> Path:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from lerobot.datasets import LeRobotDataset
    from lerobot.datasets.utils import BackwardCompatibilityError

    try:
        return Path(LeRobotDataset(repo_id, video_backend="pyav").root)
    except (
        BackwardCompatibilityError,
        HfHubHTTPError,
        HFValidationError,
        httpx.HTTPError,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(
            f"there is no local dataset '{repo_id}', and the Hub did not give it: {reason}"
        ) from error
