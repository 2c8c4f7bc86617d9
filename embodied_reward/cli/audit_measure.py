"""The numbers, the table and the pictures of `er audit-reward`."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from embodied_reward.cli.audit_rollout import Played
from embodied_reward.envs.parts import PARTS
from embodied_reward.metrics.saliency import Focus, edges, focus_on, pooled
from embodied_reward.metrics.saliency_overlay import overlays, write_saliency_video, write_strip
from embodied_reward.rewards import RewardModel
from embodied_reward.types import Episode
from embodied_reward.vision.saliency import SaliencyMaps

EDGES = "edges (no model)"
FRESH = " (fresh)"
HEADLINE = "gripper+objects"
GROUPS: dict[str, tuple[int, ...]] = {
    HEADLINE: (PARTS.index("gripper"), PARTS.index("objects")),
    **{part: (k,) for k, part in enumerate(PARTS)},
}
ALL_VIEWS = "all views"

Measured = Mapping[str, Focus]


@dataclass(frozen=True)
class Row:
    """One model, method and view, over all episodes: group of `GROUPS` -> `Focus`.

    Attributes:
        episodes: the headline's ratio in every episode; NaN where none of its frames has a map.
    """

    model: str
    method: str
    view: str
    groups: Measured
    episodes: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        groups = {name: found.to_dict() for name, found in self.groups.items()}
        return {**vars(self), "groups": groups, "episodes": list(self.episodes)}


@dataclass
class Audit:
    """Collects measurements; (model, method, view) -> one entry per episode."""

    found: dict[tuple[str, str, str], list[Measured]] = field(default_factory=dict)

    def add(
        self, model: str, method: str, maps: Mapping[str, SaliencyMaps], played: Played
    ) -> None:
        """Measure every view of an episode, and all of them together."""
        views = []
        for view, looks in maps.items():
            labels = played.labels[view]
            measured = focus_on(looks.resized(*labels.shape[1:]), labels, GROUPS)
            self._put(model, method, view, measured)
            views.append(measured)
        if len(views) > 1:
            self._put(model, method, ALL_VIEWS, _pooled(views))

    def add_edges(self, name: str, played: Played) -> None:
        """Measure the outlines of the pictures themselves."""
        maps = {view: edges(frames) for view, frames in played.episode.views.items()}
        self.add(name, "", maps, played)

    def rows(self) -> list[Row]:
        """Return what was measured, models in the order in which they came."""
        return [
            Row(*key, _pooled(entries), tuple(m[HEADLINE].ratio for m in entries))
            for key, entries in self.found.items()
        ]

    def _put(self, model: str, method: str, view: str, measured: Measured) -> None:
        self.found.setdefault((model, method, view), []).append(measured)


def _pooled(entries: Sequence[Measured]) -> dict[str, Focus]:
    return {name: pooled(m[name] for m in entries) for name in GROUPS}


def table(rows: Sequence[Row]) -> str:
    """Return the table for the terminal."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for column in ("model", "method", "view", "share", "area"):
        grid.add_column(column, justify="right" if column in ("share", "area") else "left")
    grid.add_column("ratio", justify="right", style="bold")
    for part in PARTS[1:]:
        grid.add_column(part, justify="right")
    for row in rows:
        head = row.groups[HEADLINE]
        cells = [_percent(head.share), _percent(head.area), _times(head.ratio)]
        grid.add_row(
            row.model,
            row.method,
            row.view,
            *cells,
            *(_times(row.groups[part].ratio) for part in PARTS[1:]),
        )
    console = Console(width=110, file=io.StringIO(), record=False)
    console.print(grid)
    blind = sum(row.groups[HEADLINE].blind for row in rows)
    lines = [
        "share, area: of saliency and of pixels on gripper and objects; ratio: share over area,",
        "1.0x is chance; then the ratio of each part alone ('-': not in the picture, or no map)",
    ]
    if blind:
        lines.append(f"{blind} maps are missing: the score does not depend on those pictures")
    return "\n".join([_text(console), *lines])


def draw(
    folder: Path,
    name: str,
    method: str,
    model: RewardModel,
    maps: Mapping[str, SaliencyMaps],
    episode: Episode,
) -> None:
    """Write a strip of pictures and a video of one episode."""
    drawn = {view: overlays(episode.views[view], found) for view, found in maps.items()}
    stem = f"{name.replace(' ', '_')}_{method}_{episode.index:03d}"
    write_strip(folder / f"{stem}.png", episode.views, drawn)
    scores = model.score_episode(episode)
    write_saliency_video(folder / f"{stem}.mp4", episode, scores, drawn, label=method)


def _text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %" if math.isfinite(value) else "-"


def _times(value: float) -> str:
    return f"{value:.2f}x" if math.isfinite(value) else "-"
