"""Write answers as a file about clips, which the preference heads of the scoring core read.

    DIR/preferences.jsonl    {"prompt": task, "chosen": clip, "rejected": clip}, "tie": true
    DIR/clips/               one clip per episode, all cameras side by side

A triplet becomes a row whose `reference` is the anchor. Skipped questions are left out.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from embodied_reward.data import EpisodeSequence
from embodied_reward.data.video import write_video
from embodied_reward.errors import ConfigError, DatasetError, did_you_mean
from embodied_reward.files import fsync
from embodied_reward.labelling.rows import Asked
from embodied_reward.types import Episode, UInt8

FORMS = ("mp4", "png")
STILLS = 8
"""Pictures of a clip exported as stills, evenly spread."""


def export(
    episodes: EpisodeSequence,
    answers: Sequence[Asked],
    folder: Path | str,
    *,
    form: str = "mp4",
    on_clip: Callable[[int], Any] = lambda _: None,
) -> int:
    """Write the folder, complete or not at all; returns the number of judgements in it.

    Args:
        episodes: the dataset that the answers are about.
        answers: of one dataset.
        folder: to make; it must not exist.
        form: `mp4` (every frame, H.264) or `png` (`STILLS` lossless pictures per clip).
        on_clip: called with the number of clips written after each.

    Raises:
        ConfigError: the folder exists, or an unknown form.
        DatasetError: no judgement, an episode that the dataset does not have, or pictures that
            cannot be decoded.
    """
    folder = Path(folder)
    judged = [a for a in answers if not a.skipped]
    _check(episodes, judged, folder, form)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        clips = _write_clips(episodes, judged, temporary, form, on_clip)
        lines = [json.dumps(_row(answer, clips), ensure_ascii=False) for answer in judged]
        file = temporary / "preferences.jsonl"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        fsync(file)
        temporary.rename(folder)
        fsync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return len(judged)


def side_by_side(views: Sequence[UInt8]) -> UInt8:
    """Join views UInt8["t h w 3"] left to right; lower ones get black below."""
    height = max(v.shape[1] for v in views)
    padded = [np.pad(v, ((0, 0), (0, height - v.shape[1]), (0, 0), (0, 0))) for v in views]
    return np.concatenate(padded, axis=2)


def _check(episodes: EpisodeSequence, judged: Sequence[Asked], folder: Path, form: str) -> None:
    if form not in FORMS:
        raise ConfigError(f"unknown --export_as={form}; {did_you_mean(form, FORMS)}")
    if folder.exists():
        raise ConfigError(f"'{folder}' exists; give another --export or remove it")
    if not judged:
        raise DatasetError("there is no answer to export for this dataset: answer some first")
    missing = {e for a in judged for e in a.query.episodes} - set(episodes.indices)
    if missing:
        raise DatasetError(
            f"the answers name episode {min(missing)}, but '{episodes.root}' has "
            f"{len(episodes)} episodes; open the dataset that was labelled"
        )


def _write_clips(
    episodes: EpisodeSequence,
    judged: Sequence[Asked],
    folder: Path,
    form: str,
    on_clip: Callable[[int], Any],
) -> dict[int, Any]:
    (folder / "clips").mkdir(parents=True)
    places = {index: place for place, index in enumerate(episodes.indices)}
    needed = sorted({e for a in judged for e in a.query.episodes})
    write = {"mp4": _video, "png": _stills}[form]
    clips = {}
    for count, index in enumerate(needed, 1):
        clips[index] = [str(p.relative_to(folder)) for p in write(episodes[places[index]], folder)]
        on_clip(count)
    return {index: names[0] if form == "mp4" else names for index, names in clips.items()}


def _video(episode: Episode, folder: Path) -> Iterator[Path]:
    frames = side_by_side(list(episode.views.values()))
    yield write_video(folder / f"clips/episode_{episode.index:06d}.mp4", frames, episode.fps)


def _stills(episode: Episode, folder: Path) -> Iterator[Path]:
    times = np.unique(np.round(np.linspace(0, len(episode) - 1, STILLS)).astype(int))
    frames = side_by_side([view[times] for view in episode.views.values()])
    for t, frame in zip(times, frames, strict=True):
        path = folder / f"clips/episode_{episode.index:06d}_{t:06d}.png"
        PIL.Image.fromarray(frame).save(path)
        yield path


def _row(answer: Asked, clips: dict[int, Any]) -> dict[str, Any]:
    query = answer.query
    sides = (query.right, query.left) if answer.choice == "right" else (query.left, query.right)
    row = {"prompt": answer.task, "chosen": clips[sides[0]], "rejected": clips[sides[1]]}
    if answer.choice == "same":
        row["tie"] = True
    if query.anchor is not None:
        row["reference"] = clips[query.anchor]
    return row
