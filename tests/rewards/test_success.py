import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.math.statistics import auc
from embodied_reward.rewards import SuccessConfig, SuccessModel, load, load_progress
from embodied_reward.rewards.success_batches import goal_frames
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS, square_episode


def small(**fields):
    encoder = EncoderConfig(name="conv64", image_size=32)
    defaults = {"dim": 32, "hidden": 32, "shift": 1, "jitter": 0.1, "erase": 0.1}
    return SuccessConfig(views=VIEWS, encoder=encoder, **{**defaults, **fields})


def failed(index):
    return square_episode(index, success=False)


@pytest.fixture(scope="module")
def episodes():
    return [*(square_episode(i) for i in range(6)), *(failed(20 + i) for i in range(6))]


@pytest.fixture(scope="module")
def detector():
    """A detector after 120 steps on 48 squares, about ten seconds of one core.

    With 12 squares, what it learned depended on the seed and on how a CPU rounds.
    """
    torch.manual_seed(0)
    model = SuccessModel.create(small())
    squares = [*(square_episode(i) for i in range(24)), *(failed(200 + i) for i in range(24))]
    data = model.dataset(squares)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(120):
        optimizer.zero_grad()
        loss, _ = model.loss(data.batch(3, 0, step))
        loss.backward()
        optimizer.step()
    model.eval().calibrate([failed(40 + i) for i in range(30)])
    return model


def test_unseen_frames_are_told_apart_and_failures_do_not_fire(detector):
    good = [square_episode(60 + i) for i in range(6)]
    bad = [failed(80 + i) for i in range(6)]
    scores = [detector.score_episode(e).success for e in good + bad]
    truth = [e.success_frames for e in good + bad]
    assert auc(np.concatenate(scores), np.concatenate(truth)) > 0.95
    rule = detector.calibration.detector
    fired = [rule.episode(s).any() for s in scores]
    assert sum(fired[:6]) >= 4
    assert sum(fired[6:]) == 0


def test_it_knows_no_progress(detector, tmp_path):
    scores = detector.score_episode(square_episode(60))
    assert np.isnan(scores.potential).all()
    assert not detector.card.progress
    detector.save(tmp_path)
    with pytest.raises(ConfigError, match=r"is a success detector.*--success\.path"):
        load_progress(tmp_path)


def test_streaming_gives_the_episode_scores_and_rows_restart_alone(detector):
    a, b, c = square_episode(61), failed(62), square_episode(63)
    scorer = StreamScorer(detector, 2)

    def frames(*at):
        return {v: np.stack([e.views[v][t] for e, t in at]) for v in VIEWS}

    got = [scorer.start([0, 1], frames((a, 0), (b, 0))).success]
    got += [scorer.step(frames((a, t), (b, t))).success for t in range(1, 10)]
    begun = scorer.start([1], frames((c, 0))).success[0]
    later = [scorer.step(frames((a, 9 + t), (c, t))).success for t in range(1, 10)]
    expected = {e.source: detector.score_episode(e).success for e in (a, b, c)}
    np.testing.assert_allclose([g[0] for g in got], expected[a.source][:10], atol=1e-6)
    np.testing.assert_allclose([g[1] for g in got], expected[b.source][:10], atol=1e-6)
    want = expected[c.source]
    np.testing.assert_allclose([begun, *(g[1] for g in later)], want[:10], atol=1e-6)


def test_a_missing_view_is_masked_and_no_view_is_an_error(detector):
    episode = square_episode(64)
    whole, alone = StreamScorer(detector, 1), StreamScorer(detector, 1)
    for t in range(30):
        frames = {v: episode.views[v][t : t + 1] for v in VIEWS}
        act = (lambda s, f: s.start([0], f)) if t == 0 else (lambda s, f: s.step(f))
        full, one = act(whole, frames), act(alone, {"front": frames["front"]})
        assert np.isfinite(one.success).all()
        # What the other view shows does not matter where it is masked.
        assert one.ok.all()
    assert one.success[0] != full.success[0]
    with pytest.raises(DatasetError, match="needs the views front, side; the frames have top"):
        detector.encode({"top": frames["front"]})


def test_a_detector_that_went_wrong_says_so_in_its_rows(detector):
    broken = SuccessModel(detector.config, detector.network.encoder)
    torch.nn.init.constant_(broken.network.head[-1].bias, torch.nan)
    scores = StreamScorer(broken, 1).start([0], {v: square_episode(1).views[v][:1] for v in VIEWS})
    assert not scores.ok.any()
    assert np.isnan(scores.success).all()


def test_round_trip_keeps_weights_and_threshold(detector, tmp_path):
    detector.save(tmp_path)
    again = load(tmp_path)
    assert again.calibration == detector.calibration
    episode = square_episode(65)
    np.testing.assert_array_equal(
        again.score_episode(episode).success, detector.score_episode(episode).success
    )
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="sha256"):
        load(tmp_path)


def test_batches_are_balanced_labels_of_the_right_frames(episodes):
    data = SuccessModel.create(small()).dataset(episodes)
    one, two, other = data.batch(3, 7, 5), data.batch(3, 7, 5), data.batch(3, 7, 6)
    assert torch.equal(one.frames, two.frames)
    assert torch.equal(one.success, two.success)
    assert not (len(one.frames) == len(other.frames) and torch.equal(one.frames, other.frames))
    starts = one.start.unique()
    assert len(starts) == 6  # three successes, three failures
    assert one.success[starts].sum() == 0
    assert one.success[one.start >= starts[3]].sum() == 0  # failures come last, all negative
    assert one.success.sum() >= 3


def test_other_tasks_are_failures_and_must_be_chosen(episodes):
    other = [dataclasses.replace(e, task="pull the square") for e in episodes[:3]]
    with pytest.raises(DatasetError, match=r"several tasks.*--reward_model\.task"):
        SuccessModel.create(small()).dataset([*episodes, *other])
    model = SuccessModel.create(small(task="push the square to the line"))
    data = model.dataset([*episodes, *other])
    assert (len(data.positive), len(data.negative)) == (6, 6 + 3)
    assert model.card.task == "push the square to the line"


def test_which_frames_satisfy_the_task():
    won = square_episode(1)
    assert goal_frames(won).tolist() == np.flatnonzero(won.success_frames).tolist()
    unmarked = dataclasses.replace(won, success_frames=None)
    assert goal_frames(unmarked).tolist() == [len(won) - 1]
    assert goal_frames(failed(2)).tolist() == []
    assert goal_frames(won, task="something else").tolist() == []


def test_without_failures_truncated_successes_stand_in(detector):
    model = SuccessModel(detector.config, detector.network.encoder)
    model.load_state_dict(detector.state_dict())
    model.eval().calibrate([square_episode(i) for i in range(4)])
    assert (model.calibration.source, model.calibration.failures) == ("truncated successes", 4)
    assert model.calibration.guaranteed_fpr == pytest.approx(0.2)
    solved = dataclasses.replace(square_episode(5), success_frames=np.ones(30, bool))
    model.calibration = None
    model.calibrate([solved])  # nothing comes before success
    assert model.calibration is None


def test_only_failures_teach_nothing():
    with pytest.raises(DatasetError, match="none of the 3 training episodes succeeds"):
        SuccessModel.create(small()).dataset([failed(i) for i in range(3)])


@pytest.mark.parametrize("fields", [{"target_fpr": 0.0}, {"persistence": 0}, {"frames": 2}])
def test_impossible_settings(fields):
    with pytest.raises(ConfigError):
        small(**fields)
