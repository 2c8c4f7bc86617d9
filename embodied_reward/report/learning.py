"""Learning curves from a run's `metrics.jsonl`."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

# Keys in the order in which a reader asks; a trailing `*` stands for anything.
FIRST = (
    "eval/success_rate",
    "eval/mean_reward",
    "*hover*",
    "*false_success*",
    "rollout/ep_rew_mean",
    "rollout/ep_rew_learned_mean",
    "reward/*",
    "eval/*",
    "val/*",
    "train/*",
)

TITLES = {
    "eval/success_rate": "success rate",
    "eval/mean_reward": "base return (evaluation)",
    "eval/mean_ep_length": "episode length (evaluation)",
    "rollout/ep_rew_mean": "base return (training)",
    "rollout/ep_rew_learned_mean": "learned return (training)",
    "reward/potential_mean": "mean potential",
    "reward/shaping_mean": "mean shaping reward",
}

BANDS = {"eval/success_rate": ("eval/success_low", "eval/success_high")}
LIMIT = 400
"""Points per curve; longer ones are thinned."""


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `metrics.jsonl`; none where there is no such file.

    A last line that a crash cut short is left out.
    """
    if not path.is_file():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return [r for r in rows if isinstance(r, dict) and "step" in r]


def learning_curves(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one curve per key, the ones that are asked for first in front.

    Each is `{"key", "title", "points": [[step, value]], "band": [[step, low, high]]}`.
    """
    rows = list(rows)
    hidden = {key for band in BANDS.values() for key in band}
    keys = {key for row in rows for key in row if key != "step"} - hidden
    made = [_curve(key, rows) for key in sorted(keys, key=_place)]
    return [curve for curve in made if curve["points"]]


def _curve(key: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    points = [[r["step"], r[key]] for r in rows if _number(r.get(key))]
    low, high = BANDS.get(key, ("", ""))
    band = [[r["step"], r[low], r[high]] for r in rows if _number(r.get(low))]
    title = TITLES.get(key, key.replace("_", " "))
    return {"key": key, "title": title, "points": _thin(points), "band": _thin(band)}


def _place(key: str) -> tuple[int, str]:
    found = (i for i, pattern in enumerate(FIRST) if fnmatchcase(key, pattern))
    return next(found, len(FIRST)), key


def _thin(points: list[list[float]]) -> list[list[float]]:
    stride = max(math.ceil(len(points) / LIMIT), 1)
    return points[::stride]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
