"""Training-time image augmentation.

Random shift (DrQ, arXiv:2004.13649), colour jitter and random erasing (arXiv:1708.04896).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(
    images: Tensor, generator: torch.Generator, *, shift: int, jitter: float, erase: float
) -> Tensor:
    """Shift, jitter and erase float Tensor["n 3 h w"] in [0, 1]; see each for its strength."""
    images = random_shift(images, shift, generator)
    images = colour_jitter(images, jitter, generator)
    return random_erase(images, erase, generator)


def random_shift(images: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Shift every image by up to `pad` pixels in both directions, edges replicated.

    Args:
        images: float Tensor["n 3 h w"].
        pad: largest shift [px]; 0 returns the input.
        generator: source of randomness, on the CPU.
    """
    if pad == 0:
        return images
    n, _, h, w = images.shape
    padded = F.pad(images, (pad, pad, pad, pad), mode="replicate")
    offset = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator).to(images.device)
    rows = offset[0] + torch.arange(h, device=images.device)
    columns = offset[1] + torch.arange(w, device=images.device)
    batch = torch.arange(n, device=images.device)[:, None, None]
    # Advanced indices around a slice come first: [n h w 3].
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def colour_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Scale brightness, contrast and each colour channel by random factors near 1.

    Args:
        images: float Tensor["n 3 h w"] in [0, 1].
        strength: factors are uniform in [1 - strength, 1 + strength]; 0 returns the input.
        generator: source of randomness, on the CPU.
    """
    if strength == 0:
        return images
    n = len(images)
    draw = torch.rand(n, 5, 1, 1, generator=generator).to(images.device) * 2 - 1
    factor = 1 + strength * draw
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    contrasted = (images - mean) * factor[:, :1] + mean * factor[:, 1:2]
    return (contrasted * (1 + 0.5 * strength * draw[:, 2:])).clamp(0, 1)


def random_erase(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Paint one rectangle of a random flat colour over every image.

    Args:
        images: float Tensor["n 3 h w"] in [0, 1].
        share: largest side of the rectangle as a share of the image's; 0 returns the input.
        generator: source of randomness, on the CPU.
    """
    if share == 0:
        return images
    n, _, h, w = images.shape
    draw = torch.rand(n, 7, generator=generator).to(images.device)
    spans = []
    for axis, side in enumerate((h, w)):
        size = draw[:, axis] * share * side
        first = draw[:, 2 + axis] * (side - size)
        at = torch.arange(side, device=images.device)
        spans.append((at >= first[:, None]) & (at < (first + size)[:, None]))
    inside = spans[0][:, None, :, None] & spans[1][:, None, None, :]
    return torch.where(inside, draw[:, 4:, None, None], images)
