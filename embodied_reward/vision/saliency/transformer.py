"""The vision transformer inside an encoder: its patches, and its attention where it can be read."""

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from embodied_reward.errors import ConfigError


def transformer_of(network: nn.Module) -> Any | None:
    """Return the `transformers` vision model that a network is or wraps; None for others."""
    for module in (network, getattr(network, "model", None)):
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "patch_size"):
            return module
    return None


def patch_grid(network: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """Return how many patches fit into the pictures' height and width; None without patches."""
    model = transformer_of(network)
    if model is None:
        return None
    patch = model.config.patch_size
    high, wide = (patch, patch) if isinstance(patch, int) else patch
    return images.shape[-2] // high, images.shape[-1] // wide


@contextlib.contextmanager
def eager_attention(model: Any) -> Iterator[None]:
    """Let a model compute its attention in the one way that shows it; restored afterwards.

    Fused kernels (sdpa, flash) never hold the matrix of weights.

    Raises:
        ConfigError: the model cannot.
    """
    before = model.config._attn_implementation
    try:
        model.set_attn_implementation("eager")
    except (AttributeError, ValueError) as error:
        raise ConfigError(
            f"{type(model).__name__} cannot show its attention ({error}); take --saliency=normgrad"
        ) from error
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextlib.contextmanager
def attention_weights(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect every self-attention's weights Tensor["n heads t t"] in order, with their graph."""
    found: list[Tensor] = []

    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        for part in output[1:] if isinstance(output, tuple) else ():
            square = isinstance(part, Tensor) and part.ndim == 4 and part.shape[2] == part.shape[3]
            # A wrapper hands on what its inner module put out.
            if square and part.requires_grad and not any(part is known for known in found):
                found.append(part)

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
