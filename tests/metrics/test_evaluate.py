import dataclasses
import json

import numpy as np
import pytest

from embodied_reward.errors import DatasetError
from embodied_reward.metrics.baselines import Constant, Random
from embodied_reward.metrics.evaluate import evaluate, readings
from embodied_reward.metrics.judge import judge, outcome
from embodied_reward.types import EpisodeScores


def values(result):
    return {name: m["value"] for name, m in result["metrics"].items()}


class Fixed:
    """Answers with given curves."""

    def __init__(self, potential, success=None):
        self.potential = [np.asarray(p, float) for p in potential]
        self.success = self.potential if success is None else [np.asarray(s) for s in success]

    def score_episode(self, episode):
        p, s = self.potential[episode.index], self.success[episode.index]
        return EpisodeScores(p, s, np.zeros(len(p)))


def test_the_truth_gets_full_marks(mixed, oracle):
    got = values(evaluate(oracle, mixed, resamples=0))
    perfect = ("voc_plus", "voc_minus", "voc_min", "spearman", "spearman_episode")
    perfect += ("success_auc", "success_auc_max", "frame_success_auc", "outcome_accuracy")
    assert {k: got[k] for k in perfect} == pytest.approx(dict.fromkeys(perfect, 1.0), abs=1e-9)
    assert got["mae"] == 0.0
    assert got["hop_sign_accuracy"] == 1.0
    assert got["success_gap"] == pytest.approx(1.0, abs=1e-6)
    assert got["voc_min_failed"] < 0.5
    assert np.isnan(got["kendall_tau_a"])


def test_mae_and_spearman_pooled_and_per_episode(toy):
    short, long = toy(np.linspace(0, 1, 4)), toy(np.linspace(0, 1, 12), index=1)
    model = Fixed([short.progress + 0.4, long.progress + 0.1])
    got = values(evaluate(model, [short, long], resamples=0))
    assert got["mae"] == pytest.approx((4 * 0.4 + 12 * 0.1) / 16, abs=1e-6)
    assert got["mae_episode"] == pytest.approx(0.25, abs=1e-6)
    assert got["spearman_episode"] == pytest.approx(1.0)
    assert got["spearman"] < 1.0


def test_success_auc_uses_the_final_frame(toy):
    good, bad = toy(np.linspace(0, 1, 5)), toy(np.linspace(0, 0.5, 5), index=1)
    success = [[0, 0, 0, 0, 0.6], [0, 0.9, 0, 0, 0.1]]
    got = values(evaluate(Fixed([good.progress] * 2, success), [good, bad], resamples=0))
    assert (got["success_auc"], got["success_auc_max"]) == (1.0, 0.0)
    assert got["success_auc_potential"] == 0.5
    assert got["success_gap"] == 0.0


def test_one_class_or_no_truth_is_undefined_not_filled(toy):
    episodes = [toy(np.linspace(0, 1, 10), index=i) for i in range(2)]
    got = values(evaluate(Constant(), episodes, resamples=0))
    for name in ("success_auc", "success_gap", "spearman", "voc_min_failed"):
        assert np.isnan(got[name]), name
    assert got["voc_undefined"] == 2
    blind = [
        dataclasses.replace(e, progress=None, success=None, success_frames=None) for e in episodes
    ]
    got = values(evaluate(Constant(), blind, resamples=0))
    for name in ("mae", "mae_episode", "spearman", "hop_sign_accuracy", "frame_success_auc"):
        assert np.isnan(got[name]), name
    assert got["voc_min"] == 0.0


def test_an_episode_that_goes_nowhere_has_no_rank_correlation(toy):
    moving = toy(np.linspace(0, 0.5, 20))
    drifting = toy(np.linspace(0, 0.02, 20), index=1)
    model = Fixed([moving.progress, 1 - drifting.progress])
    result = evaluate(model, [moving, drifting], resamples=0)
    assert np.isnan(result["episodes"][1]["spearman"])
    assert values(result)["spearman_episode"] == pytest.approx(1.0)


def test_voc_is_taken_over_successes_only(mixed, oracle):
    result = evaluate(oracle, mixed, resamples=0)
    rows = result["episodes"]
    assert values(result)["voc_min"] == np.mean([r["voc_min"] for r in rows if r["success"]])
    assert values(result)["voc_min_failed"] == np.mean(
        [r["voc_min"] for r in rows if not r["success"]]
    )


def test_constant_hops_are_right_half_of_the_time(mixed):
    class Up(Constant):
        def hops(self, episode, before, after):
            return np.full(len(before), 0.1)

    assert values(evaluate(Up(), mixed, resamples=0))["hop_sign_accuracy"] == 0.5


def test_kendall_tau_needs_quality(toy):
    episodes = [toy(np.linspace(0, y, 8), index=i) for i, y in enumerate((0.2, 0.6, 1.0))]
    model = Fixed([e.progress for e in episodes])
    quality = {0: 1.0, 1: 2.0, 2: 3.0}
    assert values(evaluate(model, episodes, quality=quality, resamples=0))["kendall_tau_a"] == 1.0
    model.potential[2] = model.potential[0] * 0.5
    tau = values(evaluate(model, episodes, quality=quality, resamples=0))["kendall_tau_a"]
    assert tau == pytest.approx(-1 / 3)


def test_intervals_hold_the_value_and_repeat_with_the_seed(mixed):
    first, again, other = (
        evaluate(Random(1), mixed, seed=s, resamples=60)["metrics"] for s in (0, 0, 5)
    )
    assert json.dumps(first) == json.dumps(again)
    assert json.dumps(first) != json.dumps(other)
    for name in ("mae", "spearman", "voc_plus", "frame_success_auc"):
        m = first[name]
        assert m["low"] <= m["value"] <= m["high"], name
        assert m["low"] < m["high"]


def test_frames_that_failed_to_score_are_counted_and_left_out(toy):
    episode = toy(np.linspace(0, 1, 20))
    potential = np.asarray(episode.progress, float).copy()
    potential[5] = np.nan
    result = evaluate(Fixed([potential]), [episode], resamples=0)
    assert result["episodes"][0]["failed_frames"] == 1
    assert values(result)["mae"] == 0.0
    assert values(result)["spearman"] == pytest.approx(1.0)


def test_judged_episodes_do_not_hold_frames(mixed, oracle):
    assert judge(oracle, mixed[0]).episode.views == {}


@pytest.mark.parametrize(
    ("potential", "label"),
    [
        (np.linspace(0, 1, 30), "SE"),
        (np.r_[np.zeros(29), 1.0], "FE"),
        (np.full(30, 0.5), "PSE"),
        (np.zeros(30), "FE"),
        (np.empty(0), "FE"),
    ],
)
def test_outcome_thresholds(potential, label):
    assert outcome(potential) == label


def test_every_mode_and_view_is_read_on_its_own(mixed):
    class Modes:
        def score_episode(self, episode):
            y = np.asarray(episode.progress, float)
            return EpisodeScores(y * 0.5, y, y * 0, {"good": y, "bad": 1 - y}, {"front": y * 0.9})

    found = readings([judge(Modes(), e) for e in mixed])
    assert set(found) == {"good", "bad", "view front"}
    assert found["good"]["mae"] == 0.0
    assert found["good"]["spearman"] == pytest.approx(1.0)
    assert found["bad"]["spearman"] == pytest.approx(-1.0)
    assert found["view front"]["success_gap"] == pytest.approx(0.9)


def test_errors_name_the_episode(toy):
    with pytest.raises(DatasetError, match="no episodes"):
        evaluate(Constant(), [])
    with pytest.raises(DatasetError, match="toy#3.*1 frame"):
        evaluate(Constant(), [toy([0.5], index=3)])
    with pytest.raises(DatasetError, match="toy#0.*10 frames.*4 scores"):
        evaluate(Fixed([np.zeros(4)]), [toy(np.linspace(0, 1, 10))])
