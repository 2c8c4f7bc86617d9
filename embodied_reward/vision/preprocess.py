"""From uint8 frames to the encoder's input, on whatever device the frames are."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def to_input(frames: Tensor, size: int) -> Tensor:
    """Resize to a square and scale to [0, 1].

    Args:
        frames: uint8 Tensor["n h w 3"], upright RGB; or float Tensor["n 3 h w"] in [0, 1], which
            stays differentiable and keeps its dtype.
        size: side of the output [px]; the whole image is kept, its aspect ratio is not.

    Returns:
        float32 Tensor["n 3 size size"] in [0, 1], antialiased.
    """
    if frames.is_floating_point():
        same = frames.shape[-2:] == (size, size)
        return frames if same else F.resize(frames, [size, size], antialias=True)
    images = frames.movedim(-1, -3)
    if images.shape[-2:] != (size, size):
        images = F.resize(images, [size, size], antialias=True)
    return images.to(torch.float32) / 255.0


def resize_frames(frames: Tensor, size: int) -> Tensor:
    """Return uint8 Tensor["n size size 3"]: what `to_input` would see, still in bytes."""
    if frames.shape[1:3] == (size, size):
        return frames
    return F.resize(frames.movedim(-1, -3), [size, size], antialias=True).movedim(-3, -1)
