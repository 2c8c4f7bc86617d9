"""Every metric of `evaluate`: its group, which way is better, and why it may be undefined."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from embodied_reward.metrics.judge import LEAST_RANGE, Judged
from embodied_reward.metrics.pool import failed, known, labelled
from embodied_reward.metrics.success import frame_success
from embodied_reward.metrics.trajectory import NAMES

CONSTANT = "one side is constant, so no correlation is defined"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        group: the table it is printed in.
        title: heading of its column.
        better: which way is better; `neither` for numbers that only describe.
        needs: names of `NEEDS`; the first that fails is the reason for an undefined value.
        otherwise: the reason when every need is met.
        fooled: some constant predictor gets the best value there is, so it never stands alone.
    """

    group: str
    title: str
    better: Literal["higher", "lower", "neither"] = "higher"
    needs: tuple[str, ...] = ()
    otherwise: str = "no frame or pair of frames it is made of was scored"
    fooled: bool = False


def _has_outcomes(judged: Sequence[Judged]) -> bool:
    return len(set(labelled(judged)[1])) == 2


def _has_frame_kinds(judged: Sequence[Judged]) -> bool:
    return len(np.unique(frame_success(judged)[1])) == 2


def _moves(judged: Sequence[Judged]) -> bool:
    return any(len(j.progress) and np.ptp(j.progress) >= LEAST_RANGE for j in judged)


def _has_qualities(judged: Sequence[Judged]) -> bool:
    qualities = [j.quality for j in judged if np.isfinite(j.quality)]
    return len(set(qualities)) > 1 if qualities else _has_outcomes(judged)


NEEDS: dict[str, tuple[Callable[[Sequence[Judged]], bool], str]] = {
    "rising": (
        lambda js: any(j.episode.success is not False for j in js),
        "every episode is a failure",
    ),
    "success": (
        lambda js: any(j.episode.success is True for j in js),
        "no episode is marked as a success",
    ),
    "failure": (lambda js: bool(failed(js)), "no episode is marked as a failure"),
    "outcome": (lambda js: bool(labelled(js)[0]), "no episode is marked as success or failure"),
    "both": (_has_outcomes, "both successful and failed episodes are needed"),
    "judges": (
        lambda js: any(np.isfinite(j.success).any() for j in js),
        "the predictor gives no probability of success",
    ),
    "frames": (
        lambda js: len(frame_success(js)[1]) > 0,
        "the dataset does not mark the frames that are a success",
    ),
    "frame kinds": (_has_frame_kinds, "frames with and frames without success are needed"),
    "truth": (lambda js: bool(known(js)), "the dataset has no true progress"),
    "moving": (_moves, f"true progress spans less than {LEAST_RANGE} in every episode"),
    "failed moving": (
        lambda js: _moves(failed(js)),
        f"true progress spans less than {LEAST_RANGE} in every failed episode",
    ),
    "quality": (
        lambda js: sum(np.isfinite(j.quality) for j in js) > 1,
        "fewer than two episodes have a given quality",
    ),
    "qualities": (_has_qualities, "two different qualities are needed"),
    "views": (
        lambda js: any(len(j.view_spread) for j in js),
        "the predictor has no two views to compare",
    ),
    "anchors": (
        lambda js: any(len(j.anchor_gap) for j in js),
        "the predictor has no forward and backward reading",
    ),
}

NO_PAIR = "no pair of frames of this size, both upwards and downwards"

METRICS: dict[str, Metric] = {
    "voc_plus": Metric("order", "VOC+", needs=("rising",), fooled=True),
    "voc_minus": Metric("order", "VOC-", needs=("rising",), fooled=True),
    "voc_min": Metric("order", "VOC", needs=("rising",)),
    "voc_shuffled": Metric("order", "shuffled", needs=("rising",)),
    "voc_min_failed": Metric("order", "failed", "neither", ("failure",)),
    "voc_undefined": Metric("order", "undefined", "neither"),
    "hop_sign_accuracy": Metric("hops", "sign", needs=("truth",)),
    "hop_sign_small": Metric("hops", "small", needs=("truth",), otherwise=NO_PAIR),
    "hop_sign_medium": Metric("hops", "medium", needs=("truth",), otherwise=NO_PAIR),
    "hop_sign_large": Metric("hops", "large", needs=("truth",), otherwise=NO_PAIR),
    "hop_false_motion": Metric(
        "hops", "false move", "lower", ("truth",), "no two frames of equal progress", fooled=True
    ),
    "hop_inconsistency": Metric("hops", "inconsist.", "lower", fooled=True),
    "hop_path_spread": Metric("hops", "path spread", "lower", fooled=True),
    "mae": Metric("truth", "MAE", "lower", ("truth",)),
    "mae_episode": Metric("truth", "MAE/e", "lower", ("truth",)),
    "mae_failed": Metric("truth", "failed", "lower", ("truth", "failure")),
    "pearson": Metric("truth", "Pearson", needs=("truth",), otherwise=CONSTANT),
    "spearman": Metric("truth", "rho", needs=("truth",), otherwise=CONSTANT),
    "spearman_episode": Metric("truth", "rho/e", needs=("truth", "moving"), otherwise=CONSTANT),
    "spearman_failed": Metric(
        "truth", "rho failed", needs=("truth", "failure", "failed moving"), otherwise=CONSTANT
    ),
    "calibration_slope": Metric(
        "truth", "slope", "neither", ("truth",), "the potential is constant"
    ),
    "calibration_intercept": Metric(
        "truth", "intercept", "neither", ("truth",), "the potential is constant"
    ),
    "success_auc": Metric("success", "AUC", needs=("judges", "both")),
    "success_auprc": Metric("success", "AUPRC", needs=("judges", "both")),
    "success_recall": Metric("success", "TPR@1%", needs=("judges", "both")),
    "success_auc_max": Metric("success", "AUC max", needs=("judges", "both")),
    "success_auc_potential": Metric("success", "AUC Phi", needs=("both",)),
    "success_gap": Metric("success", "gap", needs=("both",)),
    "outcome_accuracy": Metric("success", "outcome", needs=("outcome",)),
    "outcome_agreement": Metric("success", "SE/PSE/FE", needs=("truth", "outcome")),
    "gold_false": Metric("frames", "false gold", "lower", ("failure",), fooled=True),
    "gold_true": Metric("frames", "true gold", needs=("success",), fooled=True),
    "frame_success_auc": Metric("frames", "AUC/f", needs=("judges", "frames", "frame kinds")),
    "frame_success_auprc": Metric("frames", "AUPRC/f", needs=("judges", "frames", "frame kinds")),
    "frame_success_recall": Metric("frames", "TPR@1%/f", needs=("judges", "frames", "frame kinds")),
    "success_ece": Metric("frames", "ECE", "lower", ("judges", "frames"), fooled=True),
    "kendall_tau_a": Metric("ranking", "tau_a", needs=("quality",)),
    "kendall_by_class": Metric("ranking", "tau_a/class", needs=("qualities",)),
    "ranking_accuracy": Metric("ranking", "rank acc.", needs=("qualities",)),
    "aurc": Metric("uncertainty", "AURC", "lower", ("truth",)),
    "aurc_oracle": Metric("uncertainty", "oracle", "neither", ("truth",)),
    "aurc_random": Metric("uncertainty", "random", "neither", ("truth",)),
    "aurc_excess": Metric("uncertainty", "excess", "lower", ("truth",), "every error is the same"),
    "uncertainty_error": Metric("uncertainty", "rho std", needs=("truth",), otherwise=CONSTANT),
    "views_error": Metric("uncertainty", "rho views", needs=("truth", "views"), otherwise=CONSTANT),
    "anchors_error": Metric(
        "uncertainty", "rho anchors", needs=("truth", "anchors"), otherwise=CONSTANT
    ),
    **{f"path_{n}": Metric("path", n.upper(), "neither", ("success",)) for n in NAMES},
    **{
        f"path_{n}_failed": Metric("path, failures", n.upper(), "neither", ("failure",))
        for n in NAMES
    },
    **{f"path_{n}_error": Metric("path, error", n.upper(), "lower", ("truth",)) for n in NAMES},
}


def why_undefined(name: str, judged: Sequence[Judged]) -> str:
    """Say in a few words why a metric has no value on these episodes."""
    metric = METRICS[name]
    for need in metric.needs:
        met, reason = NEEDS[need]
        if not met(judged):
            return reason
    return metric.otherwise


def groups() -> Mapping[str, tuple[str, ...]]:
    """Return group -> its metrics, in the order of `METRICS`."""
    found: dict[str, tuple[str, ...]] = {}
    for name, metric in METRICS.items():
        found[metric.group] = (*found.get(metric.group, ()), name)
    return found
