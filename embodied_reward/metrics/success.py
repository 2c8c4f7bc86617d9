"""Does the model know a success when it sees one?

| metric                   | meaning (higher is better unless said)                             |
|--------------------------|--------------------------------------------------------------------|
| success_auc              | final success probability ranks successes above failures           |
| success_auprc            | average precision of the same; chance is the share of successes    |
| success_recall           | successes found at a false-positive rate of at most 1 %            |
| success_auc_max          | AUC of the highest success probability of the episode              |
| success_auc_potential    | AUC of the final potential                                         |
| frame_success_auc        | success probability per frame against success of that frame        |
| frame_success_auprc      | average precision of the same                                      |
| frame_success_recall     | successful frames found at a false-positive rate of at most 1 %    |
| success_ece              | expected calibration error of the frame's probability (lower)      |
| success_gap              | mean final potential of successes minus that of failures           |
| outcome_accuracy         | the potential curve alone says success or not (Eq. 58)             |
| outcome_agreement        | the same for success, partial success and failure                  |
| gold_false               | failed episodes that `Phi >= 0.95` would have paid (lower)         |
| gold_true                | successful episodes that it would have paid                        |
"""

from collections.abc import Sequence

import numpy as np

from embodied_reward.math.statistics import auc, average_precision, finite_mean, recall_at
from embodied_reward.metrics.calibration import expected_calibration_error, reliability
from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.outcome import pays_gold
from embodied_reward.metrics.pool import labelled, pool
from embodied_reward.types import Float64

OUTCOMES = ("SE", "PSE", "FE")


def success(judged: Sequence[Judged]) -> dict[str, float]:
    """Return the module's table."""
    rows, labels = labelled(judged)
    final = np.array([j.potential[-1] for j in rows])
    said = np.array([j.success[-1] for j in rows])
    done = np.array(labels, bool)
    paid = np.array([float(pays_gold(j.potential)) for j in rows])
    right = [float((j.outcome == "SE") == s) for j, s in zip(rows, labels, strict=True)]
    agreed = [float(j.outcome == j.true_outcome) for j in judged if j.true_outcome is not None]
    return {
        "success_auc": auc(said, done),
        "success_auprc": average_precision(said, done),
        "success_recall": recall_at(said, done),
        "success_auc_max": auc([j.success.max() for j in rows], done),
        "success_auc_potential": auc(final, done),
        **_frames(judged),
        "success_gap": finite_mean(final[done]) - finite_mean(final[~done]),
        "outcome_accuracy": finite_mean(right),
        "outcome_agreement": finite_mean(agreed),
        "gold_false": finite_mean(paid[~done]),
        "gold_true": finite_mean(paid[done]),
    }


def frame_success(judged: Sequence[Judged]) -> tuple[Float64, Float64]:
    """Return success probability and success (0 or 1) of all scored frames that have a label."""
    rows = [j for j in judged if j.episode.success_frames is not None]
    frames = [np.asarray(j.episode.success_frames, float)[j.finite] for j in rows]
    return pool(j.success for j in rows), pool(frames)


def outcome_confusion(judged: Sequence[Judged]) -> dict[str, dict[str, int]]:
    """Return counts: true outcome -> outcome read off the potential; rows sum to episodes.

    Truth: the task's success, else partial where true progress averages 0.4 or more. Episodes
    without both are left out.
    """
    rows = [j for j in judged if j.true_outcome is not None]
    return {
        true: {
            said: sum((j.true_outcome, j.outcome) == (true, said) for j in rows)
            for said in OUTCOMES
        }
        for true in OUTCOMES
    }


def _frames(judged: Sequence[Judged]) -> dict[str, float]:
    said, done = frame_success(judged)
    return {
        "frame_success_auc": auc(said, done),
        "frame_success_auprc": average_precision(said, done),
        "frame_success_recall": recall_at(said, done),
        "success_ece": expected_calibration_error(reliability(said, done)),
    }
