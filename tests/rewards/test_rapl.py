"""RAPL alone: references, transport, triplets."""

import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.data.preferences import Triplet
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.rewards import RlhfModel
from embodied_reward.rewards.preference_batches import evenly, moments
from tests.rewards.preferred import (
    final,
    fit,
    moving_square,
    pairs,
    squares,
    tiny,
    trained,
    triplets,
    untrained,
)

# Every frame of the longest episode is kept and the plan is sharp: a reference matches itself.
EXACT = {"reference_frames": 16, "references": 1, "reward_epsilon": 1e-3}


def with_references(preferences=None, episodes=None, **fields):
    episodes = squares() if episodes is None else episodes
    model = untrained("rapl", pairs(episodes) if preferences is None else preferences, **fields)
    model.set_references(model.dataset(episodes))
    return model.eval()


def chosen(model):
    return model.reference_index.tolist()


def reversed_in_time(episode):
    return dataclasses.replace(episode, views={v: f[::-1] for v, f in episode.views.items()})


def test_the_best_references_are_the_most_preferred():
    model = with_references(references=4)
    best = sorted(squares(), key=final)[-4:]
    assert set(chosen(model)) == {e.index for e in best}
    assert model.card.extra["references"] == chosen(model)


def test_without_pairs_the_best_references_are_successes():
    model = with_references(triplets(squares()), references=3)
    assert len(chosen(model)) == 3
    assert all(squares()[i].success for i in chosen(model))


@pytest.mark.parametrize("choice", ["success", "medoid"])
def test_references_that_succeeded(choice):
    model = with_references(reference=choice, references=2)
    assert len(set(chosen(model))) == 2
    assert all(squares()[i].success for i in chosen(model))
    failures = [e for e in squares() if not e.success]
    with pytest.raises(DatasetError, match="none of the 12 training episodes is successful"):
        with_references(pairs(failures), failures, reference=choice)


def test_medoids_are_nearest_to_the_other_successes():
    """Of five successes one looks unlike the rest in every frame; it is no medoid."""
    episodes = [moving_square(i, reach=1.0) for i in range(5)]
    for view in episodes[2].views.values():
        view[:] = 255 - view
    model = with_references((*pairs(squares()[:2]),), episodes, reference="medoid", references=4)
    assert 2 not in chosen(model)


def test_a_reference_is_at_distance_zero_to_itself_and_nothing_is_above():
    model = with_references(**EXACT)
    itself = squares()[chosen(model)[0]]
    assert model.episode_return(itself) == pytest.approx(0, abs=5e-4)
    np.testing.assert_allclose(model.step_rewards(itself), 0, atol=5e-3)
    other = moving_square(300, reach=0.4)
    rewards = model.step_rewards(other)
    assert ((rewards <= 0) & (rewards >= -2)).all()
    assert rewards.mean() == pytest.approx(model.episode_return(other))


def test_a_plan_that_does_not_converge_is_no_reward():
    model, other = with_references(reward_epsilon=1e-9), moving_square(300, reach=0.4)
    assert np.isnan(model.episode_return(other))
    assert np.isnan(model.step_rewards(other)).all()
    assert np.isfinite(model.score_episode(other).potential).all()


def test_step_rewards_of_a_short_episode_and_its_continuation():
    """A shorter episode is continued with its last frame: the same return as when recorded so."""
    model = trained("rapl")
    short = moving_square(301, reach=0.5, length=10)
    last = {v: np.repeat(f[-1:], 6, axis=0) for v, f in short.views.items()}
    views = {v: np.concatenate([f, last[v]]) for v, f in short.views.items()}
    longer = dataclasses.replace(short, views=views, length=16)
    assert model.episode_return(short) == pytest.approx(model.episode_return(longer), abs=1e-5)
    np.testing.assert_allclose(
        model.step_rewards(short), model.step_rewards(longer)[:10], atol=1e-4
    )


def test_transport_does_not_see_the_order_of_frames_and_a_band_does():
    blind, banded = with_references(**EXACT), with_references(**EXACT, band=0.1)
    itself = squares()[chosen(blind)[0]]
    back = reversed_in_time(itself)
    assert blind.episode_return(back) == pytest.approx(blind.episode_return(itself), abs=1e-4)
    assert banded.episode_return(itself) == pytest.approx(0, abs=5e-4)
    assert banded.episode_return(back) < banded.episode_return(itself) - 1e-3


def test_the_nearest_reference_counts():
    model = with_references(**{**EXACT, "references": 4})
    one = with_references(**EXACT)
    others = [squares()[i] for i in chosen(model) if i not in chosen(one)]
    assert len(others) == 3
    for episode in others:
        assert model.episode_return(episode) == pytest.approx(0, abs=5e-4)
    assert min(one.episode_return(e) for e in others) < -5e-3


def test_the_transport_mode_is_the_step_reward_as_a_level():
    model, episode = trained("rapl"), moving_square(302, reach=0.5)
    level = model.score_episode(episode).modes["transport"]
    np.testing.assert_allclose(level, 1 + model.step_rewards(episode) / 2)


def test_triplets_teach_likeness():
    """The squares' rows are drawn at random and tell nothing; how far they get does."""
    asked, unseen = triplets(squares(), 120), [moving_square(400 + i, reach=r) for i, r in
                                               enumerate(np.linspace(0.1, 1, 12))]  # fmt: skip
    held = triplets(unseen, 60, seed=1)

    def accuracy(model):
        model.preferences = held
        data = model.dataset(unseen)
        return model.eval().loss(data.batch(60, 0, 0))[1]["accuracy"]

    before = accuracy(untrained("rapl", asked))
    after = accuracy(fit(untrained("rapl", asked), squares(), steps=40))
    assert after > max(0.75, before + 0.1)


def test_pairs_and_triplets_in_one_file():
    model = untrained("rapl", (*pairs(squares())[:40], *triplets(squares(), 40)))
    data = model.dataset(squares())
    model.set_references(data)
    batch = data.batch(80, 0, 0)
    assert (batch.judged.anchor >= 0).sum() == 40
    loss, logs = model.train().loss(batch)
    loss.backward()
    assert np.isfinite(logs["loss"])
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_reward_network_reads_pairs_only():
    mixed = (*pairs(squares())[:4], Triplet(0, 1, 2))
    model = untrained("rlhf", mixed)
    assert isinstance(model, RlhfModel)
    assert len(model.preferences) == 4
    with pytest.raises(DatasetError, match="it learns from pairs, and the file holds triplets"):
        untrained("rlhf", triplets(squares(), 3))


def test_moments_cover_the_horizon_and_repeat_the_last_frame():
    rng = np.random.default_rng(0)
    at = moments(10, 6, 30, rng)
    assert (np.diff(at) >= 0).all()
    assert (at[2:] == 9).all()
    assert at[0] < 5
    np.testing.assert_array_equal(evenly(4, 4, 4), np.arange(4))
    np.testing.assert_array_equal(evenly(4, 4, 8), [1, 3, 3, 3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": 0.0}, "reward_model.temperature=0.0"),
        ({"epsilon": -1.0}, "reward_model.epsilon"),
        ({"band": 1.5}, "0 <= band <= 1"),
        ({"references": 0}, "reward_model.references=0"),
        ({"reference_frames": 1}, "reference_frames=1: need >= 2"),
        ({"reference": "medoids"}, "did you mean 'medoid'"),
    ],
)
def test_bad_values_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        tiny("rapl", **fields)
