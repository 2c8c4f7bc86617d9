"""`er score --saliency`: pictures and videos of where a scorer looks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.score_inputs import is_video, read_clip
from embodied_reward.cli.score_output import Row
from embodied_reward.errors import ConfigError
from embodied_reward.metrics.saliency_overlay import (
    overlays,
    write_pair_video,
    write_saliency_video,
    write_strip,
)
from embodied_reward.scoring.clips import read_picture
from embodied_reward.types import Episode, EpisodeScores
from embodied_reward.vision.saliency import SaliencyMaps, SaliencyOptions

if TYPE_CHECKING:
    from embodied_reward.rewards import RewardModel

SHOWN = 10


class Looks:
    """Draws maps into a folder and remembers what it drew.

    Args:
        options: the method.
        folder: where files go, named after the clip or picture and the method.
        regions: number of superpixels to paint by; 0 for none.
    """

    def __init__(self, options: SaliencyOptions, folder: Path, regions: int) -> None:
        self._options, self._folder, self._regions = options, folder, regions
        self._files: list[Path] = []
        self._frames, self._blind = 0, 0

    def of_episode(
        self, model: "RewardModel", episode: Episode, scores: EpisodeScores, source: Path
    ) -> None:
        """Draw an episode of a robot's reward model, every view with its own map.

        Raises:
            ConfigError: the method does not fit the model.
        """
        from embodied_reward.rewards.saliency import explain_episode

        maps = explain_episode(model, episode, self._options)
        self._count(maps.values())
        drawn = {v: overlays(episode.views[v], m, self._regions) for v, m in maps.items()}
        self._files += [
            write_strip(self._path(source, ".png"), episode.views, drawn),
            write_saliency_video(
                self._path(source, ".mp4"), episode, scores, drawn, label=self._options.method
            ),
        ]

    def check(self, core: Any, name: str, text: str) -> None:
        """Try the method on one small picture, before any work is done.

        Raises:
            ConfigError: the scorer has no trunk, or the method does not fit it.
        """
        picture = np.zeros((1, 32, 32, 3), np.uint8)
        try:
            core.explain(name, picture, self._options, text=text, reference=picture[0])
        except ConfigError as error:
            raise ConfigError(f"--saliency={self._options.method}: {error}") from error

    def of_files(
        self,
        core: Any,
        name: str,
        rows: Sequence[Row],
        *,
        text_of: Callable[[Path], str],
        reference: str,
    ) -> None:
        """Draw every file that was scored; a clip frame by frame, each on its own.

        Args:
            core: the `ScoringCore` that hosts the scorer.
            name: the scorer's.
            rows: what was scored.
            text_of: file -> text.
            reference: picture that every item is compared with, or nothing.

        Raises:
            ConfigError: the scorer has no trunk, or the method does not fit it.
        """
        paths = dict.fromkeys(Path(row.path) for row in rows if row.ok)
        beside = read_picture(Path(reference)) if reference else None
        with progress_bar() as bar:
            for path in bar.track(list(paths), description="looking"):
                frames, fps = read_clip(path) if is_video(path) else (read_picture(path)[None], 0.0)
                maps = core.explain(
                    name, frames, self._options, text=text_of(path), reference=beside
                )
                self._count([maps])
                drawn = overlays(frames, maps, self._regions)
                self._files.append(write_strip(self._path(path, ".png"), {"": frames}, {"": drawn}))
                if is_video(path):
                    video = self._path(path, ".mp4")
                    self._files.append(write_pair_video(video, frames, drawn, fps))

    def said(self) -> str:
        """Return what was drawn, for the terminal."""
        shown = [f"saliency: {path}" for path in self._files[:SHOWN]]
        if len(self._files) > SHOWN:
            shown.append(f"saliency: {len(self._files) - SHOWN} more files in {self._folder}")
        if self._blind:
            shown.append(
                f"{self._blind} of {self._frames} pictures have no map: the score does not depend "
                "on them (they are crossed out)"
            )
        return "\n".join(shown)

    def _count(self, maps: "Sequence[SaliencyMaps] | Any") -> None:
        for found in maps:
            self._frames += len(found)
            self._blind += int(np.sum(~found.ok))

    def _path(self, source: Path, suffix: str) -> Path:
        return self._folder / f"{source.stem}_{self._options.method}{suffix}"
