"""Preference oracles: analytic answers, symmetry, rates of mistakes, recorded episodes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embodied_reward.envs.tasks.planar import Avoid, SweepToGoal
from embodied_reward.envs.tasks.preferences import Teacher, prefer, true_return, true_rewards
from embodied_reward.errors import EnvError
from embodied_reward.types import Episode

RNG = np.random.default_rng
REWARDS = st.lists(st.floats(-2, 0), min_size=1, max_size=8).map(np.array)


def episode(progress, task=SweepToGoal.description, states=None):
    progress = np.asarray(progress, np.float32)
    states = np.zeros((len(progress), 6), np.float32) if states is None else states
    action = np.zeros((len(progress), 3), np.float32)
    return Episode(
        {}, action, 10.0, task, 0, "test#0", len(progress), None, states, progress=progress
    )


@given(REWARDS, REWARDS)
def test_a_perfect_teacher_is_consistent(first, second):
    swapped = {"first": "second", "second": "first", "same": "same"}
    answer = Teacher().prefer(first, second, RNG(0))
    assert Teacher().prefer(second, first, RNG(1)) == swapped[answer]
    assert Teacher().prefer(first, first, RNG(2)) == "same"


def test_finishing_early_and_finishing_at_all_are_preferred():
    early, late, never = [-1, 0], [-1, -1, -0.5, 0], [-1, -1, -0.1]
    ask = Teacher().prefer
    assert ask(np.array(early), np.array(late), RNG(0)) == "first"
    assert ask(np.array(never), np.array(early), RNG(0)) == "second"
    # Cut off after two frames, a failure is not the better for it.
    assert ask(np.array([-1.0, -1.0]), np.array([-1.0, -1.0, -1.0, -0.5]), RNG(0)) == "second"
    assert true_return([-1.0, -0.5], 4) == -2.5


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_mistakes_come_at_their_rate(noise):
    rng, teacher = RNG(0), Teacher(noise=noise)
    answers = [teacher.prefer(np.array([-0.2]), np.array([-0.9]), rng) for _ in range(4000)]
    assert answers.count("second") / 4000 == pytest.approx(noise, abs=0.02)


def test_limited_rationality_follows_bradley_terry():
    rng, teacher = RNG(0), Teacher(rationality=2.0)
    answers = [teacher.prefer(np.array([-0.2]), np.array([-0.7]), rng) for _ in range(4000)]
    assert answers.count("first") / 4000 == pytest.approx(1 / (1 + np.exp(-1.0)), abs=0.02)


def test_near_ties_are_the_same_and_a_myopic_teacher_sees_the_end():
    first, second = np.array([0.0, -1.0]), np.array([-1.0, -0.5])
    assert Teacher().prefer(first, second, RNG(0)) == "first"
    assert Teacher(same_within=0.6).prefer(first, second, RNG(0)) == "same"
    # 0.1 * 0 - 1 < 0.1 * -1 - 0.5
    assert Teacher(discount=0.1).prefer(first, second, RNG(0)) == "second"


def test_teachers_draw_alike_question_by_question():
    """Two draws per question whatever comes out, so one teacher's luck is the other's."""
    rngs = RNG(0), RNG(0)
    for teacher, rng in zip((Teacher(), Teacher(noise=0.5, same_within=9.0)), rngs, strict=True):
        teacher.prefer(np.array([-1.0]), np.array([-0.5]), rng)
    assert rngs[0].random() == rngs[1].random()


def test_recorded_episodes_of_avoid_are_judged_with_the_region():
    states = np.zeros((3, 6), np.float32)
    states[1, 4] = 1.0
    through = episode([0, 0.5, 0.5], Avoid.description, states)
    np.testing.assert_allclose(true_rewards(through), [-1.0, -1.5, -0.5])
    around = episode([0, 0.2, 0.5], Avoid.description)
    assert prefer(around, through, RNG(0)) == "first"
    assert prefer(around, through, RNG(0), Teacher(noise=1.0)) == "second"


def test_what_cannot_be_judged_is_named():
    good = episode([0, 1])
    with pytest.raises(EnvError, match="no true progress"):
        true_rewards(dataclasses.replace(good, progress=None))
    with pytest.raises(EnvError, match="is no task of the suite"):
        true_rewards(dataclasses.replace(good, task="open the drawer"))
    with pytest.raises(EnvError, match="different tasks"):
        prefer(good, episode([0, 1], Avoid.description), RNG(0))
    with pytest.raises(EnvError, match="one or more finite numbers"):
        Teacher().prefer(np.array([np.nan]), np.array([0.0]), RNG(0))
    with pytest.raises(EnvError, match="one or more finite numbers"):
        Teacher().prefer(np.zeros(0), np.zeros(1), RNG(0))


@pytest.mark.parametrize(
    "wrong", [{"noise": 1.5}, {"rationality": 0.0}, {"same_within": -1.0}, {"discount": 0.0}]
)
def test_impossible_teachers_are_refused(wrong):
    with pytest.raises(EnvError, match=next(iter(wrong))):
        Teacher(**wrong)
