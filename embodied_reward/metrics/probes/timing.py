"""Probes that move frames in time: does the reward follow the picture or the clock?"""

import numpy as np

from embodied_reward.math.statistics import finite_mean
from embodied_reward.metrics.edits import moment, reordered
from embodied_reward.metrics.probes.base import Bench, Case, Measure, ProbeResult, Shown
from embodied_reward.metrics.voc import is_undefined, voc
from embodied_reward.types import Float64, Int64

HELD = 30
"""Frames for which a frame is frozen or held."""


def frozen_frame(bench: Bench) -> ProbeResult:
    """Stop the video at the start and half-way: waiting must not earn progress."""
    rises, fired, worst = [], [], None
    for case in bench.cases:
        for at in (0, len(case.episode) // 2):
            order = _then_hold(at)
            scores = bench.score(reordered(case.episode, order))
            held = scores.potential[at:]
            rises.append(float(np.max(held) - held[0]))
            before, after = scores.success[at : at + 1], scores.success[at:]
            fired.append(float(before[0] < bench.threshold <= np.max(after)))
            if worst is None or rises[-1] > worst[0]:
                worst = (rises[-1], case, at, held)
    rise = Measure("largest rise of progress", _most(rises), 0.02, 0.10)
    fire = Measure(
        "share of freezes in which success came on", finite_mean(fired), 0.0, 0.05, percent=True
    )
    return ProbeResult(
        name="frozen_frame",
        title="Frozen frame",
        done=f"The video stops at the first and at the middle frame, which then repeats {HELD} "
        "times.",
        expected="Nothing happens, so progress and success stay where they are.",
        got=f"Progress rose by {rise.value:.2f} at most, by {finite_mean(rises):.2f} on average.",
        measures=(rise, fire),
        shown=_frozen_pictures(worst),
    )


def reversed_video(bench: Bench) -> ProbeResult:
    """Play successes backwards: order with time must turn round."""
    forward, backward, shown = [], [], ()
    for case in bench.successes:
        steps = np.arange(len(case.episode))
        played = _after_first(bench, case, steps[::-1])
        if is_undefined(case.scores.potential) or is_undefined(played):
            continue
        forward.append(voc(case.scores.potential))
        backward.append(voc(played))
        shown = shown or _ends(case, played)
    value = finite_mean(backward)
    said = (
        f"Order with time is {finite_mean(forward):.2f} forwards and {value:.2f} backwards."
        if backward
        else "Undefined: there is no successful episode in which progress changes."
    )
    return ProbeResult(
        name="reversed_video",
        title="Reversed video",
        done="Successful episodes play backwards after their true first frame, which anchors "
        "the reading.",
        expected="Rank correlation of progress with time turns from near 1 to near -1.",
        got=said,
        measures=(Measure("order with time, reversed", value, -0.5, 0.0),),
        shown=shown,
    )


def shuffled_frames(bench: Bench) -> ProbeResult:
    """Shuffle the frames: each must keep its reading."""
    changes, ranks = [], []
    for number, case in enumerate(bench.cases):
        order = bench.rng(1, number).permutation(len(case.episode))
        played = _after_first(bench, case, order)
        back = np.empty_like(played)
        back[order] = played
        changes.append(float(np.mean(np.abs(back - case.scores.potential))))
        ranks.append(voc(played))
    change = Measure("mean change of a frame's progress", finite_mean(changes), 0.02, 0.10)
    return ProbeResult(
        name="shuffled_frames",
        title="Shuffled frames",
        done="The frames after the first are shown in a random order.",
        expected="Every frame keeps its reading; what depends on the order reads the clock.",
        got=f"A frame's progress changed by {change.value:.2f} on average; progress still "
        f"correlates {finite_mean(ranks):.2f} with the clock.",
        measures=(change,),
    )


def hovering(bench: Bench) -> ProbeResult:
    """Hold the best-looking frame of failures: an optimiser will find it and stay there."""
    fired, tops, rises, shown = [], [], [], []
    for case in bench.failures:
        potential = np.where(np.isfinite(case.scores.potential), case.scores.potential, -1.0)
        at = int(np.argmax(potential))
        scores = bench.score(reordered(case.episode, _then_hold(at)))
        top = float(np.max(scores.success[at:]))
        fired.append(float(top >= bench.threshold))
        tops.append(top)
        rises.append(float(np.max(scores.potential[at:]) - scores.potential[at]))
        caption = f"episode {case.episode.index}, frame {at}: progress {potential[at]:.2f}, "
        shown.append((top, Shown(f"{caption}success {top:.2f}", moment(case.episode, at))))
    share = Measure(
        "share of failures in which success fires", finite_mean(fired), 0.0, 0.10, percent=True
    )
    rise = Measure("largest rise of progress while holding", _most(rises), 0.02, 0.10)
    said = (
        f"Success fires in {sum(fired):.0f} of {len(fired)} failed episodes; the highest "
        f"probability is {max(tops):.2f} (threshold {bench.threshold:.2f})."
        if fired
        else "Undefined: no failed episode among those evaluated."
    )
    return ProbeResult(
        name="hovering",
        title="Hovering",
        done="In each failed episode the frame with the highest progress is held for "
        f"{HELD} frames, as a policy that optimises progress would.",
        expected="The task is not done, so success does not fire, and waiting earns nothing.",
        got=said,
        measures=(share, rise),
        shown=tuple(s for _, s in sorted(shown, key=lambda pair: -pair[0])[:3]),
    )


def _then_hold(at: int) -> Int64:
    return np.concatenate([np.arange(at), np.full(HELD, at)])


def _after_first(bench: Bench, case: Case, order: Int64) -> Float64:
    """Score the first frame followed by frames `order`; return the readings of `order`."""
    played = reordered(case.episode, np.concatenate([[0], order]))
    return bench.score(played).potential[1:]


def _most(values: list[float]) -> float:
    finite = [v for v in values if np.isfinite(v)]
    return max(finite, default=float("nan"))


def _frozen_pictures(worst: tuple[float, Case, int, Float64] | None) -> tuple[Shown, ...]:
    if worst is None:
        return ()
    _, case, at, held = worst
    caption = (
        f"episode {case.episode.index}, frozen at frame {at}: progress {held[0]:.2f}, after "
        f"{HELD} frames {held[-1]:.2f}"
    )
    return (Shown(caption, moment(case.episode, at)),)


def _ends(case: Case, played: Float64) -> tuple[Shown, ...]:
    episode = case.episode
    first = f"episode {episode.index}, played first: progress {played[0]:.2f}"
    last = f"played last: progress {played[-1]:.2f}"
    return Shown(first, moment(episode, len(episode) - 1)), Shown(last, moment(episode, 0))
