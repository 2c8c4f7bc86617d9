"""The encoder under a preference head: frozen and encoded once, or trained along."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from embodied_reward.cli.scorer_baselines import Looks
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.scoring.preferences import Preferences
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.scoring.transformers_trunk import load_trunk
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.training.scorer_data import FeatureTable, PictureTable
from embodied_reward.types import UInt8
from embodied_reward.vision.encoders import CONV_PRESETS, Encoder, EncoderConfig, build_encoder
from embodied_reward.vision.preprocess import resize_frames

CHUNK = 64
"""Clips that are read and encoded at once."""


@dataclass(frozen=True)
class TrunkConfig:
    """Which encoder the head reads."""

    name: str = "conv64"
    """conv64, conv112, or a transformers model (CLIP, SigLIP, DINO, ...): local folder or hub id"""
    revision: str | None = None
    """commit of the hub model; pin it for reproducible runs"""
    image_size: int | None = None
    """side of the input of a trained encoder [px]; default: its own"""
    dim: int = 64
    """size of the features of a small conv net"""
    train: bool | None = None
    """train the encoder too; default: small conv nets yes, pretrained models no"""
    text: bool | None = None
    """read prompts by the model's text tower; default: if it has one and all lines have prompts"""


@dataclass(frozen=True)
class Backbone:
    """A trunk, and its encoder if that is going to be trained.

    Attributes:
        config: what was asked for.
        trunk: as it is now.
        encoder: of conv nets and trained models.
        source: where a frozen pretrained model comes from, for the scorer's card; or empty.
    """

    config: TrunkConfig
    trunk: Trunk
    encoder: Encoder | None
    source: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether the encoder learns too."""
        return trains(self.config)

    def now(self) -> Trunk:
        """Return the trunk with the encoder's present weights."""
        return EncoderTrunk(self.encoder) if self.trained and self.encoder else self.trunk


def trains(config: TrunkConfig) -> bool:
    """Whether the encoder learns too."""
    return config.name in CONV_PRESETS if config.train is None else config.train


def open_backbone(config: TrunkConfig, device: str) -> Backbone:
    """Make or load the encoder. Raises ConfigError."""
    if config.name in CONV_PRESETS or trains(config):
        wanted = EncoderConfig(config.name, config.revision, not trains(config), config.image_size)
        encoder = build_encoder(wanted, config.dim).to(device)
        return Backbone(config, EncoderTrunk(encoder), encoder, {})
    if config.image_size is not None:
        raise ConfigError(
            "--trunk.image_size is for trained encoders; a frozen model sees the pixels that its "
            "own image processor makes"
        )
    try:
        trunk = load_trunk(config.name, revision=config.revision, device=device)
    except ConfigError as error:
        raise ConfigError(f"--trunk.name: {error}, or {' or '.join(CONV_PRESETS)}") from error
    folder = Path(config.name)
    # A relative path would mean another folder when the scorer is loaded from elsewhere.
    name = str(folder.resolve()) if folder.is_dir() else config.name
    return Backbone(config, trunk, None, {"name": name, "revision": config.revision})


def read_pictures(
    backbone: Backbone, data: Preferences, *, frames: int, cache_dir: str
) -> tuple[FeatureTable, Looks]:
    """Read every clip once; encode it now if the encoder stays as it is.

    Raises:
        DatasetError: a picture cannot be read.
    """
    looks, offsets, parts = Looks(), [0], []
    cache = FeatureCache(folder=cache_dir or None)
    bar = tqdm(total=len(data.clips), unit="clip", desc="reading pictures")
    with ScoringCore(cache=cache) as core, bar:
        for at in range(0, len(data.clips), CHUNK):
            flat: list[UInt8] = []
            for clip in data.clips[at : at + CHUNK]:
                found = clip.frames(frames)
                looks.add(found, clip.nbytes)
                flat += [frame[None] for frame in found]
                offsets.append(offsets[-1] + len(found))
                bar.update()
            parts += _encoded(backbone, core, flat)
    values, places = torch.cat(parts), torch.tensor(offsets).numpy()
    if backbone.trained and backbone.encoder is not None:
        return PictureTable(values, places, backbone.encoder), looks
    return FeatureTable(values, places), looks


def _encoded(backbone: Backbone, core: ScoringCore, frames: list[UInt8]) -> list[Tensor]:
    if backbone.trained and backbone.encoder is not None:
        size = backbone.encoder.image_size
        return [resize_frames(torch.from_numpy(frame), size) for frame in frames]
    return [core.embed(backbone.trunk, frames)]


def read_prompts(backbone: Backbone, data: Preferences) -> tuple[dict[str, int], Tensor | None]:
    """Return prompt -> row, and the prompts' features Tensor["m d"]; nothing if they are not read.

    Raises:
        ConfigError: prompts are wanted and the model has no text tower.
        DatasetError: prompts are wanted and a line has none.
    """
    empty = next((row.where for row in data.rows if not row.prompt), None)
    wanted = backbone.config.text
    if wanted is False or (wanted is None and (empty or not backbone.trunk.reads_texts)):
        return {}, None
    if not backbone.trunk.reads_texts:
        raise ConfigError(
            f"--trunk.text=true, but '{backbone.config.name}' has no text tower, or is trained: "
            "take a frozen CLIP- or SigLIP-class model"
        )
    if empty:
        raise DatasetError(f"{empty} has no `prompt`, which --trunk.text=true reads; add one")
    prompts = {row.prompt: 0 for row in data.rows}
    with torch.no_grad():
        bar = tqdm(prompts, unit="text", desc="reading prompts")
        rows = [backbone.trunk.encode_texts([prompt]) for prompt in bar]
    return {prompt: k for k, prompt in enumerate(prompts)}, torch.cat(rows)
