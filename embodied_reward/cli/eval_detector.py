"""A success detector held against the simulator's truth, episode by episode."""

from typing import Any

from embodied_reward.errors import ConfigError
from embodied_reward.math.statistics import wilson
from embodied_reward.rewards import RewardModel, load
from embodied_reward.rewards.detector import Detector, detector_of
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping.watch import SuccessWatch


def load_detector(path: str) -> tuple[RewardModel, Detector]:
    """Load a model that judges success, with its threshold and persistence.

    Raises:
        CheckpointError: nothing there.
        ConfigError: the model judges no success while an episode runs.
    """
    model = load(path)
    detector = detector_of(model.card)
    if detector is None or not model.card.streaming:
        raise ConfigError(
            f"'{path}' ({model.card.type}) gives no success probability while an episode runs; "
            "train a detector with `er train-reward --reward_model.type=success`"
        )
    return model, detector


class DetectorJudge:
    """Follow an evaluation and count the detector's mistakes.

    Args:
        model: gives the success probabilities.
        detector: threshold and persistence.
    """

    def __init__(self, model: RewardModel, detector: Detector) -> None:
        self.model, self.detector = model, detector
        self._watch = SuccessWatch(detector, StreamScorer(model, 1), 1)
        self._running: int | None = None
        self._true = False
        self.truth: list[bool] = []
        self.detected: list[bool] = []
        self.scores: list[list[float]] = []

    @property
    def hold(self) -> int:
        """Frames wanted after a success has ended the episode."""
        return self.detector.persistence - 1

    def watch(self, index: int, info: dict[str, Any], ended: bool) -> None:
        """Take one step of an evaluation; `info` holds `frames` and `is_success`."""
        if index != self._running:
            self._running, self._true = index, False
            score, fired = self._watch.start([0], [info])
            self._watch.held = {}
            self.scores.append([])
        else:
            score, fired = self._watch.step([info])
        self.scores[-1] += [float(score[0]), *self._watch.held.get(0, [])]
        self._true = self._true or bool(info["is_success"])
        if ended:
            self.truth.append(self._true)
            self.detected.append(bool(fired[0]))

    def report(self) -> dict[str, Any]:
        """Return rates with Wilson's 95 % intervals and the outcomes, as JSON types."""
        pairs = list(zip(self.truth, self.detected, strict=True))
        return {
            "type": self.model.card.type,
            "threshold": self.detector.threshold,
            "persistence": self.detector.persistence,
            "false_positive_rate": _rate([found for won, found in pairs if not won]),
            "false_negative_rate": _rate([not found for won, found in pairs if won]),
            "detected": self.detected,
            "weights_sha256": self.model.card.weights_sha256,
            "scores": self.scores,
        }

    def table(self) -> str:
        """Return both rates as lines of text."""
        report = self.report()
        rule = f"success >= {self.detector.threshold:.4g} for {self.detector.persistence} frames"
        lines = [f"detector ({rule}):"]
        for name, what in (("positive", "failed"), ("negative", "successful")):
            rate = report[f"false_{name}_rate"]
            said = "none to judge"
            if rate["n"]:
                said = (
                    f"{rate['count']} of {rate['n']} {what} episodes, {rate['value']:.1%} "
                    f"(95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
                )
            lines.append(f"  false {name}s: {said}")
        return "\n".join(lines)


def _rate(wrong: list[bool]) -> dict[str, float | int | None]:
    count, total = sum(wrong), len(wrong)
    if total == 0:
        return {"value": None, "low": None, "high": None, "count": 0, "n": 0}
    low, high = wilson(count, total)
    return {"value": count / total, "low": low, "high": high, "count": count, "n": total}
