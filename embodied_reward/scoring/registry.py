"""Trained scorers on disk: `config.json` + `model.safetensors`, tied together by digests.

A trained trunk lies in the folder with its head. A frozen pretrained one is referred to by name and
revision, and must have the digest it was used with.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import CheckpointError, did_you_mean
from embodied_reward.scoring.heads import HEADS, HeadConfig, PreferenceHead
from embodied_reward.scoring.language.config import LANGUAGE_TYPES, read_item_scorer
from embodied_reward.scoring.scorer import (
    Head,
    ItemScorer,
    Scorer,
    ScorerCard,
    Trunk,
    digest_of,
    joint_digest,
)
from embodied_reward.scoring.transformers_trunk import TransformersTrunk, load_trunk
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import Encoder, EncoderConfig, build_encoder, rebuild

EMBED_LIMIT = 64 << 20
"""Bytes of a pretrained trunk up to which it is copied into the folder of the scorer."""

# type -> reader of a folder whose config.json has that "type"; gets the folder and the device.
ITEM_SCORERS: dict[str, Callable[[Path, str], ItemScorer]] = dict.fromkeys(
    LANGUAGE_TYPES, read_item_scorer
)


def make_scorer(
    name: str,
    trunk: Trunk,
    head: PreferenceHead,
    *,
    licence: str = "",
    extra: dict[str, Any] | None = None,
) -> Scorer:
    """Put a trunk and a head together and write their card.

    Args:
        name: by which requests ask for the scorer.
        trunk: already on its device.
        head: of `HEADS`, on the same device; set to eval mode.
        licence: of the weights.
        extra: JSON facts for the card; `trunk` says where a pretrained trunk comes from, the
            arguments of `load_trunk` or of `EncoderConfig`.
    """
    digest = digest_of(head, json.dumps(_config_of(head), sort_keys=True))
    card = ScorerCard(
        name=name,
        type=_type_of(head),
        weights_sha256=joint_digest(trunk.digest, digest),
        trunk_sha256=trunk.digest,
        head_sha256=digest,
        preprocess=trunk.preprocess_id,
        dim_names=head.dim_names,
        score_range=head.score_range,
        dtype=str(trunk.dtype).removeprefix("torch."),
        normalizer=tuple(zip(head.out_mean.tolist(), head.out_std.tolist(), strict=True)),
        licence=licence,
        source=head.source,
        extra=extra or {},
    )
    return Scorer(card, trunk, head.eval())


def save_scorer(scorer: Scorer | ItemScorer, folder: Path | str) -> Path:
    """Write a scorer to a folder; returns the folder.

    Raises:
        CheckpointError: this kind of scorer cannot be saved, or the trunk's source is unknown.
    """
    folder = Path(folder)
    if isinstance(scorer, ItemScorer):
        save = getattr(scorer, "save", None)
        if save is None:
            raise CheckpointError(f"a scorer of type '{scorer.card.type}' has nothing to save")
        save(folder)
        return folder
    if not isinstance(scorer.head, PreferenceHead):
        raise CheckpointError(
            f"'{scorer.card.name}' has a {type(scorer.head).__name__}, which is no preference head"
        )
    trunk, inside = _describe(scorer)
    folder.mkdir(parents=True, exist_ok=True)
    tree = {
        "type": scorer.card.type,
        "name": scorer.card.name,
        "head": _config_of(scorer.head),
        "trunk": trunk,
        "card": scorer.card.to_dict(),
    }
    weights.save(nn.ModuleDict({"head": scorer.head, **inside}), tree, folder)
    return folder


def load_scorer(path: Path | str, *, device: str = "cpu") -> Scorer | ItemScorer:
    """Read a scorer, ready for `ScoringCore.register`.

    Args:
        path: a run folder of `er train-scorer`, a checkpoint, or the folder of `save_scorer`.
        device: torch device.

    Raises:
        CheckpointError: nothing there, damaged or exchanged weights, or an unknown type.
    """
    folder = scorer_folder(Path(path))
    kind = _read(folder / "config.json").get("type")
    if kind in ITEM_SCORERS:
        return ITEM_SCORERS[kind](folder, device)
    if kind not in HEADS:
        raise CheckpointError(
            f"'{folder}' holds a '{kind}', which is no scorer; "
            f"{did_you_mean(str(kind), (*HEADS, *ITEM_SCORERS))}"
        )
    tree, state, _ = weights.load(folder)
    try:
        return _rebuild(tree, state, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"'{folder}' does not describe its weights ({type(error).__name__}: {error}); "
            "it was edited or written by another version: train again"
        ) from error


def scorer_folder(path: Path) -> Path:
    """Find the folder of a scorer: best checkpoint of a run, else its last, else `path`."""
    below = ("checkpoints/best/pretrained_model", "checkpoints/last/pretrained_model")
    for candidate in (*(path / b for b in below), path / "pretrained_model", path):
        if (candidate / "config.json").is_file():
            return candidate
    raise CheckpointError(
        f"no scorer at '{path}': expected config.json and model.safetensors there or in "
        "checkpoints/best/pretrained_model below it; `er train-scorer` writes such a folder"
    )


def _rebuild(tree: dict[str, Any], state: dict[str, torch.Tensor], device: str) -> Scorer:
    trunk = _trunk(tree["trunk"], _below(state, "trunk."), device)
    head = _head(tree["head"])
    head.load_state_dict(_below(state, "head."))
    card = tree["card"]
    scorer = make_scorer(
        tree["name"], trunk, head.to(device), licence=card["licence"], extra=card["extra"]
    )
    if scorer.card.head_sha256 != card["head_sha256"]:
        raise CheckpointError("the head's digest is not the one on its card; train again")
    if scorer.card.preprocess == card["preprocess"]:
        return scorer
    # Another torch may resize by other kernels: scores can differ in their last bits.
    extra = {**scorer.card.extra, "trained_preprocess": card["preprocess"]}
    return Scorer(replace(scorer.card, extra=extra), trunk, scorer.head)


def _describe(scorer: Scorer) -> tuple[dict[str, Any], dict[str, nn.Module]]:
    """Return how to get the trunk again, and the module that lies in the folder, if it does."""
    trunk, source = scorer.trunk, scorer.card.extra.get("trunk")
    if isinstance(trunk, TransformersTrunk) and source:
        return {"kind": "transformers", "source": source, "sha256": trunk.digest}, {}
    if not isinstance(trunk, EncoderTrunk):
        raise CheckpointError(
            f"'{scorer.card.name}' has a {type(trunk).__name__} of unknown origin; say where it "
            "comes from: make_scorer(..., extra={'trunk': {'name': ..., 'revision': ...}})"
        )
    embedded = _embedded(trunk.encoder, source)
    described = {
        "kind": "encoder",
        "description": trunk.encoder.description(),
        "embedded": embedded,
        "source": source,
        "sha256": digest_of(trunk.encoder),
    }
    return described, {"trunk": trunk.encoder} if embedded else {}


def _trunk(tree: dict[str, Any], state: dict[str, torch.Tensor], device: str) -> Trunk:
    if tree["kind"] == "transformers":
        trunk: Trunk = load_trunk(**tree["source"], device=device)
        found = trunk.digest
    else:
        encoder = _encoder(tree, state)
        found, trunk = digest_of(encoder), EncoderTrunk(encoder.to(device))
    if found != tree["sha256"]:
        raise CheckpointError(
            f"the trunk {tree['source'] or ''} has other weights than the head was trained on; "
            "give the same model and revision, or train the head again"
        )
    return trunk


def _encoder(tree: dict[str, Any], state: dict[str, torch.Tensor]) -> Encoder:
    if not tree["embedded"]:
        return build_encoder(EncoderConfig(**tree["source"]), 0)
    encoder = rebuild(tree["description"])
    encoder.load_state_dict(state)
    return encoder


def _head(tree: dict[str, Any]) -> PreferenceHead:
    tree = dict(tree)
    more = {"text_dim": tree.pop("text_dim"), "dims": tuple(tree.pop("dims"))}
    dim, kind = tree.pop("dim"), tree.pop("type")
    config = configs.decode(HeadConfig.get_choice_class(kind), tree)
    return HEADS[kind].create(config, dim, **more)


def _config_of(head: PreferenceHead) -> dict[str, Any]:
    return {
        "type": _type_of(head),
        **asdict(head.config),
        "dim": head.dim,
        "text_dim": head.text_dim,
        "dims": list(head.dim_names),
    }


def _type_of(head: Head) -> str:
    for name, kind in HEADS.items():
        if type(head) is kind:
            return name
    raise CheckpointError(
        f"{type(head).__name__} is not in the registry of heads: {', '.join(HEADS)}"
    )


def _embedded(encoder: Encoder, source: dict[str, Any] | None) -> bool:
    size = sum(v.numel() * v.element_size() for v in encoder.state_dict().values())
    return source is None or size <= EMBED_LIMIT


def _below(state: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{file}' is not readable JSON: {error}") from error
