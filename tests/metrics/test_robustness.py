"""Missing cameras, moved cameras, other light, other tasks."""

import dataclasses

import numpy as np
import pytest

from embodied_reward.errors import DatasetError
from embodied_reward.metrics.baselines import Constant, PixelDistance, Random, TimeIndex, mean_goals
from embodied_reward.metrics.confusion import diagonal_margin, task_confusion
from embodied_reward.metrics.judge import judge
from embodied_reward.metrics.robustness import Robustness
from embodied_reward.metrics.stability import (
    JITTER,
    PERTURBATIONS,
    change_light,
    jitter_view,
    perturbed,
    stability,
)
from embodied_reward.types import EpisodeScores

VIEWS = ("front", "wrist")


def scores(potential):
    return EpisodeScores(potential, potential, np.zeros(len(potential)))


class FrontKnows:
    """Reads true progress off the front view, guesses one half without it, needs some view."""

    def score_episode(self, episode):
        if not episode.views:
            raise DatasetError("no view")
        known = "front" in episode.views
        y = np.asarray(episode.progress, float)
        return scores(y if known else np.full(len(y), 0.5))


class NeedsBoth:
    def score_episode(self, episode):
        for view in VIEWS:
            if view not in episode.views:
                raise DatasetError(f"no view '{view}'")
        return scores(np.asarray(episode.progress, float))


class Brightness:
    """The potential is the mean brightness of the front view."""

    def score_episode(self, episode):
        return scores(episode.views["front"].mean((1, 2, 3)) / 255)


def robustness(predictor, episodes, views=VIEWS):
    found = Robustness(views)
    for e in episodes:
        found.add(predictor, e, judge(predictor, e))
    return found.summary()


def test_losing_the_view_that_knows_costs_and_losing_the_other_does_not(mixed):
    found = robustness(FrontKnows(), mixed)
    assert found["episodes"] == 8
    assert found["whole"]["mae"] == found["without"]["wrist"]["mae"] == 0
    assert found["without"]["front"]["mae"] > 0.2
    assert found["without"]["front"]["success_auc_potential"] == 0.5
    assert np.isnan(found["without"]["front"]["spearman"])


def test_a_model_that_needs_every_view_says_so(mixed):
    found = robustness(NeedsBoth(), mixed[:2])
    assert found["without"] == {v: {"reason": f"no view '{v}'"} for v in VIEWS}
    assert found["stability"] == {"view jitter": 0.0, "lighting": 0.0}


def test_one_camera_cannot_be_left_out(toy):
    episode = toy(np.linspace(0, 1, 12), views=("front",))
    assert robustness(Brightness(), [episode], ("front",))["without"] == {}


def test_baselines_get_values_too(mixed):
    pixel = robustness(PixelDistance(mean_goals(mixed[:4], VIEWS)), mixed)
    assert np.isfinite(list(pixel["without"]["front"].values())).all()
    assert pixel["stability"]["view jitter"] > 0.01
    constant = robustness(Constant(), mixed)
    assert constant["stability"] == {"view jitter": 0.0, "lighting": 0.0}
    assert robustness(Random(), mixed)["stability"]["lighting"] == pytest.approx(0)


def test_light_moves_who_looks_at_brightness_and_a_shift_hardly_does(mixed):
    dark, moved = (
        stability(Brightness(), mixed[0], PERTURBATIONS[name], draws=8, seed=0)
        for name in ("lighting", "view jitter")
    )
    assert dark > 0.01
    assert moved < dark / 3


def test_a_perturbation_holds_for_all_frames_and_repeats_with_its_seed(mixed):
    episode = mixed[0]
    for change in PERTURBATIONS.values():
        first, again, other = (perturbed(episode, change, s) for s in (3, 3, 4))
        for view in VIEWS:
            assert np.array_equal(first.views[view], again.views[view])
            assert first.views[view].dtype == np.uint8
        assert any(not np.array_equal(first.views[v], other.views[v]) for v in VIEWS)
    still = np.repeat(episode.views["front"][:1], 5, axis=0)
    for change in (jitter_view, change_light):
        seen = change(still, np.random.default_rng(1))
        assert (seen == seen[0]).all()


def test_jitter_shifts_by_a_few_pixels_at_most():
    ramp = np.broadcast_to(np.arange(100, dtype=np.uint8)[None, :, None, None], (2, 100, 100, 3))
    for seed in range(20):
        seen = jitter_view(ramp, np.random.default_rng(seed))
        assert np.abs(seen.astype(int) - ramp).max() <= 100 * JITTER


def test_frames_that_failed_once_are_left_out(mixed):
    class Flaky(Brightness):
        def __init__(self):
            self.calls = 0

        def score_episode(self, episode):
            self.calls += 1
            found = super().score_episode(episode)
            potential = found.potential.copy()
            potential[self.calls] = np.nan
            return dataclasses.replace(found, potential=potential)

    assert np.isfinite(stability(Flaky(), mixed[0], change_light, draws=3, seed=0))


def test_diagonal_margin():
    assert diagonal_margin(np.eye(3)) == pytest.approx(1.0)
    assert diagonal_margin(1 - np.eye(3)) == pytest.approx(-1.0)
    assert diagonal_margin(np.array([[0.9, 0.5], [0.1, 0.7]])) == pytest.approx(0.5 / 0.8)
    for matrix in (np.full((3, 3), 0.7), np.ones((1, 1)), np.array([[1, np.nan], [0, 1]])):
        assert np.isnan(diagonal_margin(matrix))


def test_task_confusion_tells_rewards_apart_where_voc_cannot(toy):
    """Two tasks: the square in a bright and in a dark room. A clock is right of both."""
    bright = [toy(np.linspace(0, 1, 20), index=i) for i in range(3)]
    dark = [
        dataclasses.replace(e, views={v: 255 - f for v, f in e.views.items()})
        for e in (toy(np.linspace(0, 1, 25), index=i) for i in range(3))
    ]
    tasks = {"bright": bright, "dark": dark}
    pixel = {name: PixelDistance(mean_goals(es, VIEWS)) for name, es in tasks.items()}
    found = task_confusion(pixel, tasks)
    assert found.tasks == ("bright", "dark")
    assert found.matrix.diagonal() == pytest.approx([1.0, 1.0])
    assert found.margin > 0.9
    clock = task_confusion(dict.fromkeys(tasks, TimeIndex(20)), tasks)
    assert np.isnan(clock.margin)
    assert np.isnan(task_confusion(dict.fromkeys(tasks, Constant()), tasks).margin)
    with pytest.raises(DatasetError, match="rewards are for bright but episodes are of dark"):
        task_confusion({"bright": Constant()}, {"dark": dark})
