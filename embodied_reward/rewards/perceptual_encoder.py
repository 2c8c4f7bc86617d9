"""Every depth of a frozen encoder as one long vector, or the few entries of it that are used."""

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.vision.encoders import Encoder, EncoderConfig, build_encoder

MOST = 65_536
"""Features of one picture; the grid shrinks until they fit."""
HEAD = 128
"""Size of the last depth of the small convolutional encoders."""


class DepthEncoder(Encoder):
    """The activations of all depths, each averaged over a grid of places.

    Args:
        base: any encoder; it is frozen.
        grid: places per side, at most; a map with fewer keeps its own.

    Attributes:
        columns: Int64 Tensor["k"], the entries that are given out; none means all.
    """

    trainable = False
    columns: Tensor

    def __init__(self, base: Encoder, grid: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False).eval()
        self.image_size = base.image_size
        self.grid, self.total = _fitting_grid(base, grid)
        self.register_buffer("columns", torch.zeros(0, dtype=torch.int64))

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Return the number of entries that are given out."""
        return len(self.columns) or self.total

    def train(self, mode: bool = True) -> "DepthEncoder":
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode Tensor["n 3 size size"] to Tensor["n k"]."""
        found = torch.cat([_places(d, self.grid) for d in self.base.depths(images)], 1)
        return found[:, self.columns] if len(self.columns) else found

    def description(self) -> dict[str, Any]:
        """See the base class; of the encoder itself."""
        return {**self.base.description(), "grid": self.grid}


def load_base(config: EncoderConfig) -> Encoder:
    """Return the encoder that a config names: a preset, a vision model, or that of a reward model.

    Raises:
        ConfigError: none of these, or a reward model without a single encoder.
    """
    from embodied_reward.rewards import load, pretrained_folder, registry

    try:
        folder = pretrained_folder(Path(config.name))
    except CheckpointError:
        return build_encoder(config, HEAD)
    if json.loads((folder / "config.json").read_text()).get("type") not in registry():
        return build_encoder(config, HEAD)
    network = getattr(load(folder), "network", None)
    encoder = getattr(network, "encoder", None)
    if encoder is None:
        raise ConfigError(
            f"the reward model '{config.name}' has no encoder of its own to take over; give a "
            "single model such as dopamine, tcc or remaining_time"
        )
    return encoder.base if isinstance(encoder, DepthEncoder) else encoder


def _places(depth: Tensor, grid: int) -> Tensor:
    """Return Tensor["n k"]: a map Tensor["n c h w"] averaged over its places."""
    if depth.ndim == 2:
        return depth
    height, width = depth.shape[-2:]
    return F.adaptive_avg_pool2d(depth, (min(grid, height), min(grid, width))).flatten(1)


@torch.no_grad()
def _fitting_grid(base: Encoder, grid: int) -> tuple[int, int]:
    """Return the largest grid with no more than `MOST` features, and their number."""
    parameter = next(base.parameters())
    depths = base.depths(parameter.new_zeros(1, 3, base.image_size, base.image_size))
    for side in range(grid, 0, -1):
        total = sum(_places(depth, side).shape[1] for depth in depths)
        if total <= MOST:
            break
    return side, total
