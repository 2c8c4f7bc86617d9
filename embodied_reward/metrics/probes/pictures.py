"""Probes that alter what cameras show while the scene stays as it is."""

from collections.abc import Callable, Iterator

import numpy as np

from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.edits import (
    Picture,
    clutter,
    moment,
    pasted,
    replaced_from,
    resized,
    with_views,
)
from embodied_reward.metrics.probes.base import (
    Bench,
    Case,
    Measure,
    ProbeResult,
    Shown,
    newly_fires,
)
from embodied_reward.types import Episode, EpisodeScores, UInt8

GOAL_PATCH = 1 / 3
"""Side of the pasted goal thumbnail as a share of the picture's side."""

Edit = Callable[[Episode, str], Episode]
"""(episode, view) -> the edited episode."""


def black_camera(bench: Bench) -> ProbeResult:
    """Turn each camera black half-way."""
    rows = list(_from_half_way(bench, lambda e, v: np.zeros_like(e.views[v])))
    return ProbeResult(
        name="black_camera",
        title="Black camera",
        done="Half-way through each episode one camera turns black, each camera in turn.",
        expected="Less is known, so progress must not rise and success must not come on.",
        got=_said(rows),
        measures=_rise_and_fire(rows),
        shown=_worst_pictures(rows),
    )


def distractor_view(bench: Bench) -> ProbeResult:
    """Let each camera show noise, or something that does not belong there."""
    noise = list(_from_half_way(bench, lambda e, v: _noise(bench, e, v)))
    foreign = list(_from_half_way(bench, lambda e, v: _foreign(bench, e, v)))
    rows = noise + foreign
    return ProbeResult(
        name="distractor_view",
        title="Distractor view",
        done="Half-way through each episode one camera shows noise; then, instead, the picture "
        "of another camera (with a single camera: its own picture upside down).",
        expected="A camera that shows nothing of the task is no reason for more progress.",
        got=f"Noise: {_said(noise)} Foreign picture: {_said(foreign)}",
        measures=_rise_and_fire(rows),
        shown=_worst_pictures(noise) + _worst_pictures(foreign),
    )


def distractor_clutter(bench: Bench) -> ProbeResult:
    """Lay random shapes over every view: they are not part of the task."""
    changes, fired, shown = [], [], []
    for number, case in enumerate(bench.cases):
        edited = _cluttered(case.episode, bench.rng(2, number))
        scores = bench.score(edited)
        change = np.abs(scores.potential - case.scores.potential)
        changes.append(float(np.mean(change)))
        fires = newly_fires(case.scores.success, scores.success, case, bench.threshold)
        fired.append(float(fires.mean()))
        t = _peak(change)
        caption = _before_after(case, scores, t)
        shown.append((changes[-1], Shown(caption, moment(edited, t))))
    change = Measure("mean change of progress", finite_mean(changes), 0.05, 0.15)
    fire = Measure("frames in which success comes on", finite_mean(fired), 0.01, 0.05, percent=True)
    return ProbeResult(
        name="distractor_clutter",
        title="Distractor clutter",
        done="Five random coloured shapes lie over every view for the whole episode.",
        expected="Clutter says nothing about the task, so readings hardly change.",
        got=f"Progress changed by {change.value:.2f} on average; success came on in "
        f"{fire.value:.1%} of the frames.",
        measures=(change, fire),
        shown=_worst(shown),
    )


def goal_patch(bench: Bench) -> ProbeResult:
    """Paste a small picture of the goal into a corner of every view of the first frame."""
    rows, shown = [], []
    for case in bench.cases:
        start = _start(bench, case)
        before, _ = bench.look(case.episode, start)
        for corner in range(4):
            edited = {view: _corner(start[view], bench.goals[view], corner) for view in start}
            potential, success = bench.look(case.episode, edited)
            rows.append((potential - before, success))
            shown.append(_goal_shown(case, before, potential, success, edited))
    return ProbeResult(
        name="goal_patch",
        title="Goal picture in a corner",
        done="A picture of the finished task, a third as wide, is pasted into one corner of "
        "every view of the first frame, each corner in turn.",
        expected="A picture of the goal is not the goal: progress stays low, success off.",
        got=_said_goal(rows),
        measures=_goal_measures(rows, bench.threshold, 0.05, 0.20),
        shown=_worst(shown),
    )


def goal_view(bench: Bench) -> ProbeResult:
    """Let one whole camera show the goal at the first frame; the others tell the truth."""
    rows, shown, control = [], [], []
    for case in bench.cases:
        start = _start(bench, case)
        before, _ = bench.look(case.episode, start)
        control.append(bench.look(case.episode, _goal_pictures(bench, start))[0])
        for view in bench.views if len(bench.views) > 1 else ():
            edited = {**start, view: _goal_pictures(bench, start)[view]}
            potential, success = bench.look(case.episode, edited)
            rows.append((potential - before, success))
            shown.append(_goal_shown(case, before, potential, success, edited, view))
    said = _said_goal(rows) if rows else "Undefined: the model has one view only."
    return ProbeResult(
        name="goal_view",
        title="Goal picture in one camera",
        done="At the first frame one camera shows the goal picture, each camera in turn, while "
        "the others show the truth.",
        expected="The cameras contradict each other: progress stays well below the goal's and "
        "success stays off.",
        got=f"{said} With the goal in every camera progress reads {finite_mean(control):.2f}.",
        measures=_goal_measures(rows, bench.threshold, 0.30, 0.50),
        shown=_worst(shown),
    )


# (rise of progress, share of frames in which success comes on, what was seen)
_Row = tuple[float, float, Shown]


def _from_half_way(bench: Bench, frames: Callable[[Episode, str], UInt8]) -> Iterator[_Row]:
    for case in bench.cases:
        half = len(case.episode) // 2
        for view in bench.views:
            edited = replaced_from(case.episode, view, frames(case.episode, view), half)
            scores = bench.score(edited)
            rise = (scores.potential - case.scores.potential)[half:]
            fires = newly_fires(case.scores.success, scores.success, case, bench.threshold)
            t = half + _peak(rise)
            caption = f"camera {view}, {_before_after(case, scores, t)}"
            shown = Shown(caption, moment(edited, t))
            yield float(np.mean(rise)), float(fires[half:].mean()), shown


def _rise_and_fire(rows: list[_Row]) -> tuple[Measure, Measure]:
    rises = [max(rise, 0.0) for rise, _, _ in rows if np.isfinite(rise)]
    fired = finite_mean([fire for _, fire, _ in rows])
    return (
        Measure("largest mean rise of progress in an episode", _top(rises), 0.05, 0.20),
        Measure("frames in which success comes on", fired, 0.01, 0.05, percent=True),
    )


def _said(rows: list[_Row]) -> str:
    rises = [rise for rise, _, _ in rows]
    fired = finite_mean([fire for _, fire, _ in rows])
    return (
        f"Progress changed by {finite_mean(rises):+.2f} on average, by {_top(rises):+.2f} in the "
        f"worst episode; success came on in {fired:.1%} of the frames."
    )


def _worst_pictures(rows: list[_Row]) -> tuple[Shown, ...]:
    return _worst([(rise, shown) for rise, _, shown in rows])


def _goal_measures(
    rows: list[tuple[float, float]], threshold: float, warn: float, fail: float
) -> tuple[Measure, Measure]:
    fired = finite_mean([float(success >= threshold) for _, success in rows])
    return (
        Measure("largest rise of progress", _top([rise for rise, _ in rows]), warn, fail),
        Measure("pictures in which success fires", fired, 0.0, 0.05, percent=True),
    )


def _said_goal(rows: list[tuple[float, float]]) -> str:
    rises = [rise for rise, _ in rows]
    return (
        f"Progress rose by {finite_mean(rises):.2f} on average and by {_top(rises):.2f} at most; "
        f"the highest success probability was {_top([s for _, s in rows]):.2f}."
    )


def _goal_shown(
    case: Case, before: float, after: float, success: float, picture: Picture, view: str = ""
) -> tuple[float, Shown]:
    where = f", goal in {view}" if view else ""
    caption = (
        f"episode {case.episode.index}{where}: progress {before:.2f} → {after:.2f}, "
        f"success {success:.2f}"
    )
    return after - before, Shown(caption, picture)


def _start(bench: Bench, case: Case) -> dict[str, UInt8]:
    return {view: case.episode.views[view][0] for view in bench.views}


def _goal_pictures(bench: Bench, like: Picture) -> dict[str, UInt8]:
    return {v: resized(bench.goals[v], *like[v].shape[:2]) for v in like}


def _corner(picture: UInt8, goal: UInt8, corner: int) -> UInt8:
    h, w = picture.shape[:2]
    small = resized(goal, max(round(h * GOAL_PATCH), 1), max(round(w * GOAL_PATCH), 1))
    top = 0 if corner < 2 else h - small.shape[0]
    left = 0 if corner % 2 == 0 else w - small.shape[1]
    return pasted(picture, small, top, left)


def _cluttered(episode: Episode, rng: np.random.Generator) -> Episode:
    changed = {}
    for view, frames in episode.views.items():
        paint, mask = clutter(frames.shape[1:], rng)
        changed[view] = np.where(mask, paint, frames)
    return with_views(episode, changed)


def _noise(bench: Bench, episode: Episode, view: str) -> UInt8:
    rng = bench.rng(3, episode.index)
    return rng.integers(0, 256, episode.views[view].shape, np.uint8)


def _foreign(bench: Bench, episode: Episode, view: str) -> UInt8:
    frames = episode.views[view]
    others = [v for v in bench.views if v != view]
    if not others:
        return frames[:, ::-1].copy()
    return np.stack([resized(f, *frames.shape[1:3]) for f in episode.views[others[0]]])


def _before_after(case: Case, scores: EpisodeScores, t: int) -> str:
    return (
        f"episode {case.episode.index}, frame {t}: progress {case.scores.potential[t]:.2f} → "
        f"{scores.potential[t]:.2f}, success {case.scores.success[t]:.2f} → {scores.success[t]:.2f}"
    )


def _peak(values: np.ndarray) -> int:
    return int(np.nanargmax(values)) if np.isfinite(values).any() else 0


def _top(values: list[float]) -> float:
    return max((v for v in values if np.isfinite(v)), default=float("nan"))


def _worst(shown: list[tuple[float, Shown]]) -> tuple[Shown, ...]:
    finite = [pair for pair in shown if np.isfinite(pair[0])]
    return (max(finite, key=lambda pair: pair[0])[1],) if finite else ()
