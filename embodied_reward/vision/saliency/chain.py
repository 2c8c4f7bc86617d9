"""A plain network as a chain of stages: an affine layer, perhaps a normalisation, perhaps a ReLU.

The statistics of GroupNorm and LayerNorm are taken as constants of the picture, so that a stage
without its ReLU is one affine map y = a * (W x) + b with `a` and `b` per picture and channel. For
BatchNorm in eval mode this is the usual merging; for the others it is what Ali et al. ("XAI for
Transformers", ICML 2022, arXiv:2202.07304) do with LayerNorm's deviation, here with its mean too.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.vision.encoders import PIXEL_RANGE, ConvEncoder
from embodied_reward.vision.saliency.maps import exact

Affine = nn.Conv2d | nn.Linear
Norm = nn.GroupNorm | nn.LayerNorm


@dataclass(frozen=True)
class Stage:
    """One affine layer with what follows it."""

    affine: Affine
    norm: Norm | None = None
    relu: bool = False
    flatten: bool = False  # pictures become vectors before the layer

    def linear(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return W x without bias, for the layer's own or other weights."""
        weight = exact(self.affine.weight) if weight is None else weight
        if isinstance(self.affine, nn.Linear):
            return F.linear(x, weight)
        layer = self.affine
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)  # type: ignore[arg-type]

    def scale_and_shift(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b of y = a z + b for z = W x, each broadcasting to z."""
        bias = self._per_channel(self.affine.bias, z, 0.0)
        if self.norm is None:
            return torch.ones_like(bias), bias
        mean, deviation = _statistics(self.norm, z + bias)
        a = self._per_channel(self.norm.weight, z, 1.0) / deviation
        return a, a * (bias - mean) + self._per_channel(self.norm.bias, z, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the stage's output."""
        z = self.linear(x)
        a, b = self.scale_and_shift(z)
        return (a * z + b).clamp(min=0) if self.relu else a * z + b

    @staticmethod
    def _per_channel(values: Tensor | None, like: Tensor, default: float) -> Tensor:
        shape = (1, -1, 1, 1) if like.ndim == 4 else (1, -1)
        if values is None:
            return like.new_full((1, like.shape[1], *[1] * (like.ndim - 2)), default)
        return exact(values).reshape(shape)


@dataclass(frozen=True)
class Chain:
    """Stages from the picture to the features, and the range that the first one sees."""

    stages: tuple[Stage, ...]
    low: float
    high: float

    def scaled(self, images: Tensor) -> Tensor:
        """Return pictures in [0, 1] as the first stage sees them."""
        return images * (self.high - self.low) + self.low


def chain_of(network: nn.Module) -> Chain:
    """Take a network apart.

    Raises:
        ConfigError: it holds anything but convolutions, linear layers, GroupNorm, LayerNorm,
            ReLU and flattening, one after the other.
    """
    if isinstance(network, ConvEncoder):
        low, high = PIXEL_RANGE
        return Chain(tuple(_stages([*network.body, *network.head])), low, high)
    if isinstance(network, nn.Sequential):
        return Chain(tuple(_stages(list(network))), 0.0, 1.0)
    raise ConfigError(
        "--saliency=lrp has rules for our convolutional encoders (conv64, conv112) and the "
        f"encoder is a {type(network).__name__}; take attention for a transformer, or normgrad"
    )


def _stages(modules: list[nn.Module]) -> Iterator[Stage]:
    current: Stage | None = None
    flatten = False
    for module in _flat(modules):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if current is not None:
                yield current
            current, flatten = Stage(module, flatten=flatten), False
        elif isinstance(module, nn.Flatten):
            flatten = True
        elif isinstance(module, nn.Identity):
            continue
        else:
            current = _extended(current, module)
    if current is not None:
        yield current


def _flat(modules: list[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if isinstance(module, nn.Sequential):
            yield from _flat(list(module))
        else:
            yield module


def _extended(stage: Stage | None, module: nn.Module) -> Stage:
    if stage is not None and not stage.relu:
        plain = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) == 1
        if stage.norm is None and (plain or isinstance(module, nn.GroupNorm)):
            return dataclasses.replace(stage, norm=module)  # type: ignore[arg-type]
        if isinstance(module, nn.ReLU):
            return dataclasses.replace(stage, relu=True)
    raise ConfigError(
        f"--saliency=lrp has no rule for {type(module).__name__} at this place; it knows "
        "Conv2d or Linear, then GroupNorm or LayerNorm, then ReLU; take --saliency=normgrad"
    )


def _statistics(norm: Norm, z: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each picture, per channel of z where it has groups."""
    if isinstance(norm, nn.LayerNorm):
        mean, variance = z.mean(-1, keepdim=True), z.var(-1, correction=0, keepdim=True)
        return mean, (variance + norm.eps).sqrt()
    grouped = z.unflatten(1, (norm.num_groups, -1)).flatten(2)
    mean, variance = grouped.mean(2), grouped.var(2, correction=0)
    shape = (len(z), z.shape[1], *[1] * (z.ndim - 2))
    each = z.shape[1] // norm.num_groups
    spread = [s.repeat_interleave(each, 1).reshape(shape) for s in (mean, variance)]
    return spread[0], (spread[1] + norm.eps).sqrt()
