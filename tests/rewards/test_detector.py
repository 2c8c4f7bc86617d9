import numpy as np
import pytest

from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.rewards.base import Card
from embodied_reward.rewards.detector import Detector, detector_of, fit_threshold


def test_fires_only_after_so_many_frames_in_a_row():
    success = np.array([0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9])
    fires = Detector(0.5, 3).episode(success)
    assert fires.tolist() == [False] * 5 + [True, True]
    assert Detector(0.5, 1).episode(success).tolist() == (success > 0.5).tolist()


def test_streaming_equals_offline_and_rows_restart_alone():
    rng = np.random.default_rng(0)
    detector, scores = Detector(0.4, 3), rng.random((40, 4))
    begins = {2: {0, 17}, 3: {0, 9, 30}, 0: {0}, 1: {0}}
    carry = detector.start(4)
    streamed = np.zeros((40, 4), bool)
    for t in range(40):
        again = [row for row in range(4) if t in begins[row]]
        carry[again] = detector.start(len(again))
        streamed[t], carry = detector.step(scores[t], carry)
    for row, starts in begins.items():
        cuts = [*sorted(starts), 40]
        parts = [detector.episode(scores[a:b, row]) for a, b in zip(cuts, cuts[1:], strict=False)]
        np.testing.assert_array_equal(streamed[:, row], np.concatenate(parts))
    assert streamed.any()
    assert not streamed.all()


def test_a_frame_without_a_score_starts_the_count_again():
    detector = Detector(0.5, 2)
    carry = detector.start(1)
    fired = []
    for score in (0.9, np.nan, 0.9, 0.9):
        one, carry = detector.step(np.array([score]), carry)
        fired.append(bool(one[0]))
    assert fired == [False, False, False, True]


def failures(count, seed=0):
    # Between 0.5 and 1, so that the fitted threshold is above the floor.
    return list(0.5 + 0.5 * np.random.default_rng(seed).random((count, 20)))


def test_enough_failures_promise_the_rate():
    fitted = fit_threshold(failures(199), target_fpr=0.05, persistence=2)
    assert (fitted.guaranteed_fpr, fitted.short, fitted.failures) == (0.05, False, 199)
    fired = sum(fitted.detector.episode(s).any() for s in failures(199))
    assert fired == 9  # the tenth highest of 199 may be reached by a new one, not exceeded
    assert "asked for" not in fitted.describe()


def test_ten_failures_promise_one_in_eleven_and_say_what_is_missing():
    scores = failures(10)
    fitted = fit_threshold(scores, target_fpr=0.01, persistence=3)
    assert fitted.guaranteed_fpr == pytest.approx(1 / 11)
    assert not any(fitted.detector.episode(s).any() for s in scores)
    assert "9.1% of failed episodes" in fitted.describe()
    assert "takes 99 failed episodes" in fitted.describe()


def test_the_rate_per_frame_needs_fewer_episodes():
    scores = failures(10)
    fitted = fit_threshold(scores, target_fpr=0.05, persistence=1, unit="frame")
    assert not fitted.short
    assert np.mean(np.concatenate(scores) >= fitted.threshold) <= 0.05
    assert "of failed frames fire" in fitted.describe()


def test_the_threshold_never_falls_below_one_half():
    low = [np.full(20, 0.01)] * 200
    assert fit_threshold(low, target_fpr=0.01, persistence=3).threshold == 0.5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target_fpr": 1.0}, ConfigError, "target_fpr"),
        ({"persistence": 0}, ConfigError, "persistence"),
        ({"unit": "step"}, ConfigError, "accepted: episode, frame"),
        ({"scores": []}, DatasetError, "er collect --quality=random"),
    ],
)
def test_what_cannot_be_fitted(change, error, message):
    given = {"scores": failures(3), "target_fpr": 0.1, "persistence": 1, **change}
    with pytest.raises(error, match=message):
        fit_threshold(given.pop("scores"), **given)


def test_detector_of_a_card():
    assert detector_of(Card("x", ("eye",), 64)) == Detector(0.5, 3)
    fitted = {"calibration": {"threshold": 0.8, "persistence": 2}}
    assert detector_of(Card("x", ("eye",), 64, extra=fitted)) == Detector(0.8, 2)
    assert detector_of(Card("x", ("eye",), 64, extra={"success": False})) is None
