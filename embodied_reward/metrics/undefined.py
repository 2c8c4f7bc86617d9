"""Why a metric has no value, in words."""

from collections.abc import Sequence

import numpy as np

from embodied_reward.metrics.judge import LEAST_RANGE, Judged

_OUTCOME = ("success_auc", "success_auc_max", "success_auc_potential", "success_gap")
_TRUTH = ("mae", "mae_episode", "spearman", "spearman_episode", "hop_sign_accuracy")


def why_undefined(metric: str, judged: Sequence[Judged]) -> str:
    """Return why `metric` is NaN over these episodes of one predictor."""
    if not any(len(j.potential) for j in judged):
        return "no frame could be scored"
    if metric in _TRUTH:
        return _about_truth(metric, judged)
    if metric in _OUTCOME:
        return _about_outcome([j.episode.success for j in judged])
    if metric == "frame_success_auc":
        return _about_frames(judged)
    if metric.startswith("voc"):
        group = "failed" if metric == "voc_min_failed" else "successful"
        return f"there is no {group} episode"
    if metric == "outcome_accuracy":
        return "the dataset does not say which episodes succeeded"
    if metric == "kendall_tau_a":
        return "no quality ranks were given"
    return "these episodes do not allow it"


def _about_truth(metric: str, judged: Sequence[Judged]) -> str:
    known = [j for j in judged if len(j.progress)]
    if not known:
        return "the dataset has no true progress"
    if metric == "hop_sign_accuracy":
        return "true progress never moves between the sampled frames"
    if all(np.ptp(j.potential) == 0 for j in known):
        return "the prediction is constant, so it has no order"
    if metric == "spearman_episode":
        return f"true progress spans less than {LEAST_RANGE} in every episode"
    return "true progress is constant"


def _about_outcome(successes: Sequence[bool | None]) -> str:
    if all(s is None for s in successes):
        return "the dataset does not say which episodes succeeded"
    only = "successes" if any(successes) else "failures"
    return f"it needs successes and failures, and here are only {only}"


def _about_frames(judged: Sequence[Judged]) -> str:
    labels = [j.episode.success_frames for j in judged if j.episode.success_frames is not None]
    if not labels:
        return "the dataset does not say in which frames the task is done"
    return "the task is done in " + ("all frames" if all(f.all() for f in labels) else "no frame")
