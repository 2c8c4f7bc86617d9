r"""NormGrad: how much a location's features could change the score.

Put an identity 1 x 1 convolution W behind a layer with output x and let g = d score / d x. The
gradient of the score in the weights is sum_u g_u x_u^T over locations u, and location u's part of
it has the Frobenius norm

    m_u = ||g_u x_u^T||_F = ||x_u||_2 ||g_u||_2

(Rebuffi, Fong, Ji, Vedaldi: "There and Back Again: Revisiting Backpropagation Saliency Methods",
CVPR 2020, arXiv:2004.02866; virtual identity layer). Maps of several layers are resized to the
picture, divided by their sums and combined by their geometric mean (`product`) or their mean.

Deviations: the paper weights layers in the product by how their maps differ between classes; a
reward has no classes, so layers weigh the same, and each is normalised first. The layer itself is
always the virtual identity, never the network's own convolution with its larger window.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.vision.saliency.layers import as_plane, find_layers, recording, stages
from embodied_reward.vision.saliency.maps import LEAST, SaliencyMaps, exact, shares, upsample
from embodied_reward.vision.saliency.target import Target, gradients
from embodied_reward.vision.saliency.transformer import patch_grid

Combine = Literal["product", "mean"]


def normgrad(
    target: Target, layers: Sequence[str] = (), combine: Combine = "product"
) -> SaliencyMaps:
    """Return maps at the pictures' size.

    Args:
        target: what is explained.
        layers: names of the network's modules; none takes the last layer at each resolution, see
            `stages`.
        combine: of several layers, geometric mean or mean.

    Raises:
        ConfigError: no such layer, or one whose output lies nowhere in the picture.
    """
    names = tuple(layers) or stages(target.network, target.images)
    if not names:
        raise ConfigError(
            "the encoder has no layer with a picture plane, so normgrad has no map; name a layer "
            "of tokens with --saliency_layers, or take --saliency=attention for a transformer"
        )
    size, grid = tuple(target.images.shape[-2:]), patch_grid(target.network, target.images)
    modules = find_layers(target.network, names)
    with torch.enable_grad(), recording(modules) as found:
        total = target.total()
        _check_reached(names, found, total)
        names = [name for name in names if name in found]
        outputs = [found[name] for name in names]
        grads = gradients(total, outputs)
    if not outputs:
        return shares(target.images.new_zeros((len(target.images), *size)))
    planes = [
        (as_plane(name, x, grid), as_plane(name, g, grid))
        for name, x, g in zip(names, outputs, grads, strict=True)
    ]
    return shares(_combined([_scaled(location_norms(x, g), size) for x, g in planes], combine))


def location_norms(x: Tensor, g: Tensor) -> Tensor:
    """Return ||x_u|| ||g_u|| of features and gradients Tensor["n c h w"], Tensor["n h w"]."""
    return exact(x).norm(dim=1) * exact(g).norm(dim=1)


def _check_reached(names: Sequence[str], found: dict[str, Tensor], total: Tensor) -> None:
    missing = [name for name in names if name not in found]
    if missing and total.requires_grad:
        raise ConfigError(
            f"layer '{missing[0]}' is not run, or gives no single tensor, when the score is made"
        )


def _scaled(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    resized = upsample(maps, (size[0], size[1]))
    total = resized.sum((1, 2), keepdim=True)
    # Only what is blind is left out; what is not finite has to show.
    return torch.where(total <= LEAST, 0.0, resized / total)


def _combined(maps: list[Tensor], combine: Combine) -> Tensor:
    stacked = torch.stack(maps)
    if combine == "mean":
        return stacked.mean(0)
    return stacked.clamp(min=0).log().mean(0).exp()
