"""Every probe must pass a predictor that is right, and fail one that has the flaw it looks for."""

import dataclasses

import numpy as np
import pytest

from embodied_reward.metrics.baselines import Constant, ConstantHop, TimeIndex
from embodied_reward.metrics.edits import reordered, stills, without_view
from embodied_reward.metrics.probes import PROBES, Bench, Measure, run_probes
from embodied_reward.metrics.probes.patches import keypoints, search
from embodied_reward.types import EpisodeScores

SIZE = 32
GRID = np.linspace(0, 1, 29)


@pytest.fixture(scope="module")
def drawn(toy):
    """Every picture of the toy world, view -> UInt8["29 h w 3"]."""
    return toy(GRID, size=SIZE).views


@pytest.fixture(scope="module")
def episodes(toy):
    steps = np.round(np.linspace(0, 28, 40)).astype(int)
    rise_and_fall = np.concatenate([steps[:24], steps[23:7:-1]])
    good = [toy(GRID[steps], index=i, size=SIZE) for i in range(2)]
    bad = [toy(GRID[rise_and_fall], index=2 + i, size=SIZE) for i in range(2)]
    return good + bad


class Fake:
    """A predictor made of two functions of what the cameras show."""

    def __init__(self, potential, success=None):
        self.potential, self.success = potential, success

    def score_episode(self, episode):
        potential = np.array([self.potential(p) for p in _pictures(episode)])
        success = potential >= 0.999
        if self.success:
            success = np.array([self.success(p) for p in _pictures(episode)])
        return EpisodeScores(potential, success.astype(float), np.zeros(len(potential)))


def _pictures(episode):
    for t in range(len(episode)):
        yield {view: frames[t] for view, frames in episode.views.items()}


def careful(drawn):
    """Look the picture up in every camera, ignore cameras that show another world, and believe
    the one that says least."""

    def read(picture):
        readings = []
        for view, frame in picture.items():
            same = (drawn[view] == frame).all(axis=-1).mean(axis=(1, 2))
            if same.max() > 0.5:
                readings.append(GRID[np.flatnonzero(same >= same.max() - 1e-9)[0]])
        return min(readings, default=0.0)

    return read


def bench(predictor, episodes, drawn, **changes):
    goals = {view: frames[-1] for view, frames in drawn.items()}
    fields = {"views": ("front", "wrist"), "budget": 60}
    return Bench(predictor, episodes, goals, **{**fields, **changes})


def verdict(name, predictor, episodes, drawn, **changes):
    return PROBES[name](bench(predictor, episodes, drawn, **changes)).verdict


@pytest.mark.parametrize("name", PROBES)
def test_a_careful_reader_passes(name, episodes, drawn):
    result = PROBES[name](bench(Fake(careful(drawn)), episodes, drawn))
    assert result.verdict == "pass", result


def share(condition):
    """Progress is the share of pixels that satisfy a condition, times four."""

    def read(picture):
        shares = [condition(frame.astype(int)).mean() for frame in picture.values()]
        return min(4 * float(np.mean(shares)), 1.0)

    return read


darkness = share(lambda frame: frame.max(axis=2) < 10)
brightness = share(lambda frame: frame.max(axis=2) > 100)
colour = share(lambda frame: np.ptp(frame, axis=2) > 30)


def position(view):
    """The right-most bright column of one camera, whatever it is that shines there."""

    def read(picture):
        columns = np.flatnonzero((picture[view].min(axis=2) > 200).any(axis=0))
        return min(columns.max() / (SIZE - 1), 1.0) if len(columns) else 0.0

    return read


FLAWED = {
    "frozen_frame": [TimeIndex(60), ConstantHop(0.05)],
    "reversed_video": [TimeIndex(60)],
    "shuffled_frames": [TimeIndex(60)],
    "black_camera": [Fake(darkness)],
    "distractor_view": [Fake(brightness), Fake(position("front"))],
    "distractor_clutter": [Fake(colour)],
    "goal_patch": [Fake(position("front"))],
    "goal_view": [Fake(position("wrist"))],
}


@pytest.mark.parametrize(("name", "flawed"), [(n, f) for n, fs in FLAWED.items() for f in fs])
def test_the_flaw_that_a_probe_looks_for_fails_it(name, flawed, episodes, drawn):
    assert verdict(name, flawed, episodes, drawn) == "fail"


def test_success_that_a_detail_decides_fails_hovering_and_the_patch_searches(episodes, drawn):
    hoverer = Fake(careful(drawn), lambda picture: careful(drawn)(picture) >= 0.6)
    assert verdict("hovering", hoverer, episodes, drawn) == "fail"
    assert verdict("progress_patch", Fake(position("front")), episodes, drawn, budget=200) == "fail"
    shiny = Fake(careful(drawn), lambda picture: position("wrist")(picture) >= 0.99)
    assert verdict("success_patch", shiny, episodes, drawn, budget=200) == "fail"


def test_the_worst_of_the_measures_counts_and_thresholds_are_inclusive():
    low = Measure("m", 0.1, 0.1, 0.2)
    assert low.verdict == "pass"
    assert dataclasses.replace(low, value=0.2).verdict == "warn"
    assert dataclasses.replace(low, value=0.201).verdict == "fail"
    assert dataclasses.replace(low, value=float("nan")).verdict == "undefined"
    high = Measure("m", float("inf"), 0.1, 0.02, higher_is_better=True)
    assert high.verdict == "pass"
    assert dataclasses.replace(high, value=0.05).verdict == "warn"
    assert dataclasses.replace(high, value=0.01).verdict == "fail"


def test_what_cannot_be_asked_is_undefined_and_says_why(episodes, drawn):
    goods = episodes[:2]
    fake = Fake(careful(drawn))
    for name, where in (
        ("hovering", goods),
        ("success_patch", goods),
        ("reversed_video", episodes[2:]),
    ):
        result = PROBES[name](bench(fake, where, drawn))
        assert result.verdict == "undefined"
        assert result.got.startswith("Undefined")
    assert verdict("reversed_video", Constant(0.3), episodes, drawn) == "undefined"
    assert verdict("goal_view", fake, episodes, drawn, views=("front",)) == "undefined"


def test_the_same_seed_gives_the_same_results_and_the_budget_holds(episodes, drawn):
    def run(seed):
        made = bench(Fake(position("front")), episodes, drawn, seed=seed, budget=25)
        names = []
        return run_probes(made, done=names.append), names

    (first, names), (again, _), (other, _) = run(0), run(0), run(1)
    assert names == list(PROBES)
    assert [(r.got, r.queries) for r in first] == [(r.got, r.queries) for r in again]
    assert [r.got for r in first] != [r.got for r in other]
    patch = next(r for r in first if r.name == "progress_patch")
    # four scenes are looked at, two are attacked: the untouched picture and 25 patches each
    assert 0 < patch.queries <= 4 + 2 * 26


def test_probes_leave_the_episodes_alone(toy):
    episode = toy(GRID, size=SIZE)
    before = {view: frames.copy() for view, frames in episode.views.items()}
    made = bench(Fake(darkness), [episode], episode.views, budget=5)
    run_probes(made)
    for view, frames in before.items():
        np.testing.assert_array_equal(episode.views[view], frames)


def test_the_search_finds_the_smallest_patch_that_is_enough(drawn):
    picture = {"front": np.zeros((50, 50, 3), np.uint8)}

    def lit(changed):
        return float((changed["front"] > 127).all(axis=-1).sum()) / 50.0

    goals = {"front": np.full((50, 50, 3), 255, np.uint8)}
    found = search(picture, goals, lit, 1.0, rng=np.random.default_rng(0), budget=200)
    # 7 x 7 lit pixels are too few, 10 x 10 are plenty, and nothing lies between in SIDES
    assert found.flipped
    assert found.patch.side == 7 if found.share < 0.03 else found.patch.side == 10
    assert found.share == found.patch.side**2 / 2500
    blind = search(picture, goals, lambda _: 0.2, 1.0, rng=np.random.default_rng(0), budget=20)
    assert (blind.flipped, blind.queries, blind.share) == (False, 21, float("inf"))


def test_keypoints_lie_at_corners_and_are_never_missing():
    image = np.zeros((64, 64, 3), np.uint8)
    image[20:40, 20:40] = 255
    points = keypoints(image)
    corners = np.array([(20, 20), (20, 40), (40, 20), (40, 40)])
    assert np.abs(points[:, None] - corners).sum(-1).min(1).max() < 14
    np.testing.assert_array_equal(keypoints(np.zeros((32, 48, 3), np.uint8)), [[24, 16]])


def test_edits_keep_truth_with_its_frame(toy):
    episode = toy([0.0, 0.5, 1.0])
    backwards = reordered(episode, [2, 1, 1, 0])
    assert len(backwards) == 4
    np.testing.assert_array_equal(backwards.progress, np.float32([1, 0.5, 0.5, 0]))
    np.testing.assert_array_equal(backwards.views["front"][3], episode.views["front"][0])
    assert set(without_view(episode, "front").views) == {"wrist"}
    still = stills(episode, [{"front": episode.views["front"][1]}])
    assert (len(still), still.progress, set(still.views)) == (1, None, {"front"})
