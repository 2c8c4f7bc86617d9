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
from embodied_reward.types import Bool, Episode, Float32, Float64, Int64

CHUNK = 8192
"""Features that are ranked at once, which bounds the memory."""
TRIED = 4096
"""Features that the number of steps is chosen by."""
FOLDS = 5
"""Demonstrations that are left out, one after the other, to choose it."""
SLACK = 1.1
"""Numbers of steps are alike up to this multiple of the least 1 - order."""
TIE = 0.1
"""Jaccard indices within this are alike."""
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
        ever = np.any(self.present, axis=0, keepdims=True).T
        return np.where(ever, held, 0.0).reshape(len(self), -1)

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


@dataclass(frozen=True)
class Trial:
    """What a number of steps is worth, mean over demonstrations left out.

    Attributes:
        steps: the number.
        order: Spearman correlation of the potential with time.
        recognised: Jaccard index, of the worst step, between the steps that are found in the
            demonstration by itself and the steps of least distance.
    """

    steps: int
    order: float
    recognised: float


def discover(demos: Sequence[Demo], steps: int, config: PerceptualConfig) -> list[Int64]:
    """Cut every demonstration into `steps`; boundaries Int64["g+1"] from 0 to t of each."""

    def cut(demo: Demo) -> Int64:
        shortest = _shortest(len(demo), steps, config)
        return segment(demo.held(), steps, shortest=shortest, objective=config.objective)[0]

    return [cut(demo) for demo in demos]


def check_lengths(episodes: Sequence[Episode], config: PerceptualConfig) -> None:
    """Refuse demonstrations that are too short. Raises DatasetError naming the episode."""
    steps = config.steps or 2
    each = max(config.shortest, 1)
    for episode in episodes:
        count = min(len(episode), config.frames)
        if count < steps * each:
            few = f"{len(episode)} frame{'s' * (len(episode) != 1)}"
            few += "" if count == len(episode) else f", of which {count} are looked at"
            raise DatasetError(
                f"{episode.source} has {few}, too few for {steps} steps"
                f"{f' of at least {each} frames' if each > 1 else ''}; leave the episode out with "
                "--dataset.episodes, or ask for fewer steps with --reward_model.steps"
            )


def choose(
    demos: Sequence[Demo], config: PerceptualConfig, advance: Callable[[], None]
) -> tuple[int, list[Trial]]:
    """Return the number of steps, and what every number was worth.

    With a demonstration left out, steps are fitted to the others; `Trial` says what is measured in
    the one left out. Too few steps leave long plateaus in the potential; in the numbers from there
    on its order hardly changes, but cuts without a meaning fall elsewhere in every demonstration
    and are not recognised. So, of the numbers whose 1 - order is within a tenth of the best, the
    largest wins whose steps are recognised about as well as any of these. A single demonstration
    leaves none out: there it takes the in-sample criterion of `segmentation.choose_steps`.

    Args:
        demos: at least one.
        config: gives the largest number of steps.
        advance: called once per number tried.
    """
    most = largest_number(demos, config)
    thin = [_thinned(demo) for demo in demos]
    if len(thin) == 1:
        return max(2, choose_steps([thin[0].held()], most=most)), []
    trials: list[Trial] = []
    for steps in range(2, most + 1):
        trials.append(_try(thin, steps, config))
        advance()
    slack = SLACK * (1 - max(t.order for t in trials)) + 1e-9
    close = [t for t in trials if 1 - t.order <= slack]
    best = max(t.recognised for t in close)
    return max(t.steps for t in close if t.recognised >= best - TIE), trials


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


def _try(demos: Sequence[Demo], steps: int, config: PerceptualConfig) -> Trial:
    """Measure a number of steps on demonstrations left out, one after the other."""
    bounds = discover(demos, steps, config)
    folds = [_left_out(demos, bounds, i, config) for i in range(min(len(demos), FOLDS))]
    order = float(np.mean([order for order, _ in folds]))
    return Trial(steps, order, float(np.mean([shares for _, shares in folds], axis=0).min()))


def _left_out(
    demos: Sequence[Demo], bounds: Sequence[Int64], left: int, config: PerceptualConfig
) -> tuple[float, Float64]:
    """Return order and Jaccard index of every step in one demonstration left out."""
    steps, rest = len(bounds[left]) - 1, [i for i in range(len(demos)) if i != left]
    views = fit_views([demos[i] for i in rest], [bounds[i] for i in rest], config)
    if all(fitted is None for fitted in views):
        return 0.0, np.zeros(steps)
    far = mean_distances(views, demos[left].features, demos[left].present)
    ok = np.isfinite(far).all(1)
    order = spearman(combine(np.exp(-0.5 * far[ok])), np.flatnonzero(ok))
    true = np.repeat(np.arange(steps), np.diff(bounds[left]))[ok]
    # A potential that never moves orders nothing.
    return order if np.isfinite(order) else 0.0, _overlap(far[ok].argmin(1), true, steps)


def _overlap(found: Int64, true: Int64, steps: int) -> Float64:
    """Return the Jaccard index of every step, Float64["g"], of two labellings Int64["t"]."""
    both = [np.sum((found == g) & (true == g)) for g in range(steps)]
    either = [np.sum((found == g) | (true == g)) for g in range(steps)]
    return np.array(both) / np.maximum(either, 1)


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
