"""Each metric against numbers worked out by hand, through `evaluate`."""

import dataclasses

import numpy as np
import pytest

from embodied_reward.math.hops import hop_label
from embodied_reward.metrics.evaluate import evaluate
from embodied_reward.metrics.hop_probes import FALSE_MOTION, STRIDES
from embodied_reward.metrics.judge import judge
from embodied_reward.metrics.success import outcome_confusion
from embodied_reward.types import EpisodeScores


class Said:
    """Answers with given curves, by episode index; optional extras are shared by all."""

    def __init__(self, potential, success=None, uncertainty=None, modes=None, per_view=None):
        self.potential = [np.asarray(p, float) for p in potential]
        self.success = self.potential if success is None else [np.asarray(s) for s in success]
        self.rest = (uncertainty, modes, per_view)

    def score_episode(self, episode):
        p = self.potential[episode.index]
        uncertainty, modes, per_view = self.rest
        spread = np.zeros(len(p)) if uncertainty is None else np.asarray(uncertainty, float)
        return EpisodeScores(p, self.success[episode.index], spread, modes or {}, per_view or {})


class Hops(Said):
    """True potential, with hops given by a function of the true progress before and after."""

    def __init__(self, episodes, hop):
        super().__init__([e.progress for e in episodes])
        self.hop = hop

    def hops(self, episode, before, after):
        y = np.asarray(episode.progress, float)
        return np.asarray(self.hop(y[before], y[after]), float)


def values(predictor, episodes, **options):
    found = evaluate(predictor, episodes, resamples=0, **options)["metrics"]
    return {name: m["value"] for name, m in found.items()}


def test_calibration_line_pearson_and_failed_episodes(toy):
    good = toy(np.linspace(0, 1, 21))
    bad = toy(0.5 * np.sin(np.linspace(0, np.pi, 21)), index=1)
    # Twice too timid around 0.4.
    got = values(Said([0.2 + 0.5 * good.progress, 0.2 + 0.5 * bad.progress]), [good, bad])
    assert got["pearson"] == pytest.approx(1.0)
    assert (got["calibration_slope"], got["calibration_intercept"]) == pytest.approx((2.0, -0.4))
    assert got["spearman_failed"] == pytest.approx(1.0, abs=1e-3)  # rounding unties a peak
    assert got["mae_failed"] == pytest.approx(np.abs(0.2 - 0.5 * bad.progress).mean(), abs=1e-6)
    turned = values(Said([good.progress, 1 - bad.progress]), [good, bad])
    assert turned["spearman_failed"] == pytest.approx(-1.0, abs=1e-3)
    assert turned["mae"] > 0


def test_sign_accuracy_finds_the_band_in_which_a_model_is_blind(toy):
    episodes = [toy(np.linspace(0, 1, 60), index=i) for i in range(3)]

    def blind_to_small(before, after):
        hop = hop_label(before, after)
        return np.where(np.abs(hop) < 0.25, -hop, hop)

    got = values(Hops(episodes, blind_to_small), episodes)
    assert (got["hop_sign_small"], got["hop_sign_medium"], got["hop_sign_large"]) == (0, 1, 1)
    up = values(Hops(episodes, lambda b, a: np.full(len(b), 0.3)), episodes)
    for band in ("small", "medium", "large"):
        assert up[f"hop_sign_{band}"] == 0.5


def test_false_motion_is_asked_where_nothing_moves(toy):
    episodes = [toy(np.r_[np.linspace(0, 0.5, 15), np.full(15, 0.5)])]
    shaky = values(Hops(episodes, lambda b, a: hop_label(b, a) + 2 * FALSE_MOTION), episodes)
    calm = values(Hops(episodes, lambda b, a: hop_label(b, a) + FALSE_MOTION / 2), episodes)
    assert (shaky["hop_false_motion"], calm["hop_false_motion"]) == (1.0, 0.0)
    moving = values(Hops(episodes, hop_label), [toy(np.linspace(0, 1, 30))])
    assert np.isnan(moving["hop_false_motion"])


def test_hops_of_a_potential_are_consistent_and_others_are_not(toy):
    episodes = [toy(np.linspace(0, 1, 60))]
    true = values(Hops(episodes, hop_label), episodes)
    assert true["hop_inconsistency"] == pytest.approx(0, abs=1e-9)
    assert true["hop_path_spread"] == pytest.approx(0, abs=1e-9)
    half = values(Hops(episodes, lambda b, a: 0.5 * hop_label(b, a)), episodes)
    assert half["hop_inconsistency"] > 0.02
    # Constant hops: the chain ends at 1 - 0.9^hops, whatever lies between.
    fixed = values(Hops(episodes, lambda b, a: np.full(len(b), 0.1)), episodes)
    sampled = 30
    counts = [-(-(sampled - 1) // s) for s in STRIDES]
    ends = [1 - 0.9**n for n in counts]
    assert fixed["hop_path_spread"] == pytest.approx(max(ends) - min(ends))


def test_shuffled_voc_gives_nothing_to_accumulation(toy):
    """A model that counts its calls rises in whatever order it is asked."""
    episodes = [toy(np.linspace(0, 1, 60), index=i) for i in range(6)]

    class Counter(Said):
        def hops(self, episode, before, after):
            return 0.1 + 1e-4 * np.arange(len(before))

    model = Counter([e.progress for e in episodes])
    got = values(model, episodes)
    assert got["voc_plus"] == pytest.approx(1.0)
    assert abs(got["voc_shuffled"]) < 0.3
    assert values(Hops(episodes, hop_label), episodes)["voc_shuffled"] == pytest.approx(1.0)
    swapped = values(Hops(episodes, lambda b, a: hop_label(a, b)), episodes)
    assert swapped["voc_shuffled"] == pytest.approx(-1.0)
    row = evaluate(Hops(episodes, lambda b, a: 0 * b), episodes, resamples=0)["episodes"][0]
    assert row["voc_undefined"] == ["voc_plus", "voc_minus", "voc_shuffled"]


def test_average_precision_recall_and_calibration_of_success(toy):
    episodes = [toy(np.linspace(0, y, 10), index=i) for i, y in enumerate((1.0, 1.0, 0.5, 0.5))]
    flat = [np.full(10, v) for v in (0.9, 0.4, 0.6, 0.1)]
    got = values(Said([e.progress for e in episodes], flat), episodes)
    assert got["success_auc"] == 0.75
    assert got["success_auprc"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["success_recall"] == 0.5
    # Frames: 1 of 10 succeed in the first two episodes, none in the others.
    errors = [abs(0.9 - 0.1), abs(0.4 - 0.1), 0.6, 0.1]
    assert got["success_ece"] == pytest.approx(np.mean(errors))


def test_automated_gold_and_outcomes_against_truth(toy):
    progress = [np.linspace(0, 1, 10), np.linspace(0, 0.9, 10), np.linspace(0, 0.3, 10)]
    episodes = [toy(p, index=i) for i, p in enumerate(progress)]
    # The success is missed, the near miss pays, the plain failure does not.
    model = Said([progress[0] * 0.5, np.minimum(progress[1] * 1.1, 1), progress[2]])
    got = values(model, episodes)
    assert (got["gold_false"], got["gold_true"]) == (0.5, 0.0)
    assert got["outcome_agreement"] == pytest.approx(1 / 3)
    table = outcome_confusion([judge(model, e) for e in episodes])
    assert table == {
        "SE": {"SE": 0, "PSE": 0, "FE": 1},
        "PSE": {"SE": 1, "PSE": 0, "FE": 0},
        "FE": {"SE": 0, "PSE": 0, "FE": 1},
    }
    blind = [dataclasses.replace(e, progress=None) for e in episodes]
    assert (
        sum(sum(r.values()) for r in outcome_confusion([judge(model, e) for e in blind]).values())
        == 0
    )


def test_ranking_by_given_quality_or_by_success(toy):
    episodes = [toy(np.linspace(0, y, 8), index=i) for i, y in enumerate((0.2, 0.6, 1.0, 1.0))]
    model = Said([e.progress * s for e, s in zip(episodes, (1, 1, 0.5, 1), strict=True)])
    # Finals 0.2, 0.6, 0.5, 1.0: three of four success-failure pairs are right.
    by_success = values(model, episodes)
    assert by_success["ranking_accuracy"] == 0.75
    assert by_success["kendall_by_class"] == pytest.approx(0.5)
    ranked = values(model, episodes, quality={0: 1.0, 1: 2.0, 2: 3.0, 3: 3.0})
    assert ranked["ranking_accuracy"] == pytest.approx(4 / 5)
    # Class pairs (1, 2), (1, 3), (2, 3): 1, 1, 0.
    assert ranked["kendall_by_class"] == pytest.approx(2 / 3)


def test_uncertainty_and_disagreement_against_error(toy):
    episode = toy(np.linspace(0, 1, 11))
    y = np.asarray(episode.progress, float)
    error = np.linspace(0, 0.5, 11)
    said = np.abs(y - error)
    apart = {"front": said + error / 2, "wrist": said - error / 2}
    anchors = {"forward": said - error, "backward": said + error}
    model = Said([said], uncertainty=error, modes=anchors, per_view=apart)
    got = values(model, [episode])
    assert got["aurc_excess"] == pytest.approx(0, abs=1e-6)
    assert got["aurc"] == pytest.approx(got["aurc_oracle"])
    assert got["aurc_random"] == pytest.approx(got["mae"])
    for name in ("uncertainty_error", "views_error", "anchors_error"):
        assert got[name] == pytest.approx(1.0), name
    wrong = values(Said([said], uncertainty=-error), [episode])
    assert wrong["aurc_excess"] > 1.5
    assert wrong["uncertainty_error"] == pytest.approx(-1.0)
    assert np.isnan(wrong["views_error"])


def test_paths_of_successes_failures_and_their_distance_to_the_truth(toy):
    good, bad = toy(np.linspace(0, 1, 11)), toy([0.0, 0.4, 0.2, 0.2], index=1)
    got = values(Said([good.progress, [0.0, 0.4, 0.4, 0.4]]), [good, bad])
    assert got["path_ppl"] == pytest.approx(1.0)
    assert got["path_ppl_failed"] == pytest.approx(0.4)
    true_ppl = 0.2 * 0.2 / 0.6
    assert got["path_ppl_error"] == pytest.approx((0.4 - true_ppl) / 2, abs=1e-6)
    assert got["path_cra_error"] == pytest.approx((0.2 + 0.2) / 4 / 2, abs=1e-6)
    assert got["path_str_failed"] == pytest.approx(2 / 3)
    assert got["path_mc"] == 1.0


def test_every_predictor_is_asked_the_same_pairs_in_one_call(toy):
    episode, calls = toy(np.linspace(0, 1, 50)), []

    class Spy(Said):
        def hops(self, episode, before, after):
            calls.append((before.copy(), after.copy()))
            return np.zeros(len(before))

    for _ in range(2):
        judge(Spy([episode.progress]), episode)
    (first, second) = calls
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert first[0].min() >= 0
    assert first[1].max() < 50


@pytest.mark.parametrize("length", [2, 3, 4])
def test_the_shortest_episodes_have_no_triples_and_no_crash(toy, length):
    episode = toy(np.linspace(0, 1, length))
    got = values(Said([episode.progress]), [episode])
    assert got["mae"] == 0
    assert np.isnan(got["hop_inconsistency"]) == (length < 3)
