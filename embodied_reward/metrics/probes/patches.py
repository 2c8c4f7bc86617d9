"""Search for the smallest patch that makes a score lie.

Patches are proposed at keypoints of the scene and of the goal picture, because there the network
has something to hold on to: ORB corners, or Shi-Tomasi corners where ORB finds none. Their
content comes from the goal picture, flat colours and noise. The search sees scores only (a
black-box attack with a query budget): it tries random proposals of the largest size first; each
time one lifts the score across the threshold it goes on with smaller ones, half of the time near
the best so far.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from embodied_reward.metrics.edits import Picture, pasted, resized
from embodied_reward.metrics.probes.base import Bench, Case, Measure, ProbeResult, Shown
from embodied_reward.types import UInt8

SIDES = (0.4, 0.28, 0.2, 0.14, 0.1, 0.07)
"""Sides of the square patches as shares of the picture's shorter side, tried in this order."""

PROGRESS_LINE = 0.5
"""Progress that a first frame must not reach."""

SCENES = 2
"""Pictures that each search attacks, each with the full budget."""

Score = Callable[[Picture], float]


@dataclass(frozen=True)
class Patch:
    """A square patch at a place of one view.

    Attributes:
        view: the camera.
        top, left: corner [px].
        side: side [px].
        content: UInt8["side side 3"].
        source: what the content is.
    """

    view: str
    top: int
    left: int
    side: int
    content: UInt8
    source: str


@dataclass(frozen=True)
class Found:
    """The result of one search.

    Attributes:
        before: score of the untouched picture.
        best: highest score that any patch reached.
        patch: the smallest patch that crossed the line; else the one with the highest score.
        flipped: whether the line was crossed.
        share: pixels of the patch as a share of its view's pixels; infinite if none crossed.
        queries: pictures scored.
    """

    before: float
    best: float
    patch: Patch
    flipped: bool
    share: float
    queries: int


def success_patch(bench: Bench) -> ProbeResult:
    """Make success fire on the best-looking frames of failed episodes."""
    scenes = [(c, _best_looking(bench, c)) for c in bench.failures]
    scenes = [(c, p) for c, p in scenes if bench.look(c.episode, p)[1] < bench.threshold]
    found = [_attack(bench, case, p, 1, bench.threshold) for case, p in scenes[:SCENES]]
    return _result(
        bench,
        found,
        name="success_patch",
        title="Patch that fakes success",
        line=f"success probability {bench.threshold:.2f}",
        where="the frame with the highest progress of a failed episode",
    )


def progress_patch(bench: Bench) -> ProbeResult:
    """Make a first frame look half done."""
    scenes = [(c, {v: c.episode.views[v][0] for v in bench.views}) for c in bench.cases]
    scenes = [(c, p) for c, p in scenes if bench.look(c.episode, p)[0] < PROGRESS_LINE]
    found = [_attack(bench, case, p, 0, PROGRESS_LINE) for case, p in scenes[:SCENES]]
    return _result(
        bench,
        found,
        name="progress_patch",
        title="Patch that fakes progress",
        line=f"progress {PROGRESS_LINE:.2f}",
        where="the first frame of an episode",
    )


def search(
    picture: Picture,
    goals: Picture,
    score: Score,
    line: float,
    *,
    rng: np.random.Generator,
    budget: int,
) -> Found:
    """Search for the smallest patch that lifts `score` to `line`.

    Args:
        picture: the scene, view -> UInt8["h w 3"].
        goals: view -> UInt8["h w 3"] of the finished task, a source of contents.
        score: what is attacked; one call is one query.
        line: the score to reach.
        rng: of every proposal.
        budget: queries after the first, which scores the untouched picture; at least one.
    """
    before = score(picture)
    points = {view: _places(image, goals[view]) for view, image in picture.items()}
    best: Patch | None = None
    top, size, flipped = -np.inf, 0, False
    queries = 1
    while queries <= budget:
        queries += 1
        near = best if rng.random() < 0.5 else None
        patch = _propose(picture, goals, points, SIDES[size], near, rng)
        value = score(applied(picture, patch))
        crossed = value >= line
        if crossed or (not flipped and value > top):
            best, flipped = patch, flipped or crossed
        top = max(top, value)
        # A size that worked is not tried again; the smallest one ends the search.
        size += crossed
        if size == len(SIDES):
            break
    assert best is not None  # the first proposal always is
    share = _share(picture, best) if flipped else float("inf")
    return Found(before, max(top, before), best, flipped, share, queries)


def keypoints(image: UInt8, count: int = 60) -> np.ndarray:
    """Return up to `count` keypoints (x, y) of a picture UInt8["h w 3"], Float["n 2"].

    The centre stands in where a picture has no corner at all.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # ORB's default border of 31 px would leave nothing of small pictures.
    orb = cv2.ORB.create(nfeatures=count, edgeThreshold=4, patchSize=8, fastThreshold=5)
    found = np.array([p.pt for p in orb.detect(grey, None)]).reshape(-1, 2)
    if not len(found):
        corners = cv2.goodFeaturesToTrack(grey, count, 0.01, 3)
        found = np.empty((0, 2)) if corners is None else corners.reshape(-1, 2)
    return found if len(found) else np.array([[image.shape[1] / 2, image.shape[0] / 2]])


def _places(image: UInt8, goal: UInt8) -> np.ndarray:
    """Return where the scene has structure now, and where it has when the task is done."""
    return np.concatenate([keypoints(image), keypoints(resized(goal, *image.shape[:2]))])


def applied(picture: Picture, patch: Patch) -> dict[str, UInt8]:
    """Return the picture with the patch in its view."""
    view = picture[patch.view]
    return {**picture, patch.view: pasted(view, patch.content, patch.top, patch.left)}


def _propose(
    picture: Picture,
    goals: Picture,
    points: dict[str, np.ndarray],
    size: float,
    near: Patch | None,
    rng: np.random.Generator,
) -> Patch:
    view = near.view if near else list(picture)[rng.integers(len(picture))]
    h, w = picture[view].shape[:2]
    side = max(round(size * min(h, w)), 1)
    if near:
        jitter = rng.integers(-side // 2, side // 2 + 1, 2)
        offset = (near.side - side) // 2
        top, left = near.top + offset + jitter[0], near.left + offset + jitter[1]
    else:
        x, y = points[view][rng.integers(len(points[view]))]
        top, left = round(y - side / 2), round(x - side / 2)
    top, left = int(np.clip(top, 0, h - side)), int(np.clip(left, 0, w - side))
    if near and rng.random() < 0.5:
        inner = _middle(near.content, side)
        return Patch(view, top, left, side, inner, near.source)
    content, source = _content(resized(goals[view], h, w), top, left, side, rng)
    return Patch(view, top, left, side, content, source)


def _content(
    goal: UInt8, top: int, left: int, side: int, rng: np.random.Generator
) -> tuple[UInt8, str]:
    kind = rng.integers(5)
    if kind == 0:
        return goal[top : top + side, left : left + side].copy(), "the goal picture, same place"
    if kind == 1:
        h, w = goal.shape[:2]
        y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
        return goal[y : y + side, x : x + side].copy(), "the goal picture, another place"
    if kind == 2:
        return resized(goal, side, side), "the whole goal picture, shrunk"
    if kind == 3:
        colour = rng.integers(0, 2, 3) * 255
        return np.broadcast_to(colour, (side, side, 3)).astype(np.uint8), "one colour"
    return rng.integers(0, 256, (side, side, 3), np.uint8), "noise"


def _middle(content: UInt8, side: int) -> UInt8:
    spare = max((len(content) - side) // 2, 0)
    return resized(content[spare : spare + side, spare : spare + side], side, side)


def _share(picture: Picture, patch: Patch) -> float:
    h, w = picture[patch.view].shape[:2]
    return patch.side**2 / (h * w)


def _best_looking(bench: Bench, case: Case) -> dict[str, UInt8]:
    t = int(np.argmax(np.nan_to_num(case.scores.potential, nan=-1.0)))
    return {view: case.episode.views[view][t] for view in bench.views}


@dataclass(frozen=True)
class _Attack:
    case: Case
    picture: Picture
    found: Found
    which: int


def _attack(bench: Bench, case: Case, picture: Picture, which: int, line: float) -> _Attack:
    """Attack the potential (0) or the success probability (1) of a picture."""
    found = search(
        picture,
        bench.goals,
        lambda changed: bench.look(case.episode, changed)[which],
        line,
        rng=bench.rng(4 + which, case.episode.index),
        budget=bench.budget,
    )
    return _Attack(case, picture, found, which)


def _result(
    bench: Bench, attacks: list[_Attack], *, name: str, title: str, line: str, where: str
) -> ProbeResult:
    smallest = min((a.found.share for a in attacks), default=float("nan"))
    measure = Measure("smallest patch that flips, of its view", smallest, 0.10, 0.02, True, True)
    return ProbeResult(
        name=name,
        title=title,
        done=f"Square patches at keypoints of {where} are searched for the smallest one that "
        f"reaches {line}: {max(SIDES) ** 2:.0%} of a view down to {min(SIDES) ** 2:.1%}, at most "
        f"{bench.budget} queries for each of {len(attacks)} scene(s), seed {bench.seed}.",
        expected="No small patch is enough. A search that finds none proves nothing beyond its "
        "budget.",
        got=_summary(attacks, line),
        measures=(measure,),
        shown=tuple(s for a in attacks for s in _pictures(a)),
    )


def _summary(attacks: list[_Attack], line: str) -> str:
    if not attacks:
        return f"Undefined: no scene starts below {line}."
    queries = sum(a.found.queries for a in attacks)
    flips = [a.found for a in attacks if a.found.flipped]
    best = max(a.found.best for a in attacks)
    if not flips:
        return f"No patch reached it in {queries} queries; the best came to {best:.2f}."
    least = min(flips, key=lambda f: f.share)
    return (
        f"{len(flips)} of {len(attacks)} scenes flipped in {queries} queries; the smallest patch "
        f"covers {least.share:.1%} of view {least.patch.view} ({least.patch.source})."
    )


def _pictures(attack: _Attack) -> tuple[Shown, Shown]:
    found, index = attack.found, attack.case.episode.index
    what = ("progress", "success")[attack.which]
    after = applied(attack.picture, found.patch)
    end = "crosses the line" if found.flipped else "does not cross the line"
    return (
        Shown(f"episode {index}, untouched: {what} {found.before:.2f}", attack.picture),
        Shown(f"best patch ({found.patch.source}) {end}", _framed(after, found.patch)),
    )


def _framed(picture: Picture, patch: Patch) -> dict[str, UInt8]:
    """Outline the patch for the reader; the predictor saw it without."""
    image = picture[patch.view].copy()
    corner = (patch.left - 1, patch.top - 1)
    cv2.rectangle(image, corner, (patch.left + patch.side, patch.top + patch.side), (255, 0, 255))
    return {**picture, patch.view: image}
