"""Planted steps: the features that tell them, and the reward read from them (notes of B.7)."""

import numpy as np
import pytest

from embodied_reward.math.segmentation import segment
from embodied_reward.math.statistics import kendall_tau_a
from embodied_reward.math.step_reward import combine, discrimination, fit_steps

LENGTHS = (20, 25, 30)
INFORMATIVE, SIZE = 32, 256


def demo(rng, levels, lengths=LENGTHS):
    """Frames whose first features have one level per step, with unit noise."""
    x = rng.normal(size=(sum(lengths), SIZE))
    x[:, :INFORMATIVE] += np.repeat(levels, lengths, axis=0)
    return x


def world(seed=0, shift=2.5):
    rng = np.random.default_rng(seed)
    levels = shift * np.cumsum(rng.choice([-1.0, 1.0], (len(LENGTHS), INFORMATIVE)), axis=0)
    demos = [demo(rng, levels) for _ in range(5)]
    return rng, levels, demos, [segment(d, 3, shortest=5)[0] for d in demos]


def test_discrimination_by_hand():
    spread = np.array([[0.5], [-0.5]])
    assert discrimination(1 + spread, spread) == pytest.approx(4.0)


def test_planted_features_are_found():
    """256 features, of which 32 shift by 2.5 standard deviations in one step."""
    rng = np.random.default_rng(1)
    planted = rng.choice(SIZE, INFORMATIVE, replace=False)
    x = rng.normal(size=(200, SIZE))
    x[120:, planted] += 2.5
    model = fit_steps([x], [np.array([0, 120, 200])])
    assert set(model.chosen[1]) == set(planted)


def test_steps_are_told_apart_on_held_out_frames():
    rng, levels, demos, bounds = world()
    model = fit_steps(demos, bounds)
    truth = np.repeat(np.arange(3), LENGTHS)
    hits = [model.rewards(demo(rng, levels)).argmax(1) == truth for _ in range(10)]
    assert np.mean(hits) >= 0.9
    rewards = model.rewards(demos[0])
    assert ((rewards >= 0) & (rewards <= 1)).all()


def test_the_potential_rises_step_by_step_and_a_missed_last_step_stays_below():
    rng, levels, demos, bounds = world()
    model = fit_steps(demos, bounds)
    clean = [model.potential(demo(rng, levels)) for _ in range(5)]
    by_step = np.mean(
        [[part.mean() for part in np.split(c, np.cumsum(LENGTHS)[:-1])] for c in clean], 0
    )
    assert kendall_tau_a(by_step, np.arange(3)) == pytest.approx(1.0)
    last = np.mean([c[-LENGTHS[2] :].mean() for c in clean])
    missed = demo(rng, levels[[0, 1, 1]])
    assert model.potential(missed).max() < last


def test_combination_drops_the_first_step_and_doubles_every_further_one():
    rewards = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    np.testing.assert_allclose(combine(rewards), [0, 1 / 3, 2 / 3, 1])


def test_a_feature_that_never_varies_does_not_decide_alone():
    _, _, demos, bounds = world()
    dead = [np.c_[d, np.zeros(len(d))] for d in demos]
    model = fit_steps(dead, bounds)
    assert np.isfinite(model.rewards(dead[0])).all()
    assert (model.spread > 0).all()


@pytest.mark.parametrize(
    "bounds", [[np.array([0, 5, 9])], [np.array([0, 10])], [np.array([0, 5, 5, 10])]]
)
def test_boundaries_that_do_not_fit(bounds):
    with pytest.raises(ValueError, match="do not cut|two at least"):
        fit_steps([np.zeros((10, 4))], bounds)
