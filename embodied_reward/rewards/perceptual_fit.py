"""Steps and their Gaussians from the features of a few demonstrations; no gradient, no network.

discover    cut every demonstration into the same number of steps, all views together
choose      how many steps there are: what orders demonstrations left out best
fit_views   the features and Gaussians of every step as every view sees them
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.errors import DatasetError
from embodied_reward.math.segmentation import choose_steps, segment
from embodied_reward.math.statistics import spearman
from embodied_reward.math.step_reward import combine, fit_steps
from embodied_reward.rewards.perceptual_config import PerceptualConfig
from embodied_reward.types import Bool, Float32, Float64, Int64

CHUNK = 8192
"""Features that are ranked at once, which bounds the memory."""
TRIED = 4096
"""Features that the number of steps is chosen by."""
FOLDS = 5
"""Demonstrations that are left out, one after the other, to choose it."""
SLACK = 1.1
"""Fewer steps are preferred up to this multiple of the least 1 - r."""
SHORTEST = 3


@dataclass(frozen=True)
class Demo:
    """What is looked at of one demonstration.

    Attributes:
        features: Float32["t v d"]; whatever where a view shows nothing.
        present: Bool["t v"].
        at: Int64["t"], rows of the episode.
        length: rows of the episode.
        source: for messages.
    """

    features: Float32
    present: Bool
    at: Int64
    length: int
    source: str

    def __len__(self) -> int:
        return len(self.at)

    def held(self) -> Float32:
        """Return Float32["t v*d"]; where a view shows nothing, what it showed last."""
        rows = np.where(self.present, np.arange(len(self))[:, None], -1)
        rows = np.maximum.accumulate(rows, axis=0)
        first = self.present.argmax(0)
        rows = np.where(rows < 0, first, rows)
        held = np.take_along_axis(self.features, rows[:, :, None], 0)
        return np.where(self.present.any(0)[:, None], held, 0.0).reshape(len(self), -1)

    def rows(self, bounds: Int64) -> Int64:
        """Return boundaries in rows of the episode, from 0 to its length."""
        return np.array([0, *self.at[bounds[1:-1]], self.length], np.int64)


@dataclass(frozen=True)
class ViewSteps:
    """The Gaussian of every step as one view sees it, in the units of the features.

    Attributes:
        chosen: Int64["g n"], features of each step.
        centre: Float64["g n"], their means within the step.
        spread: Float64["g n"] > 0, their standard deviations within the step.
    """

    chosen: Int64
    centre: Float64
    spread: Float64

    def distances(self, features: Float32) -> Float64:
        """Return the mean squared distance to every step, Float64["t g"], of Float32["t d"]."""
        off = (features[:, self.chosen].astype(np.float64) - self.centre) / self.spread
        return np.square(off).mean(-1)


def discover(demos: Sequence[Demo], steps: int, config: PerceptualConfig) -> list[Int64]:
    """Cut every demonstration into `steps`; boundaries Int64["g+1"] from 0 to t of each."""

    def cut(demo: Demo) -> Int64:
        shortest = _shortest(len(demo), steps, config)
        return segment(demo.held(), steps, shortest=shortest, objective=config.objective)[0]

    return [cut(demo) for demo in demos]


def check_lengths(demos: Sequence[Demo], config: PerceptualConfig) -> None:
    """Refuse demonstrations that are too short. Raises DatasetError naming the episode."""
    steps = config.steps or 2
    for demo in demos:
        least = steps * max(config.shortest, 1)
        if len(demo) < least:
            many = "" if config.shortest < 2 else f" of at least {config.shortest} frames"
            raise DatasetError(
                f"{demo.source} has {demo.length} frame{'s' * (demo.length != 1)}"
                f"{'' if len(demo) == demo.length else f', of which {len(demo)} are looked at'}, "
                f"too few for {steps} steps{many}; leave the episode out with --dataset.episodes, "
                "or ask for fewer steps with --reward_model.steps"
            )


def choose(
    demos: Sequence[Demo], config: PerceptualConfig, advance: Callable[[], None]
) -> tuple[int, dict[int, float]]:
    """Return the number of steps, and how well each number orders demonstrations left out.

    With a demonstration left out, steps are fitted to the others, and the rank correlation of the
    potential with time is taken in the one left out. Too few steps leave long plateaus, cuts
    without a meaning fall elsewhere in every demonstration and add noise; in between it hardly
    changes. The smallest number wins whose mean correlation r has 1 - r within a tenth of the
    best. A single demonstration leaves none out: there it takes the in-sample criterion of
    `segmentation.choose_steps`.

    Args:
        demos: at least one.
        config: gives the largest number of steps.
        advance: called once per number tried.
    """
    most = largest_number(demos, config)
    thin = [_thinned(demo) for demo in demos]
    if len(thin) == 1:
        return max(2, choose_steps([thin[0].held()], most=most)), {}
    found: dict[int, float] = {}
    for steps in range(2, most + 1):
        bounds = discover(thin, steps, config)
        left = range(min(len(thin), FOLDS))
        found[steps] = float(np.mean([_order(thin, bounds, i, config) for i in left]))
        advance()
    slack = SLACK * (1 - max(found.values())) + 1e-9
    return min(n for n, order in found.items() if 1 - order <= slack), found


def largest_number(demos: Sequence[Demo], config: PerceptualConfig) -> int:
    """Return the largest number of steps that `choose` tries."""
    fit = min(len(demo) // max(config.shortest, 2) for demo in demos)
    return max(2, min(config.most_steps, fit))


def fit_views(
    demos: Sequence[Demo], bounds: Sequence[Int64], config: PerceptualConfig
) -> list[ViewSteps | None]:
    """Fit the steps as every view sees them; None for a view that never sees all of them."""
    count = demos[0].present.shape[1]
    return [_fit_view([_seen(d, b, v) for d, b in zip(demos, bounds, strict=True)], config)
            for v in range(count)]  # fmt: skip


def mean_distances(views: Sequence[ViewSteps | None], features: Float32, present: Bool) -> Float64:
    """Return Float64["t g"]: the distance to every step, mean over the views that see something.

    Args:
        views: of the fit.
        features: Float32["t v d"].
        present: Bool["t v"]. Rows without any view that was fitted are NaN.
    """
    pairs = [(v, fitted) for v, fitted in enumerate(views) if fitted is not None]
    far = np.stack([fitted.distances(features[:, v]) for v, fitted in pairs])
    seen = np.stack([present[:, v] for v, _ in pairs])[..., None]
    with np.errstate(invalid="ignore"):
        return np.where(seen, far, 0.0).sum(0) / seen.sum(0)


def _fit_view(seen: Sequence[tuple[Float32, Int64]], config: PerceptualConfig) -> ViewSteps | None:
    """Fit from frames and boundaries; demonstrations in which a step is not seen are left out."""
    whole = [(x, b) for x, b in seen if (np.diff(b) > 0).all()]
    if not whole:
        return None
    parts, cuts = [x for x, _ in whole], [b for _, b in whole]
    keep: dict[str, Any] = {"kept": config.features, "alpha": config.alpha}
    keep["least_sigma"] = config.least_spread
    ranked = [
        start + fit_steps([x[:, start : start + CHUNK] for x in parts], cuts, **keep).chosen
        for start in range(0, parts[0].shape[1], CHUNK)
    ]
    columns = np.unique(np.concatenate(ranked, axis=1))
    best = fit_steps([x[:, columns] for x in parts], cuts, **keep)
    scale = best.scale[best.chosen]
    centre = best.mean[best.chosen] + scale * best.centre
    return ViewSteps(columns[best.chosen], centre, scale * best.spread)


def _order(
    demos: Sequence[Demo], bounds: Sequence[Int64], left: int, config: PerceptualConfig
) -> float:
    """Return the rank correlation of potential and time in the demonstration left out."""
    rest = [i for i in range(len(demos)) if i != left]
    views = fit_views([demos[i] for i in rest], [bounds[i] for i in rest], config)
    if all(fitted is None for fitted in views):
        return 0.0
    far = mean_distances(views, demos[left].features, demos[left].present)
    ok = np.isfinite(far).all(1)
    order = spearman(combine(np.exp(-0.5 * far[ok])), np.flatnonzero(ok))
    return order if np.isfinite(order) else 0.0  # a potential that never moves orders nothing


def _seen(demo: Demo, bounds: Int64, view: int) -> tuple[Float32, Int64]:
    """Return the frames that one view sees, and the boundaries among them."""
    there = demo.present[:, view]
    return demo.features[there, view], np.concatenate([[0], np.cumsum(there)])[bounds]


def _thinned(demo: Demo) -> Demo:
    """Take evenly spread features, which is enough to count steps."""
    stride = -(-demo.features.shape[2] // TRIED)
    return dataclasses.replace(demo, features=demo.features[:, :, ::stride])


def _shortest(length: int, steps: int, config: PerceptualConfig) -> int:
    default = SHORTEST if config.objective == "variance" else length // (2 * steps)
    return max(1, min(config.shortest or default, length // steps))
