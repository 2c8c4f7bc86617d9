r"""Attention x gradient for vision transformers.

With A_l the attention weights of layer l (heads h, tokens t) and s the score,

    Abar_l = mean_h |ds/dA_l * A_l|             R <- R + Abar_l R,   R = I before the first layer

and a token's relevance is its entry in the rows of R that the score is read from (Chefer, Gur,
Wolf: "Generic Attention-model Explainability", ICCV 2021, arXiv:2103.15679, equations 5 and 6).

Deviations. The paper keeps the positive part, evidence for a class; a frame without progress is
all evidence against, and looking at that is looking too, so sizes count here. How the score reads
the last layer's tokens x differs between models (a class token, a mean, an attention pool), so
the rows are weighted by

    w_t = |x_t . ds/dx_t|,  divided by its sum.

Where a class token is read, w is 1 for it and 0 elsewhere: the published rule. Relevance of the
picture's patches alone becomes the map; class and register tokens have no place in it.
"""

import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.vision.saliency.layers import recording
from embodied_reward.vision.saliency.maps import LEAST, SaliencyMaps, exact, shares, upsample
from embodied_reward.vision.saliency.target import Target, gradients
from embodied_reward.vision.saliency.transformer import (
    attention_weights,
    eager_attention,
    patch_grid,
    transformer_of,
)


def attention_gradient(target: Target) -> SaliencyMaps:
    """Return maps at the pictures' size.

    Raises:
        ConfigError: the encoder is no vision transformer, or hides its attention.
    """
    model, grid = transformer_of(target.network), patch_grid(target.network, target.images)
    if model is None or grid is None:
        raise ConfigError(
            f"--saliency=attention is for vision transformers and the encoder is a "
            f"{type(target.network).__name__}; take normgrad or lrp"
        )
    with (
        torch.enable_grad(),
        eager_attention(model),
        attention_weights(model) as weights,
        recording({"tokens": last_layer(model)}) as found,
    ):
        total = target.total()
        if not weights or "tokens" not in found:
            raise ConfigError(
                f"{type(model).__name__} shows no attention weights; take --saliency=normgrad"
            )
        tokens = found["tokens"]
        *of_weights, of_tokens = gradients(total, [*weights, tokens])
    relevance = rollout(weights, of_weights, readout(tokens, of_tokens))
    patches = relevance[:, relevance.shape[1] - grid[0] * grid[1] :].unflatten(1, grid)
    height, width = target.images.shape[-2:]
    return shares(upsample(patches, (height, width)))


def rollout(weights: list[Tensor], grads: list[Tensor], rows: Tensor) -> Tensor:
    """Return each token's relevance to a score.

    Args:
        weights: per layer, first layer first, Tensor["n heads t t"].
        grads: of the score in them.
        rows: Tensor["n t"], how much the score reads of every token of the last layer.

    Returns:
        Tensor["n t"], not negative.
    """
    read = exact(rows)
    for weight, grad in zip(reversed(weights), reversed(grads), strict=True):
        fused = (exact(weight) * exact(grad)).abs().mean(1)
        # rows (I + Abar_L) ... (I + Abar_1), from the left.
        read = read + torch.einsum("nt,nts->ns", read, fused)
    return read


def readout(tokens: Tensor, grads: Tensor) -> Tensor:
    """Return the weights w of the module docstring, Tensor["n t"]; zero where all are blind."""
    strength = (exact(tokens) * exact(grads)).sum(-1).abs()
    total = strength.sum(1, keepdim=True)
    return torch.where(total <= LEAST, 0.0, strength / total)


def last_layer(model: torch.nn.Module) -> torch.nn.Module:
    """Return the last transformer block. Raises ConfigError where there is no list of them."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m)]
    if not lists:
        raise ConfigError(f"{type(model).__name__} has no list of layers; take --saliency=normgrad")
    return max(lists, key=len)[-1]
