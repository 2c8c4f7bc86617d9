"""The page's content as plain JSON types; how it looks is the template's business."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from embodied_reward import __version__
from embodied_reward.metrics.probes import Measure, ProbeResult, Shown
from embodied_reward.report.calibration import calibration, risk
from embodied_reward.report.episodes import episode_rows, worst
from embodied_reward.report.evidence import Evidence
from embodied_reward.report.learning import learning_curves
from embodied_reward.report.metric_table import metric_table, readings_table
from embodied_reward.report.sprites import picture_uri
from embodied_reward.rewards import Card

PACKAGES = ("torch", "numpy", "lerobot")


def reward_document(evidence: Evidence) -> dict[str, Any]:
    """Return the document of a reward model's page."""
    rows = episode_rows(evidence)
    return {
        "kind": "reward",
        "title": evidence.card.task or "Reward model",
        "headline": headline(evidence),
        "metrics": metric_table(evidence),
        "readings": readings_table(evidence),
        "calibration": calibration(evidence.model),
        "risk": risk(evidence.model),
        "drops": _drops(evidence.robustness),
        "stability": dict(evidence.robustness["stability"]),
        "threshold": evidence.threshold,
        "steps": None if evidence.steps is None else picture_uri(evidence.steps, side=1600),
        "worst": worst(rows),
        "episodes": rows,
        "probes": [_probe(p) for p in evidence.probes],
        "training": learning_curves(evidence.training),
    }


def policy_document(
    title: str, command: str, facts: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the document of a policy run's page: its learning curves."""
    return {
        "kind": "policy",
        "title": title,
        "headline": {"facts": {**facts, "versions": versions()}, "command": command},
        "training": learning_curves(rows),
    }


def headline(evidence: Evidence) -> dict[str, Any]:
    """Return the card at the top: what was measured, on what, with what, and how again."""
    origin, card = evidence.origin, evidence.card
    return {
        "facts": {**_card_facts(card), **_data_facts(evidence), "versions": versions()},
        "episodes": origin.episodes,
        "caution": origin.caution,
        "command": origin.command,
    }


def versions() -> str:
    """Return the versions that the numbers depend on."""
    found = [f"embodied-reward {__version__}", f"Python {platform.python_version()}"]
    return ", ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES])


def _card_facts(card: Card) -> dict[str, str]:
    extra = ", ".join(f"{key} {value}" for key, value in card.extra.items())
    return {
        "method": card.type + (f" ({extra})" if extra else ""),
        "views": f"{', '.join(card.views)} at {card.image_size} px",
        "potential": ("current frame and start only" if card.markov else "depends on the history"),
        "weights sha256": card.weights_sha256 or "not saved",
    }


def _data_facts(evidence: Evidence) -> dict[str, str]:
    outcomes = Counter(j.episode.success for j in evidence.model)
    frames = sum(len(j.episode) for j in evidence.model)
    unknown = f", {outcomes[None]} unlabelled" if outcomes[None] else ""
    return {
        **evidence.origin.facts,
        "episodes": f"{len(evidence.model)} ({outcomes[True]} successes, {outcomes[False]} "
        f"failures{unknown}), {frames} frames",
        "goal pictures": f"from {evidence.origin.reference}",
        "success threshold": f"{evidence.threshold:.3g}",
        "seed": str(evidence.seed),
    }


def _drops(robustness: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table's rows: every view there, then each one missing."""
    without = robustness["without"].items()
    return [{"view": "", **robustness["whole"]}, *({"view": v, **row} for v, row in without)]


def _probe(result: ProbeResult) -> dict[str, Any]:
    return {
        "name": result.name,
        "title": result.title,
        "verdict": result.verdict,
        "done": result.done,
        "expected": result.expected,
        "got": result.got,
        "queries": result.queries,
        "measures": [_measure(m) for m in result.measures],
        "shown": [_shown(s) for s in result.shown],
    }


def _measure(measure: Measure) -> dict[str, str]:
    sign = "≥" if measure.higher_is_better else "≤"
    pattern = "{:.1%}" if measure.percent else "{:.2f}"
    # One digit more than the limits, so that a value just beyond one does not look equal to it.
    finer = "{:.2%}" if measure.percent else "{:.3f}"
    shown = {float("inf"): "none found"}.get(measure.value, finer.format(measure.value))
    return {
        "name": measure.name,
        "value": "undefined" if measure.verdict == "undefined" else shown,
        "verdict": measure.verdict,
        "limits": f"pass {sign} {pattern.format(measure.warn)}, "
        f"warn {sign} {pattern.format(measure.fail)}",
    }


def _shown(shown: Shown) -> dict[str, Any]:
    pictures = [{"view": v, "uri": picture_uri(p)} for v, p in shown.picture.items()]
    return {"caption": shown.caption, "pictures": pictures}
