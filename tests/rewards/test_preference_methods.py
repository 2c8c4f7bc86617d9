"""What rapl and rlhf have in common, on squares that get differently far."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from embodied_reward.data.preferences import Pair
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards import EnsembleConfig, EnsembleModel, load
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from tests.rewards.conftest import VIEWS
from tests.rewards.methods import tiny as tiny_frame
from tests.rewards.methods import untrained as untrained_frame
from tests.rewards.preferred import (
    CONFIGS,
    final,
    fit,
    moving_square,
    pairs,
    squares,
    tiny,
    trained,
    untrained,
)


@pytest.fixture(params=tuple(CONFIGS))
def method(request):
    return request.param


@pytest.fixture(scope="module")
def unseen():
    reach = np.linspace(0.1, 1.0, 12)
    return [moving_square(100 + i, reach=r) for i, r in enumerate(reach)]


def rank(model, episodes):
    returns = np.array([model.episode_return(e) for e in episodes])
    return spearman(returns, np.array([final(e) for e in episodes]))


def test_unseen_episodes_are_ranked_by_what_was_preferred(method, unseen):
    assert rank(trained(method), unseen) > 0.8


def test_the_potential_orders_frames_and_stays_in_range(method, unseen):
    scores = [trained(method).score_episode(e) for e in unseen]
    potential = np.concatenate([s.potential for s in scores])
    assert ((potential >= 0) & (potential <= 1)).all()
    assert spearman(potential, np.concatenate([e.progress for e in unseen])) > 0.7
    assert np.isnan(scores[0].success).all()  # preferences are no success labels
    assert set(scores[0].per_view) == set(VIEWS)


def test_streaming_gives_the_episode_scores(method, unseen):
    model, (a, b) = trained(method), unseen[5:7]

    def frames(t):
        return {v: np.stack([e.views[v][t] for e in (a, b)]) for v in VIEWS}

    scorer = StreamScorer(model, 2)
    got = [scorer.start([0, 1], frames(0)), *(scorer.step(frames(t)) for t in range(1, 8))]
    for k, episode in enumerate((a, b)):
        want = model.score_episode(episode).potential[:8]
        np.testing.assert_allclose([s.potential[k] for s in got], want, atol=1e-5)


def test_frames_without_a_camera_are_unknown_and_a_missing_view_is_masked(method):
    model, whole = trained(method), moving_square(200, reach=0.7)
    alone = dataclasses.replace(whole, views={"side": whole.views["side"]})
    np.testing.assert_allclose(
        model.score_episode(alone).potential,
        model.score_episode(whole).per_view["side"],
        atol=1e-5,
    )
    dark = moving_square(200, reach=0.7)
    for view in VIEWS:
        dark.views[view][10:] = 0
    rewards = model.step_rewards(dark)
    assert np.isfinite(rewards[:10]).all()
    assert np.isnan(rewards[10:]).all()
    assert np.isfinite(model.episode_return(dark))
    for view in VIEWS:
        dark.views[view][:] = 0
    assert np.isnan(model.episode_return(dark))


def test_round_trip_through_a_folder(method, tmp_path):
    model, episode = trained(method), moving_square(201, reach=0.6)
    model.save(tmp_path)
    again = load(tmp_path)
    for name in ("potential", "uncertainty"):
        np.testing.assert_array_equal(
            getattr(again.score_episode(episode), name), getattr(model.score_episode(episode), name)
        )
    assert again.episode_return(episode) == model.episode_return(episode)
    assert (again.card.type, again.card.extra) == (method, model.card.extra)
    assert again.config == model.config


def test_batches_are_a_function_of_seed_and_step_and_never_of_ties_alone(method):
    model = untrained(method, pairs(squares()))
    data = model.dataset(squares())
    model.set_references(data)
    one, two, other = (data.batch(4, 7, step) for step in (5, 5, 6))
    assert torch.equal(one.frames, two.frames)
    assert one.seed == two.seed != other.seed
    assert len(one.judged) == 4
    for step in range(20):
        batch = data.batch(1, 0, step)
        assert batch.judged.decided.all()
        assert len(batch.frames) == batch.count * model.config.frames


def test_no_training_preference_names_a_held_out_episode(method):
    episodes = squares()
    model = untrained(method, pairs(episodes))
    training, validation = episodes[4:], episodes[:4]
    data = model.dataset(training)
    model.set_references(data)
    held = model.validation_data(training, validation)
    assert len(data.judged) == 12 * 11 / 2
    assert len(held.judged) == 12 * 4 + 4 * 3 / 2
    known = {e.index for e in training}
    assert {data.indices[i] for i in data.judged.better} <= known
    for better, worse in zip(held.judged.better, held.judged.worse, strict=True):
        assert not {held.indices[better], held.indices[worse]} <= known
    assert {held.indices[i] for i in held.references} <= known


def trainer(model, folder, steps=4):
    config = OptimizationConfig(
        steps=steps, batch_size=8, warmup=1, val_freq=2, save_freq=2, log_freq=1
    )
    episodes = squares()
    return RewardTrainer(model, episodes[4:], episodes[:4], config=config, folder=folder, seed=4)


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted(method, tmp_path):
    def fresh(name):
        return trainer(untrained(method, pairs(squares())), tmp_path / name)

    whole, broken = fresh("whole"), fresh("broken")
    whole.run(progress=False)
    for _ in range(2):
        broken.update()
    broken.save()
    again = fresh("broken")
    assert again.resume()
    again.run(progress=False)
    for (name, a), b in zip(
        whole.model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_the_best_checkpoint_orders_most_held_out_preferences(method, tmp_path):
    run = trainer(untrained(method, pairs(squares())), tmp_path, steps=8)
    best = run.run(progress=False)
    rows = [json.loads(r) for r in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = {r["step"]: r for r in rows if "val/accuracy" in r}
    assert sorted(found) == [2, 4, 6, 8]
    most = max(r["val/accuracy"] for r in found.values())
    assert found[int(best.name)]["val/accuracy"] == most


def test_ties_alone_teach_nothing(method):
    ties = (Pair((0, 1), None), Pair((2, 3), None))
    with pytest.raises(DatasetError, match=r"all 2 preferences about the 16 .* are ties"):
        untrained(method, ties).dataset(squares())


def test_preferences_about_held_out_episodes_alone_teach_nothing(method):
    with pytest.raises(DatasetError, match=r"no preference is about the 14 training .*val_frac"):
        untrained(method, (Pair((0, 1), 0),)).dataset(squares()[2:])


def test_a_method_of_demonstrations_refuses_preferences():
    with pytest.raises(ConfigError, match="type=tcc does not learn from preferences"):
        untrained_frame(tiny_frame("tcc")).learn_from(pairs(squares()))


def test_an_ensemble_learns_from_preferences(tmp_path):
    torch.manual_seed(0)
    config = EnsembleConfig(views=VIEWS, member=tiny("rlhf"), count=2, bootstrap=False)
    model = EnsembleModel.create(config)
    model.learn_from(pairs(squares()))
    run = trainer(model, tmp_path, steps=2)
    again = load(run.run(progress=False))
    episode = moving_square(202, reach=0.5)
    np.testing.assert_array_equal(
        again.score_episode(episode).potential, model.eval().score_episode(episode).potential
    )
    rows = [json.loads(r) for r in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "val/accuracy" in r] == [2]


def test_a_few_steps_raise_the_likelihood(method):
    model = untrained(method, pairs(squares()), seed=3)
    data = model.dataset(squares())
    model.set_references(data)
    batch = data.batch(120, 1, 0)
    before = model.eval().loss(batch)[1]
    after = fit(model, squares(), steps=10).loss(batch)[1]
    assert after["loss"] < before["loss"]
    assert 0 <= after["accuracy"] <= 1
