"""Record episodes so that a killed recorder loses no finished one.

Each finished episode goes to a staging folder at once (`staging`); `finish` assembles them into
a LeRobot v3 dataset with LeRobot's own writer (`assemble`), which appears at its path complete.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from embodied_reward.data import staging
from embodied_reward.data.schema import Row, shapes, to_array
from embodied_reward.errors import DatasetError


class EpisodeRecorder:
    """Collects rows into episodes and episodes into a LeRobot v3 dataset.

    A row uses LeRobot's keys (`observation.images.<view>`, `observation.state`, `action`,
    `next.reward`, ...): the observation before an action, the action, and its outcome.

    Args:
        root: where the dataset will be; episodes are staged in `<root>.recording`.
        fps: rows per second [Hz].
        robot_type: LeRobot's name of the embodiment.
        info: json-able facts kept with the dataset (environment fingerprint, seed, ...).
        resume: continue an unfinished recording instead of refusing it.

    Raises:
        DatasetError: the path is taken, another process records there, or the recording to
            resume was made with other settings.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        fps: float,
        robot_type: str,
        info: dict[str, Any] | None = None,
        resume: bool = False,
    ) -> None:
        self.root = Path(root)
        self.folder = staging.folder_of(self.root)
        _refuse_taken(self.root, self.folder, resume)
        self._rows: list[dict[str, np.ndarray]] = []
        header = {"fps": fps, "robot_type": robot_type, "info": info or {}}
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = staging.lock(self.folder)
        self._files = staging.episodes_in(self.folder)
        try:
            self._shapes = self._begin(header)
        except DatasetError:
            self._lock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        """Number of finished episodes."""
        return len(self._files)

    @property
    def next_index(self) -> int:
        """The lowest episode index that is not recorded yet."""
        return next(i for i in range(len(self._files) + 1) if i not in self._files)

    @property
    def rows(self) -> int:
        """Rows of the unfinished episode."""
        return len(self._rows)

    def add(self, row: Row) -> None:
        """Add one row to the unfinished episode; values are copied.

        Raises:
            DatasetError: keys, types or shapes differ from the rows before, or a number is not
                finite. The row is not added.
        """
        where = f"episode {self.next_index}, frame {len(self._rows)}"
        arrays = {key: to_array(key, value, where) for key, value in row.items()}
        found = shapes({key: a[None] for key, a in arrays.items()})
        if self._shapes is None:
            self._shapes = found
        if found != self._shapes:
            raise DatasetError(f"{where} does not fit: {_difference(self._shapes, found)}")
        self._rows.append(arrays)

    def save_episode(self, task: str, **meta: Any) -> int:
        """Finish the episode: once this returns, no kill can lose it. Returns its index.

        Args:
            task: the task in words.
            **meta: json-able facts about the episode (seed, quality, ...).

        Raises:
            DatasetError: there are no rows, or the disk refused them (rows are kept: free space
                and call again).
        """
        if not self._rows:
            raise DatasetError("the episode has no rows; call add() before save_episode()")
        arrays = {key: np.stack([row[key] for row in self._rows]) for key in self._rows[0]}
        index = self.next_index
        episode = staging.StagedEpisode(arrays=arrays, task=task, meta=meta)
        try:
            self._files[index] = staging.write_episode(self.folder, index, episode)
        except OSError as error:
            raise DatasetError(
                f"cannot write episode {index} to '{self.folder}': {error}"
            ) from error
        self._files = dict(sorted(self._files.items()))
        self._rows.clear()
        return index

    def discard(self) -> None:
        """Forget the rows of the unfinished episode."""
        self._rows.clear()

    def finish(self, progress: Callable[[int, int], None] | None = None) -> Path:
        """Assemble the finished episodes into the LeRobot dataset at `root`; returns `root`.

        Raises:
            DatasetError: nothing was recorded, or the disk refused it (episodes stay staged).
        """
        from embodied_reward.data.assemble import assemble

        try:
            return assemble(self.folder, self.root, progress=progress)
        finally:
            self.close()

    def _begin(self, header: dict[str, Any]) -> dict[str, Any] | None:
        """Write the header, or hold a resumed recording against it; returns the row's shapes."""
        if not self._files:
            staging.write_header(self.folder, header)
            return None
        _same_settings(staging.read_header(self.folder), header, self.folder)
        return shapes(staging.read_episode(next(iter(self._files.values()))).arrays)

    def close(self) -> None:
        """Release the recording; finished episodes stay staged, an empty recording goes."""
        if not self._files and not self._lock.closed:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _refuse_taken(root: Path, folder: Path, resume: bool) -> None:
    if root.exists() and any(root.iterdir() if root.is_dir() else [root]):
        raise DatasetError(f"'{root}' already exists; choose another path with --output_dir=PATH")
    count = len(staging.episodes_in(folder))
    if count and not resume:
        raise DatasetError(
            f"'{root}' is an unfinished recording with {count} finished episodes; continue it with "
            f"--resume=true, assemble it with 'er data recover {root}', or choose another path "
            "with --output_dir=PATH"
        )


def _same_settings(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    new = json.loads(json.dumps(new))  # tuples come back from disk as lists
    differ = _difference(_flat(old), _flat(new))
    if differ:
        raise DatasetError(f"cannot resume '{folder}' with other settings: {differ}")


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, dict)
        out.update(_flat(value, f"{prefix}{key}.") if nested else {prefix + key: value})
    return out


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    def of(tree: dict[str, Any], key: str) -> str:
        return f"{tree[key]}" if key in tree else "nothing"

    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return "; ".join(f"'{key}' was {of(old, key)}, now {of(new, key)}" for key in keys)
