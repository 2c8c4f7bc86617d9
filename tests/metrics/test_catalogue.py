"""Every metric, every baseline: values where defined, reasons where not, no prize for constants."""

import dataclasses
import math

import numpy as np
import pytest

from embodied_reward.metrics.baselines import Constant, ConstantHop, Random, trivial
from embodied_reward.metrics.catalogue import METRICS, NEEDS, groups
from embodied_reward.metrics.comparison import HEADLINE, LOWER_IS_BETTER
from embodied_reward.metrics.evaluate import aggregate, evaluate
from embodied_reward.metrics.judge import judge
from embodied_reward.types import EpisodeScores

CONSTANTS = {
    "up": ConstantHop(0.05),
    "down": ConstantHop(-0.05),
    **{f"{value:g}": Constant(value) for value in (0.0, 0.3, 0.5, 1.0)},
}
NOISE_COSTS = {"path_cra_error"}
"""Noise makes any curve fall below its own peak, a constant cannot; docs/metrics.md says so."""


class Informed:
    """Truth under noise, with an uncertainty that knows the noise: better than any constant."""

    def score_episode(self, episode):
        rng = np.random.default_rng([7, episode.index])
        y = np.asarray(episode.progress, float)
        spread = rng.uniform(0.01, 0.12, len(y))
        noisy = np.clip(y + spread * rng.normal(size=len(y)), 0, 1)
        done = np.clip((y > 0.97) * 0.9 + 0.05 * rng.random(len(y)), 0, 1)
        views = {"front": np.clip(noisy + spread, 0, 1), "wrist": np.clip(noisy - spread, 0, 1)}
        modes = {"forward": views["front"], "backward": views["wrist"]}
        return EpisodeScores(noisy, done, spread, modes, views)


def values(predictor, episodes):
    return aggregate([judge(predictor, e) for e in episodes])


def better(a, b, name):
    """Strictly better, by more than rounding; an undefined value never is."""
    if not (math.isfinite(a) and math.isfinite(b)):
        return False
    return (b - a if METRICS[name].better == "lower" else a - b) > 1e-9


@pytest.fixture(scope="module")
def episodes(toy):
    good = [toy(np.linspace(0, 1, n), index=i) for i, n in enumerate((40, 46, 51, 62, 45))]
    # Failures rise and fall back; two stand still for a while.
    bad = [
        toy(0.7 * np.sin(np.linspace(0, np.pi, n)), index=5 + i)
        for i, n in enumerate((40, 44, 50, 61))
    ]
    bad.append(toy(np.r_[np.linspace(0, 0.5, 20), np.full(20, 0.5)], index=9))
    return good + bad


def test_the_catalogue_is_complete(episodes):
    assert set(values(Random(), episodes)) == set(METRICS)
    assert set(HEADLINE) <= set(METRICS)
    assert {n for ns in groups().values() for n in ns} == set(METRICS)
    assert set(NEEDS) == {need for m in METRICS.values() for need in m.needs}
    assert "mae" in LOWER_IS_BETTER
    assert "spearman" not in LOWER_IS_BETTER


@pytest.mark.parametrize("constant", CONSTANTS)
def test_no_constant_wins_a_headline_metric(constant, episodes):
    informed, said = values(Informed(), episodes), values(CONSTANTS[constant], episodes)
    for name in HEADLINE:
        assert math.isfinite(informed[name]), name
        assert better(informed[name], said[name], name) or math.isnan(said[name]), name


def test_the_catalogue_marks_exactly_the_metrics_that_some_constant_wins(episodes, oracle):
    """A constant that ties with the truth, or beats it, has fooled the metric."""
    base_rate = np.mean(np.concatenate([e.success_frames for e in episodes]))
    constants = [values(p, episodes) for p in (*CONSTANTS.values(), Constant(float(base_rate)))]
    truth, informed = values(oracle, episodes), values(Informed(), episodes)
    for name, metric in METRICS.items():
        if metric.better == "neither":
            assert not metric.fooled, name
            continue
        # The truth has no uncertainty to judge.
        best = truth[name] if math.isfinite(truth[name]) else informed[name]
        won = [
            c[name] for c in constants if math.isfinite(c[name]) and not better(best, c[name], name)
        ]
        if name != "kendall_tau_a":
            assert math.isfinite(best), name
        assert bool(won) == metric.fooled, (name, best, won)


def test_no_constant_wins_an_unmarked_metric_against_an_informed_model(episodes):
    informed = values(Informed(), episodes)
    for title, predictor in CONSTANTS.items():
        said = values(predictor, episodes)
        wins = [n for n, m in METRICS.items() if not m.fooled and m.better != "neither"]
        lost = [n for n in wins if better(said[n], informed[n], n)]
        assert set(lost) <= NOISE_COSTS, (title, lost)


def test_undefined_exactly_where_a_reason_is_given(episodes):
    baselines = trivial(episodes, episodes[:5], views=["front", "wrist"], seed=0)
    for title, predictor in {**baselines, "informed": Informed()}.items():
        for name, entry in evaluate(predictor, episodes, resamples=0)["metrics"].items():
            assert math.isnan(entry["value"]) == ("reason" in entry), (title, name)
            assert entry.get("reason", "some words") != ""
            assert all(math.isnan(entry[k]) for k in ("low", "high"))


def reasons(predictor, episodes):
    metrics = evaluate(predictor, episodes, resamples=0)["metrics"]
    return {name: m["reason"] for name, m in metrics.items() if "reason" in m}


def test_reasons_say_what_is_missing(episodes):
    blind = [
        dataclasses.replace(e, progress=None, success=None, success_frames=None) for e in episodes
    ]
    found = reasons(Random(), blind)
    assert found["mae"] == found["aurc_excess"] == "the dataset has no true progress"
    assert found["success_auc"] == "both successful and failed episodes are needed"
    assert found["gold_false"] == "no episode is marked as a failure"
    assert found["success_ece"] == "the dataset does not mark the frames that are a success"
    assert found["ranking_accuracy"] == "two different qualities are needed"
    assert "voc_min" not in found
    lost = reasons(Random(), episodes[5:])
    assert lost["voc_min"] == "every episode is a failure"
    assert lost["frame_success_auc"] == "frames with and frames without success are needed"
    still = reasons(Constant(), episodes)
    assert still["spearman"] == "one side is constant, so no correlation is defined"
    assert still["calibration_slope"] == "the potential is constant"
    assert still["views_error"] == "the predictor has no two views to compare"


def test_a_model_that_judges_no_success_is_measured_on_the_rest(episodes):
    class NoHead(Informed):
        def score_episode(self, episode):
            found = super().score_episode(episode)
            return dataclasses.replace(found, success=np.full(len(episode), np.nan))

    found, whole = reasons(NoHead(), episodes), values(Informed(), episodes)
    why = "the predictor gives no probability of success"
    judged = {"success_auc", "success_auprc", "success_recall", "success_auc_max", "success_ece"}
    judged |= {f"frame_success_{n}" for n in ("auc", "auprc", "recall")}
    assert {name for name, reason in found.items() if reason == why} == judged
    assert values(NoHead(), episodes)["mae"] == whole["mae"]


def test_an_episode_that_nobody_could_score_leaves_everything_undefined(toy):
    class Broken:
        def score_episode(self, episode):
            nothing = np.full(len(episode), np.nan)
            return EpisodeScores(nothing, nothing, nothing)

    episodes = [toy(np.linspace(0, 1, 12)), toy(np.linspace(0, 0.5, 12), index=1)]
    found = evaluate(Broken(), episodes, resamples=3)["metrics"]
    # VOC counts an undefined value as 0, as its source does, and says so.
    assert found["voc_undefined"]["value"] == 1
    defined = {n for n, m in found.items() if math.isfinite(m["value"])}
    assert defined == {
        "voc_plus", "voc_minus", "voc_min", "voc_shuffled", "voc_min_failed", "voc_undefined",
        "hop_sign_accuracy",
    }  # fmt: skip
    # A hop that never came has no direction, so none of them is right.
    assert found["hop_sign_accuracy"]["value"] == 0
