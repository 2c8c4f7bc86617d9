"""What remaining_time, goal_distance and tcc have in common, on squares that cross a picture."""

import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.statistics import auc, spearman
from embodied_reward.rewards import RemainingTimeConfig, TccConfig, load
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from tests.rewards.conftest import VIEWS, square_episode
from tests.rewards.methods import CONFIGS, squares, tiny, trained_on_squares, untrained

METHODS = tuple(CONFIGS)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.mark.slow
def test_progress_of_unseen_successes_and_of_regress(method):
    model = trained_on_squares(method)
    scores = [model.score_episode(square_episode(50 + i, back=i > 1)) for i in range(4)]
    truth = [square_episode(50 + i, back=i > 1).progress for i in range(4)]
    # Nothing in TCC makes the distance grow all the way: far from the goal it saturates.
    least = 0.5 if method == "tcc" else 0.8
    for got, true in zip(scores, truth, strict=True):
        assert spearman(got.potential, true) > least
    # Only the predicted time is on the scale of progress; distances are monotone in it at best.
    if method == "remaining_time":
        got, true = np.concatenate([s.potential for s in scores]), np.concatenate(truth)
        assert np.abs(got - true).mean() < 0.9 * np.abs(np.median(true) - true).mean()


def test_order_is_better_than_that_of_an_untrained_model(method):
    episode = square_episode(52)
    before = untrained(tiny(method)).eval()
    before.set_references(before.dataset(squares()))
    chance = spearman(before.score_episode(episode).potential, episode.progress)
    learned = spearman(
        trained_on_squares(method).score_episode(episode).potential, episode.progress
    )
    assert not chance >= learned  # NaN where an untrained embedding has no order at all


def test_failures_end_lower_and_look_less_successful(method):
    model = trained_on_squares(method)
    good = [model.score_episode(square_episode(60 + i)) for i in range(4)]
    bad = [model.score_episode(square_episode(70 + i, success=False)) for i in range(4)]
    label = [1] * 4 + [0] * 4
    assert auc([s.potential[-1] for s in good + bad], label) == 1.0
    assert auc([s.success[-1] for s in good + bad], label) > 0.9


def test_outputs_stay_in_range_on_noise_and_repeat_exactly(method):
    model, noise = trained_on_squares(method), square_episode(53)
    rng = np.random.default_rng(0)
    for view in VIEWS:
        noise.views[view][:] = rng.integers(0, 256, noise.views[view].shape, np.uint8)
    one, two = model.score_episode(noise), model.score_episode(noise)
    for values in (one.potential, one.success):
        assert ((values >= 0) & (values <= 1)).all()
    assert (one.uncertainty >= 0).all()
    np.testing.assert_array_equal(one.potential, two.potential)
    assert set(one.per_view) == set(VIEWS)


def test_streaming_gives_the_episode_scores_and_rows_restart_alone(method):
    model = trained_on_squares(method)
    a, b = square_episode(54), square_episode(55, length=20)

    def frames(*at):
        return {v: np.stack([e.views[v][t] for e, t in at]) for v in VIEWS}

    scorer = StreamScorer(model, 2)
    first = scorer.start([0, 1], frames((a, 0), (b, 0)))
    later = [scorer.step(frames((a, t), (b, t))) for t in range(1, 12)]
    again = scorer.start([1], frames((b, 0)))
    want_a, want_b = model.score_episode(a), model.score_episode(b)
    got = np.stack([first.potential, *(s.potential for s in later)])
    np.testing.assert_allclose(got[:, 0], want_a.potential[:12], atol=1e-5)
    np.testing.assert_allclose(got[:, 1], want_b.potential[:12], atol=1e-5)
    np.testing.assert_allclose(again.potential, want_b.potential[:1], atol=1e-5)
    np.testing.assert_allclose(later[-1].success[0], want_a.success[11], atol=1e-5)
    np.testing.assert_allclose(later[-1].uncertainty[0], want_a.uncertainty[11], atol=1e-5)


def test_a_missing_view_reads_like_that_view_masked(method):
    model, episode = trained_on_squares(method), square_episode(56)
    features = model.encode({"side": episode.views["side"]})
    assert (features[..., -1] == torch.tensor([0.0, 1.0])).all()
    scores, _ = model.score(features, model.start(features))
    assert scores.ok.all()
    alone = model.score_episode(episode).per_view["side"]
    np.testing.assert_allclose(scores.potential, alone, atol=1e-5)
    assert spearman(alone, episode.progress) > 0.6


def test_rows_may_lack_different_views_and_a_row_without_any_is_nan(method):
    model, episode = trained_on_squares(method), square_episode(56)
    features = model.encode({v: episode.views[v][[10, 10, 10]] for v in VIEWS})
    features[1, 0, -1] = 0
    features[2, :, -1] = 0
    scores, _ = model.score(features, {})
    whole = model.score_episode(episode)
    np.testing.assert_allclose(scores.potential[0], whole.potential[10], atol=1e-5)
    np.testing.assert_allclose(scores.potential[1], whole.per_view["side"][10], atol=1e-5)
    assert scores.ok.tolist() == [True, True, False]
    for values in (scores.potential, scores.success, scores.uncertainty):
        assert np.isnan(values[2])


def test_an_episode_is_read_from_the_cameras_that_work(method):
    model, whole = trained_on_squares(method), square_episode(56)
    alone = dataclasses.replace(whole, views={"side": whole.views["side"]})
    full = model.score_episode(whole)
    lacking = model.score_episode(alone)
    np.testing.assert_allclose(lacking.potential, full.per_view["side"], atol=1e-5)
    assert np.isnan(lacking.per_view["front"]).all()
    dying = square_episode(56)
    dying.views["front"][15:] = 0
    dying.views["side"][20:] = 128
    scores = model.score_episode(dying)
    np.testing.assert_allclose(scores.potential[:15], full.potential[:15], atol=1e-5)
    np.testing.assert_allclose(scores.potential[15:20], full.per_view["side"][15:20], atol=1e-5)
    for values in (scores.potential, scores.success, scores.uncertainty):
        assert np.isnan(values[20:]).all()


def test_missing_views_are_named(method):
    model, episode = trained_on_squares(method), square_episode(57)
    with pytest.raises(DatasetError, match="needs the views front, side; the frames have top"):
        model.encode({"top": episode.views["front"][:1]})
    del episode.views["side"]
    del episode.views["front"]
    with pytest.raises(DatasetError, match=r"squares#57 has none of the views front, side"):
        model.score_episode(episode)


def test_only_failures_cannot_teach_progress(method):
    episodes = [square_episode(i, success=False) for i in range(3)]
    with pytest.raises(DatasetError, match="none of the 3 training episodes is successful"):
        untrained(tiny(method)).dataset(episodes)


def test_round_trip_through_a_folder(method, tmp_path):
    model, episode = trained_on_squares(method), square_episode(58)
    model.save(tmp_path)
    again = load(tmp_path)
    want, got = model.score_episode(episode), again.score_episode(episode)
    np.testing.assert_array_equal(got.potential, want.potential)
    np.testing.assert_array_equal(got.success, want.success)
    np.testing.assert_array_equal(got.uncertainty, want.uncertainty)
    assert (again.card.type, again.card.views) == (method, VIEWS)
    assert again.card.weights_sha256
    assert again.config == model.config


def test_batches_are_a_function_of_seed_and_step(method):
    data = untrained(tiny(method)).dataset(squares())
    one, two, other = data.batch(3, 7, 5), data.batch(3, 7, 5), data.batch(3, 7, 6)
    for name, value in vars(one).items():
        same = getattr(two, name)
        assert (
            value == same if name == "seed" else torch.equal(value.nan_to_num(), same.nan_to_num())
        )
    assert other.seed != one.seed
    assert not torch.equal(one.frames[:8], other.frames[:8])


@pytest.mark.slow
def test_resumed_training_equals_uninterrupted(method, tmp_path):
    config = OptimizationConfig(
        steps=4, batch_size=2, warmup=1, val_freq=2, save_freq=2, log_freq=1
    )

    def trainer(folder):
        torch.set_num_threads(1)
        episodes = squares()
        model = untrained(tiny(method))
        validation = episodes[:1]
        return RewardTrainer(model, episodes[1:], validation, config=config, folder=folder, seed=4)

    whole, broken = trainer(tmp_path / "whole"), trainer(tmp_path / "broken")
    whole.run(progress=False)
    for _ in range(2):
        broken.update()
    broken.save()
    again = trainer(tmp_path / "broken")
    assert again.resume()
    again.run(progress=False)
    for (name, a), b in zip(
        whole.model.state_dict().items(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_without_a_success_head_success_is_unknown_not_progress():
    model = untrained(tiny("tcc", success_weight=0.0)).eval()
    model.set_references(model.dataset(squares()))
    scores = model.score_episode(square_episode(3))
    assert np.isnan(scores.success).all()
    assert not model.card.extra["success"]
    assert "success_loss" not in model.loss(model.dataset(squares()).batch(2, 0, 0))[1]


def test_an_episode_solved_from_the_start_is_no_negative():
    solved = square_episode(40)
    solved.success_frames[:] = True
    data = untrained(tiny("tcc")).dataset([*squares(), solved])
    assert (len(data.demos), len(data.failures)) == (6, 2)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (TccConfig, {"frames": 1}, "reward_model.frames=1"),
        (TccConfig, {"temperature": 0.0}, "reward_model.temperature"),
        (TccConfig, {"references": 0}, "references >= 1"),
        (TccConfig, {"success_weight": -1.0}, "success_weight"),
        (RemainingTimeConfig, {"bins": 2}, "bins >= 3"),
    ],
)
def test_bad_values_are_refused(kind, fields, message):
    with pytest.raises(ConfigError, match=message):
        kind(**fields)
