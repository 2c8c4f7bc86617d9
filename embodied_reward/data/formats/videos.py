"""A folder of videos with a small manifest: what people film.

`manifest.json` in the folder:

    {"fps": 20, "task": "open the drawer",
     "episodes": [{"views": {"top": "top/0.mp4", "wrist": "wrist/0.mp4"}, "success": true}]}

`fps`, `task` and `success` may be left out, `task` may stand in an episode. Without a manifest the
folder's name is the task, and

    FOLDER/*.mp4            is one episode per file, with one view called `video`,
    FOLDER/CAMERA/*.mp4     has a folder per camera; files of one name are one episode.

Pictures whose longer side is above `video.SIDE` are reduced to it while they are decoded: no reward
model looks at more, and a minute of film at full size has ten gigabytes. `--layout.side` says
otherwise.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from embodied_reward.data import schema
from embodied_reward.data.formats import limits
from embodied_reward.data.formats.film import Film, probe
from embodied_reward.data.formats.layout import Decisions, Fact, Layout, refuse_options
from embodied_reward.data.formats.picture import reorient
from embodied_reward.data.formats.source import check_lengths
from embodied_reward.data.video import SIDE
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64, UInt8

MANIFEST = "manifest.json"
_VIEW = "video"  # the one view where there is no manifest
_EPISODE_KEYS = {"views", "task", "success"}
_KEYS = {"fps", "task", "episodes", "robot_type"}


class VideoFolderSource:
    """One folder; attributes as `Source`.

    Raises:
        DatasetError: a manifest that is damaged or names files outside the folder, a video that
            cannot be opened, or videos that do not fit together.
    """

    kind = "videos"

    def __init__(self, root: Path, layout: Layout | None = None) -> None:
        layout = layout or Layout()
        refuse_options(layout, ("orientation", "colour", "fps", "task", "side"), "videos")
        self.root = root
        self.notes: list[str] = []
        self.info: dict[str, Any] = {}
        manifest = _read_manifest(root)
        self._episodes: list[dict[str, Any]] = manifest["episodes"]
        self._films = [
            {view: probe(root / name) for view, name in e["views"].items()} for e in self._episodes
        ]
        self.lengths = [_length(root, i, films) for i, films in enumerate(self._films)]
        check_lengths(self.lengths, root)
        self._check_views()
        self.view_keys = {view: schema.IMAGES + view for view in self._films[0]}
        self.robot_type = str(manifest.get("robot_type") or "unknown")
        task = layout.task or manifest.get("task") or ""
        self.tasks = [layout.task or str(e.get("task") or task) for e in self._episodes]
        decisions = Decisions(layout, {"fps": manifest.get("fps")}, f"'{root / MANIFEST}'")
        rates = {film.fps for films in self._films for film in films.values()}
        self.fps = float(decisions.settle("fps", self._one_rate(rates, decisions), "detected"))
        self._orientation = decisions.settle("orientation", "upright")
        self._colour = decisions.settle("colour", "rgb")
        self._side = decisions.settle("side", SIDE)
        self._say_reduced()
        self.facts: dict[str, Fact] = decisions.facts
        self.features = self._declare()

    @property
    def successes(self) -> list[bool | None]:
        """Whether each episode succeeded, as the manifest says; None where it does not."""
        return [e.get("success") for e in self._episodes]

    def size(self, view: str) -> tuple[int, int]:
        """Return the (height, width) at which a view is read."""
        return self._films[0][view].size(self._side)

    def columns(self, index: int, keys: list[str]) -> dict[str, npt.NDArray[Any]]:
        """Return columns of one episode, each of shape (t, 1)."""
        frame = np.arange(self.lengths[index])[:, None]
        known: dict[str, npt.NDArray[Any]] = {
            "frame_index": frame,
            "episode_index": np.full_like(frame, index),
            "index": frame + sum(self.lengths[:index]),
            # The end is all that the manifest speaks of.
            schema.SUCCESS: (frame == len(frame) - 1) & bool(self._episodes[index].get("success")),
        }
        return {key: known[key] for key in keys}

    def frames(self, index: int, view: str) -> UInt8:
        """Decode one view of one episode, UInt8["t h w 3"]. Raises DatasetError."""
        height, width = self.size(view)
        declared = self.lengths[index] * height * width * 3
        limits.fits(f"video '{self._films[index][view].path}'", declared, limits.VIEW)
        return np.concatenate(list(self.blocks(index, view)))

    def blocks(self, index: int, view: str) -> Iterator[UInt8]:
        """Decode one view of one episode in order, a bounded number of frames at a time."""
        film, (height, width) = self._films[index][view], self.size(view)
        rows, block, count = max(1, limits.BLOCK // (height * width * 3)), [], 0
        for frame in film.decode(self._side):
            block.append(frame)
            count += 1
            if len(block) == rows:
                yield self._upright(block)
                block = []
        if block:
            yield self._upright(block)
        if count != self.lengths[index]:
            raise DatasetError(
                f"video '{film.path}' declares {self.lengths[index]} frames and holds {count}; "
                "it is truncated: copy it again or delete the episode"
            )

    def keyframes(self, index: int) -> Int64 | None:
        """A manifest annotates no sub-tasks."""
        del index

    def _upright(self, block: list[UInt8]) -> UInt8:
        frames = reorient(np.stack(block), self._orientation)
        return np.ascontiguousarray(frames[..., ::-1] if self._colour == "bgr" else frames)

    def _say_reduced(self) -> None:
        for view, film in self._films[0].items():
            (h, w), filmed = self.size(view), film.filmed
            if (h, w) != filmed:
                self.notes.append(
                    f"view '{view}' was filmed at {filmed[0]}x{filmed[1]} and is read at {h}x{w} "
                    "pixels; --layout.side=0 reads all"
                )

    def _declare(self) -> dict[str, dict[str, Any]]:
        features: dict[str, dict[str, Any]] = {
            key: {
                "dtype": "video",
                "shape": (*self.size(view), 3),
                "names": ["height", "width", "channels"],
            }
            for view, key in self.view_keys.items()
        }
        if all(s is not None for s in self.successes):
            features[schema.SUCCESS] = {"dtype": "bool", "shape": (1,), "names": None}
        return features

    def _check_views(self) -> None:
        first = self._films[0]
        for index, films in enumerate(self._films):
            if set(films) != set(first):
                raise DatasetError(
                    f"'{self.root}' episode {index} has the views {', '.join(films)}, episode 0 "
                    f"{', '.join(first)}; list the same views in every episode of '{MANIFEST}'"
                )
            for view, film in films.items():
                (h, w), size = film.filmed, first[view].filmed
                if (h, w) != size:
                    raise DatasetError(
                        f"video '{film.path}' has {h}x{w} pixels, that of episode 0 "
                        f"{size[0]}x{size[1]}; keep each size in a folder of its own"
                    )

    def _one_rate(self, rates: set[float], decisions: Decisions) -> float:
        if len(rates) > 1 and decisions.given("fps") is None:
            shown = ", ".join(f"{r:g}" for r in sorted(rates))
            raise DatasetError(
                f"videos of '{self.root}' have different frame rates ({shown} Hz); say which one "
                f"counts with 'fps' in '{MANIFEST}' or --layout.fps"
            )
        return next(iter(rates))


def _read_manifest(root: Path) -> dict[str, Any]:
    path = root / MANIFEST
    if not path.is_file():
        return {"episodes": _listed(root), "task": root.resolve().name.replace("_", " ")}
    limits.fits(f"'{path}'", path.stat().st_size, limits.TEXT)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"'{path}' is not JSON ({error}); write it again") from error
    good = isinstance(found, dict) and isinstance(found.get("episodes"), list)
    if not good or not found["episodes"]:
        raise DatasetError(f"'{path}' lists no 'episodes'; write one entry per episode")
    if unknown := set(found) - _KEYS:
        raise DatasetError(
            f"'{path}' has the unknown entry '{min(unknown)}'; known: {', '.join(sorted(_KEYS))}"
        )
    for index, episode in enumerate(found["episodes"]):
        _check_episode(path, index, episode)
    return found


def _listed(root: Path) -> list[dict[str, Any]]:
    """Return the episodes of a folder without a manifest, in the order of their names."""
    if flat := sorted(p.name for p in root.glob("*.mp4")):
        return [{"views": {_VIEW: name}} for name in flat]
    cameras: dict[str, list[str]] = {}
    for file in sorted(root.glob("*/*.mp4")):
        cameras.setdefault(file.parent.name, []).append(file.name)
    first = next(iter(cameras))
    for camera, names in cameras.items():
        if odd := sorted(set(names) ^ set(cameras[first])):
            raise DatasetError(
                f"'{root}' has the episodes {', '.join(odd[:3])} from only one of the cameras "
                f"{first} and {camera}; every camera folder needs the same file names"
            )
    return [{"views": {c: f"{c}/{name}" for c in cameras}} for name in cameras[first]]


def _check_episode(path: Path, index: int, episode: Any) -> None:
    where = f"episode {index} of '{path}'"
    views = episode.get("views") if isinstance(episode, dict) else None
    if not isinstance(views, dict) or not views:
        raise DatasetError(f'{where} has no \'views\'; write {{"views": {{"top": "top/0.mp4"}}}}')
    if unknown := set(episode) - _EPISODE_KEYS:
        raise DatasetError(
            f"{where} has the unknown entry '{min(unknown)}'; "
            f"known: {', '.join(sorted(_EPISODE_KEYS))}"
        )
    if not isinstance(episode.get("success"), bool | None):
        raise DatasetError(f"'success' in {where} must be true or false")
    for view, name in views.items():
        if not view or not isinstance(name, str) or not _inside(path.parent, name):
            raise DatasetError(
                f"view '{view}' in {where} names {name!r}, which is not a file inside the folder; "
                "write a path relative to the manifest"
            )


def _inside(root: Path, name: str) -> bool:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "\0" in name:
        return False
    return (root / name).resolve().is_relative_to(root.resolve())


def _length(root: Path, index: int, films: dict[str, Film]) -> int:
    counts = {view: film.frames for view, film in films.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{view} {count}" for view, count in counts.items())
        raise DatasetError(
            f"the views of '{root}' episode {index} differ in length ({shown} frames); "
            "cut them to the same frames"
        )
    return next(iter(counts.values()))
