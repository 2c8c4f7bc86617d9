"""Scorers made of scorers, as files that whoever opens scorers can name.

    type: video                     type: composed
    head: outputs/scorer            rule: base_and_bonus
    rate: 3                         settings: {weight: 0.5}
    anchor: end                     parts: {execution: outputs/a, consistency: outputs/b}
                                    sigmoid: [execution, consistency]

Rules of composition need scores in [0, 1]; `sigmoid` names the parts whose scores are unbounded,
as those of preference heads are. Paths are relative to the file. The parts of one recipe share a
trunk, so that pictures are encoded once; for parts on different trunks ask for each and compose the
replies (`scoring.composition`). `type: artefact` is a folder that `er guard-scorer` writes.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from embodied_reward import weights
from embodied_reward.errors import CheckpointError, ConfigError, did_you_mean
from embodied_reward.scoring.composition import rule_named
from embodied_reward.scoring.heads.artefact import ArtefactClassifier, ArtefactHead
from embodied_reward.scoring.heads.composed import ComposedHead, SigmoidHead
from embodied_reward.scoring.heads.video import VideoHead
from embodied_reward.scoring.scorer import Head, ItemScorer, Scorer, ScorerCard, joint_digest

type Open = Callable[[Path], Scorer | ItemScorer]
"""Opens a part of a recipe."""

KEYS: dict[str, tuple[str, ...]] = {
    "composed": ("rule", "settings", "parts", "sigmoid"),
    "video": ("head", "rate", "anchor"),
    "artefact": ("base", "base_sha256", "weight", "dim", "hidden", "weights_sha256"),
}


def read_recipe(tree: Mapping[str, Any], file: Path, opened: Open) -> Scorer:
    """Make a scorer of a recipe.

    Args:
        tree: `type`, optionally `name`, and the keys of that type.
        file: where it stood; paths are relative to its folder.
        opened: opens the parts.

    Raises:
        ConfigError: an unknown or missing key, a part without a trunk, parts of several trunks.
        CheckpointError: the base of an artefact guard, or its weights, were exchanged.
    """
    kind = str(tree["type"])
    for key in set(tree) - {"type", "name", *KEYS[kind]}:
        raise ConfigError(f"'{file}' has an unknown key '{key}'; {did_you_mean(key, KEYS[kind])}")
    name = str(tree.get("name") or (file.parent if file.name == "config.json" else file).stem)

    def part(value: object) -> Scorer:
        path = file.parent / str(value)
        found = opened(path)
        if isinstance(found, ItemScorer):
            raise ConfigError(
                f"'{file}': '{value}' is a {found.card.type} scorer without a trunk; only heads on "
                "image features can be parts"
            )
        return found

    try:
        return _MAKERS[kind](name, tree, file, part)
    except KeyError as error:
        raise ConfigError(
            f"'{file}' lacks the key {error}; `type: {kind}` takes {', '.join(KEYS[kind])}"
        ) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"'{file}' holds a value of the wrong type, of rate, settings or sigmoid: {error}"
        ) from error


def save_guard(
    folder: Path, name: str, base: Path, scorer: Scorer, head: ArtefactHead, hidden: int
) -> None:
    """Write a `type: artefact` folder; the base stays where it is and is named by its digest."""
    classifier = head.classifier
    tree = {
        "type": "artefact",
        "name": name,
        "base": os.path.relpath(base.resolve(), folder.resolve()),
        "base_sha256": scorer.card.weights_sha256,
        "weight": head.weight,
        "dim": len(classifier.mean),  # type: ignore[arg-type]
        "hidden": hidden,
    }
    weights.save(classifier, tree, folder)


def _composed(name: str, tree: Mapping[str, Any], file: Path, part: Callable) -> Scorer:
    if not isinstance(tree["parts"], Mapping) or len(tree["parts"]) < 2:
        raise ConfigError(f"'{file}': `parts` must name two scorers or more, as {{name: path}}")
    parts: dict[str, Scorer] = {str(k): part(v) for k, v in tree["parts"].items()}
    lanes = {k: s.trunk.lane for k, s in parts.items()}
    if len(set(lanes.values())) > 1:
        raise ConfigError(
            f"'{file}': the parts {', '.join(parts)} do not share one trunk; ask for each and "
            "compose the replies with scoring.composition.Composition"
        )
    settings, bounded = tree.get("settings") or {}, [str(k) for k in tree.get("sigmoid") or ()]
    for key in set(bounded) - set(parts):
        raise ConfigError(f"'{file}': sigmoid names no part; {did_you_mean(key, parts)}")
    heads = {k: SigmoidHead(s.head) if k in bounded else s.head for k, s in parts.items()}
    head = ComposedHead(heads, rule_named(str(tree["rule"]), **settings))
    facts = json.dumps([tree["rule"], settings, list(parts), sorted(bounded)], sort_keys=True)
    return _scorer(name, "composed", list(parts.values()), head, facts)


def _video(name: str, tree: Mapping[str, Any], file: Path, part: Callable) -> Scorer:
    one = part(tree["head"])
    settings = {"rate": float(tree.get("rate", 0.0)), "anchor": str(tree.get("anchor", "centre"))}
    head = VideoHead(one.head, rate=settings["rate"], anchor=settings["anchor"])
    return _scorer(name, "video", [one], head, json.dumps(settings))


def _artefact(name: str, tree: Mapping[str, Any], file: Path, part: Callable) -> Scorer:
    base = part(tree["base"])
    if base.card.weights_sha256 != tree["base_sha256"]:
        raise CheckpointError(
            f"'{tree['base']}' has other weights than '{file}' was fitted for; run "
            "er guard-scorer again"
        )
    _, state, digest = weights.load(file.parent)
    classifier = ArtefactClassifier(int(tree["dim"]), int(tree["hidden"]))
    classifier.load_state_dict(state)
    guard = classifier.to(base.trunk.device).eval().requires_grad_(False)
    head = ArtefactHead(base.head, guard, float(tree["weight"]))
    return _scorer(name, "artefact", [base], head, f"{digest}:{tree['weight']}")


_MAKERS = {"composed": _composed, "video": _video, "artefact": _artefact}


def _scorer(name: str, kind: str, parts: list[Scorer], head: Head, facts: str) -> Scorer:
    first, digest = parts[0], facts
    for one in parts:
        digest = joint_digest(one.card.weights_sha256, digest)
    card = ScorerCard(
        name=name,
        type=kind,
        weights_sha256=joint_digest(first.trunk.digest, digest),
        trunk_sha256=first.trunk.digest,
        head_sha256=digest,
        preprocess=first.trunk.preprocess_id,
        dim_names=head.dim_names,
        dtype=first.card.dtype,
        extra={"parts": [one.card.name for one in parts]},
    )
    return Scorer(card, first.trunk, head.eval())
