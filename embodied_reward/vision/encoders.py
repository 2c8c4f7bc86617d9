"""Encoders of single images: our small convolutional net, or any `transformers` vision model."""

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class EncoderConfig:
    """Which image encoder a reward model uses."""

    name: str = "conv64"
    """conv64, conv112, or a transformers vision model: local folder or hub id"""
    revision: str | None = None
    """commit of the hub model; pin it for reproducible runs"""
    freeze: bool = True
    """keep a transformers model's weights fixed (the small conv nets are always trained)"""
    image_size: int | None = None
    """side of the encoder's square input [px]; default: the encoder's own"""


# name -> (input side [px], channels of the stride-2 convolutions)
CONV_PRESETS: dict[str, tuple[int, tuple[int, ...]]] = {
    "conv64": (64, (16, 32, 64, 64)),
    "conv112": (112, (16, 32, 64, 64)),
}


PIXEL_RANGE = (-1.0, 1.0)
"""What our small conv nets see in place of black and white."""


class Encoder(nn.Module):
    """Base: float Tensor["n 3 size size"] in [0, 1] -> Tensor["n d"].

    Attributes:
        dim: size d of the output.
        image_size: side of the input [px].
        trainable: whether gradients and augmentation are wanted.
    """

    dim: int
    image_size: int
    trainable: bool = True

    def description(self) -> dict[str, Any]:
        """Return what `rebuild` needs to make the same architecture without any download."""
        raise NotImplementedError

    def depths(self, images: Tensor) -> list[Tensor]:
        """Return the activations of every depth, first to last, of Tensor["n 3 size size"].

        Each is a map Tensor["n c h w"], or Tensor["n d"] where places are gone.
        """
        raise NotImplementedError


class ConvEncoder(Encoder):
    """Stride-2 convolutions with GroupNorm, then one linear layer that keeps position.

    Flattening instead of pooling is deliberate: where the gripper is *is* the progress.
    """

    def __init__(self, name: str, dim: int, image_size: int | None = None) -> None:
        """Build the preset `name` with output size `dim`. Raises ConfigError."""
        super().__init__()
        if name not in CONV_PRESETS:
            raise ConfigError(f"no encoder preset '{name}'; {did_you_mean(name, CONV_PRESETS)}")
        default_size, channels = CONV_PRESETS[name]
        self.name, self.dim = name, dim
        self.image_size = image_size or default_size
        layers: list[nn.Module] = []
        for before, after in zip((3, *channels[:-1]), channels, strict=True):
            layers += [
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(4, after),
                nn.ReLU(inplace=True),
            ]
        side = self.image_size // 2 ** len(channels)
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(nn.Linear(channels[-1] * side**2, dim), nn.LayerNorm(dim))

    def forward(self, images: Tensor) -> Tensor:
        """Encode Tensor["n 3 size size"] to Tensor["n d"]."""
        low, high = PIXEL_RANGE
        return self.head(self.body(images * (high - low) + low))

    def description(self) -> dict[str, Any]:
        """See the base class."""
        return {"kind": "conv", "name": self.name, "dim": self.dim, "image_size": self.image_size}

    def depths(self, images: Tensor) -> list[Tensor]:
        """See the base class: the output of every ReLU, and of the whole encoder."""
        low, high = PIXEL_RANGE
        found, now = [], images * (high - low) + low
        for layer in self.body:
            now = layer(now)
            if isinstance(layer, nn.ReLU):
                found.append(now)
        return [*found, self.head(now)]


class TransformersEncoder(Encoder):
    """A vision model from `transformers` (DINOv2, SigLIP, ViT, ...), pooled to one vector."""

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: list[float],
        std: list[float],
        image_size: int,
        freeze: bool = True,
    ) -> None:
        """Wrap a loaded vision model; `mean` and `std` are per channel in [0, 1] units."""
        super().__init__()
        self.model, self.image_size, self.trainable = model, image_size, not freeze
        self.statistics = {"mean": list(mean), "std": list(std)}
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)
        self.dim = int(_width(model.config) or 0)
        if freeze:
            self.model.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "TransformersEncoder":
        """Keep a frozen model in eval mode, so that its dropout never adds noise."""
        super().train(mode)
        if not self.trainable:
            self.model.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Encode Tensor["n 3 size size"] to Tensor["n d"]: pooled output, or mean of tokens."""
        pixels = (images - self.mean) / self.std  # type: ignore[operator]
        # Frozen weights build no graph by themselves, and gradients in the pixels stay possible.
        output = self.model(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        if pooled is None:
            return output.last_hidden_state.mean(1)
        return pooled.flatten(1)

    def description(self) -> dict[str, Any]:
        """See the base class."""
        config = json.loads(self.model.config.to_json_string(use_diff=False))  # type: ignore[union-attr]
        return {
            "kind": "transformers",
            "config": config,
            "image_size": self.image_size,
            "freeze": not self.trainable,
            **self.statistics,
        }

    def depths(self, images: Tensor) -> list[Tensor]:
        """See the base class: the embedding and the output of every block.

        The tokens of a transformer are laid out as the patches of the picture; tokens that stand
        for no patch, which come first, are left out.
        """
        pixels = (images - self.mean) / self.std  # type: ignore[operator]
        output = self.model(pixel_values=pixels, output_hidden_states=True)
        return [_as_map(hidden) for hidden in output.hidden_states]


def _width(config: Any) -> int | None:
    """Return the size of a vision model's output: transformers name one, pyramids one per stage."""
    sizes = getattr(config, "hidden_sizes", None)
    return getattr(config, "hidden_size", None) or (sizes[-1] if sizes else None)


def _as_map(hidden: Tensor) -> Tensor:
    """Return Tensor["n c h w"] of a map, or of tokens Tensor["n p d"]."""
    if hidden.ndim != 3:
        return hidden
    side = math.isqrt(hidden.shape[1])
    patches = hidden[:, hidden.shape[1] - side**2 :]
    return patches.transpose(1, 2).unflatten(2, (side, side))


def build_encoder(config: EncoderConfig, dim: int) -> Encoder:
    """Make the encoder that a config names, loading pretrained weights if it is a model.

    Raises:
        ConfigError: the name is neither a preset nor a loadable vision model.
    """
    if config.name in CONV_PRESETS:
        return ConvEncoder(config.name, dim, config.image_size)
    return _load_pretrained(config)


def rebuild(description: dict[str, Any]) -> Encoder:
    """Make the architecture of a saved `description()`; weights are loaded by the caller."""
    description = dict(description)
    if description.pop("kind") == "conv":
        return ConvEncoder(description["name"], description["dim"], description["image_size"])
    from transformers import AutoConfig, AutoModel

    config = dict(description.pop("config"))
    model = AutoModel.from_config(AutoConfig.for_model(config.pop("model_type"), **config))
    return TransformersEncoder(model, **description)


def _load_pretrained(config: EncoderConfig) -> Encoder:
    from transformers import AutoImageProcessor, AutoModel

    try:
        model = AutoModel.from_pretrained(config.name, revision=config.revision)
        processor = AutoImageProcessor.from_pretrained(config.name, revision=config.revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"encoder '{config.name}' is neither a preset ({', '.join(CONV_PRESETS)}) nor a vision "
            f"model that transformers can load ({reason}); give a local folder saved with "
            "save_pretrained() or a hub id that this machine can reach"
        ) from error
    model = getattr(model, "vision_model", model)
    if _width(model.config) is None:
        raise ConfigError(
            f"'{config.name}' is a {type(model).__name__} without `hidden_size` or "
            "`hidden_sizes`; choose a vision model such as DINOv2, ViT, SigLIP or ResNet"
        )
    size = config.image_size or int(getattr(model.config, "image_size", 224))
    return TransformersEncoder(
        model,
        mean=processor.image_mean,
        std=processor.image_std,
        image_size=size,
        freeze=config.freeze,
    )
