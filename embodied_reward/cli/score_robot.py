"""Score clips with a robot's reward model: one row per frame, its potential."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.cli.score_inputs import read_clip
from embodied_reward.cli.score_output import Row
from embodied_reward.data.video import SIDE
from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.scoring.status import Status
from embodied_reward.types import Episode, EpisodeScores, UInt8

if TYPE_CHECKING:
    from embodied_reward.rewards import RewardModel


def load_robot_model(path: str, device: str) -> "RewardModel | None":
    """Load a reward model of `er train-reward`; None where the folder holds something else."""
    from embodied_reward.rewards import load, registry
    from embodied_reward.scoring.sources import kind_of

    if not Path(path).is_dir():
        return None
    try:
        kind = kind_of(Path(path))
    except CheckpointError:
        return None
    return load(path, device=device) if kind in registry() else None


def view_files(model: "RewardModel", given: Sequence[str], paths: list[Path]) -> list[dict]:
    """Return per episode view -> clip.

    Args:
        model: whose views are wanted.
        given: `view=clip` pairs of one episode.
        paths: clips of a model with one view, an episode each.

    Raises:
        ConfigError: other views than the model has, or clips without a view.
    """
    views = model.card.views
    if not given and len(views) == 1:
        return [{views[0]: path} for path in paths]
    wanted = ", ".join(f"{view}=CLIP" for view in views)
    pairs = [pair.partition("=") for pair in given]
    found = {name: Path(path) for name, _, path in pairs}
    if set(found) != set(views) or paths:
        raise ConfigError(
            f"the reward model sees {len(views)} cameras: write --view={wanted.replace(' ', '')}, "
            "with no other files"
        )
    return [found]


@dataclass(frozen=True)
class Seen:
    """An episode that could be read, and what the model says of it."""

    episode: Episode
    scores: EpisodeScores

    @property
    def frames(self) -> list[tuple[float, UInt8]]:
        """The first view's frames with their times [s]."""
        first = next(iter(self.episode.views.values()))
        return [(t / self.episode.fps, frame) for t, frame in enumerate(first)]


def score_episode(
    model: "RewardModel", files: Mapping[str, Path], text: str
) -> tuple[list[Row], Seen | None]:
    """Return a row per frame, and the episode.

    An unreadable clip gives one row that says so, and no episode.
    """
    name = str(next(iter(files.values())))
    try:
        views, fps = _read(files)
        episode = _episode(views, fps, text, name)
        scores = model.score_episode(episode)
    except DatasetError as error:
        return [Row(name, np.nan, Status.BAD_INPUT.name, detail=str(error), frames=0)], None
    values = scores.potential if model.card.progress else scores.success
    rows = [
        Row(
            path=name,
            score=float(value),
            status=(Status.OK if np.isfinite(value) else Status.SCORER_ERROR).name,
            start=t / fps,
            end=t / fps,
            columns={
                "success": float(scores.success[t]),
                "epistemic": float(scores.uncertainty[t]),
            },
        )
        for t, value in enumerate(values)
    ]
    return rows, Seen(episode, scores)


def _read(files: Mapping[str, Path]) -> tuple[dict[str, UInt8], float]:
    clips = {}
    for view, path in files.items():
        try:
            clips[view] = read_clip(path, SIDE)
        except DatasetError as error:
            raise DatasetError(f"'{path}': {error}") from error
    lengths = {view: len(frames) for view, (frames, _) in clips.items()}
    if len(set(lengths.values())) > 1:
        raise DatasetError(f"the clips of one episode have different lengths: {lengths}")
    rate = next(iter(clips.values()))[1]
    return {view: frames for view, (frames, _) in clips.items()}, rate


def _episode(views: dict[str, UInt8], fps: float, text: str, source: str) -> Episode:
    length = len(next(iter(views.values())))
    action = np.zeros((length, 0), np.float32)
    return Episode(
        views=views, action=action, fps=fps, task=text, index=0, source=source, length=length
    )
