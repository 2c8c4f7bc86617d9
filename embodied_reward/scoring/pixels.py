"""A `transformers` image processor's resize, crop and normalisation, on device and differentiable.

The processor's own constants are used; its code is not, because it works image by image.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from embodied_reward.errors import ConfigError

# Pillow's numbers of the filters.
FILTERS = {
    0: InterpolationMode.NEAREST_EXACT,
    2: InterpolationMode.BILINEAR,
    3: InterpolationMode.BICUBIC,
}


@dataclass(frozen=True)
class PixelPipeline:
    """Resize, crop in the middle, scale, normalise.

    Attributes:
        shortest: side that the shorter edge is resized to [px], or None.
        size: (height, width) of the resize where `shortest` is None, or None for no resize.
        crop: (height, width) of the crop in the middle, or None.
        resample: Pillow's number of the filter: 0 nearest, 2 bilinear, 3 bicubic.
        scale: factor on bytes 0..255.
        mean: per channel, after scaling.
        std: per channel, after scaling.
        antialias: low-pass before shrinking, as Pillow does; False exists for comparison.
    """

    shortest: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: int
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    antialias: bool = True

    @classmethod
    def of(cls, processor: Any) -> "PixelPipeline":
        """Take the constants of a `transformers` image processor.

        Raises:
            ConfigError: it resizes in a way that is not supported here.
        """
        shortest, size = _resize_of(processor)
        resample = int(getattr(processor, "resample", 2) or 0)
        if resample not in FILTERS:
            raise ConfigError(
                f"{type(processor).__name__} resizes with Pillow's filter {resample}; "
                f"supported: {', '.join(map(str, FILTERS))} (nearest, bilinear, bicubic)"
            )
        cropped = getattr(processor, "do_center_crop", False) and processor.crop_size
        normal = bool(processor.do_normalize)
        return cls(
            shortest=shortest,
            size=size,
            crop=(cropped["height"], cropped["width"]) if cropped else None,
            resample=resample,
            scale=float(processor.rescale_factor) if processor.do_rescale else 1.0,
            mean=tuple(map(float, processor.image_mean)) if normal else (0.0,) * 3,
            std=tuple(map(float, processor.image_std)) if normal else (1.0,) * 3,
        )

    def resized(self, images: Tensor) -> Tensor:
        """Resize and crop Tensor["n 3 h w"]; uint8 stays uint8, floats stay differentiable."""
        size = self._resized_to(*images.shape[-2:])
        if size is not None and images.shape[-2:] != size:
            how = FILTERS[self.resample]
            images = F.resize(images, list(size), interpolation=how, antialias=self.antialias)
            if self.resample == 3 and images.is_floating_point():
                images = images.clamp(0, 1)  # cubic filters overshoot; bytes saturate by themselves
        return images if self.crop is None else _crop(images, *self.crop)

    def back(self, maps: Tensor, height: int, width: int) -> Tensor:
        """Lay maps of the model's input over the picture that it was made of.

        Args:
            maps: Tensor["n H W"], one value per pixel that the model saw.
            height: of the picture [px].
            width: of the picture [px].

        Returns:
            Tensor["n height width"]; 0 where the crop cut off.
        """
        h, w = self._resized_to(height, width) or (height, width)
        if self.crop is not None:
            # Towards zero, as padding rounds; where there is more than the crop it is the floor.
            top, left = (int((a - b) / 2) for a, b in zip((h, w), self.crop, strict=True))
            below, right = h - self.crop[0] - top, w - self.crop[1] - left
            # Negative where the input was padded: that is cut away again.
            maps = torch.nn.functional.pad(maps, [left, right, top, below])
        return torch.nn.functional.interpolate(
            maps[:, None], (height, width), mode="bilinear", align_corners=False
        )[:, 0]

    def _resized_to(self, h: int, w: int) -> tuple[int, int] | None:
        if self.shortest is None:
            return self.size
        longer = int(self.shortest * max(h, w) / min(h, w))
        return (longer, self.shortest) if h > w else (self.shortest, longer)

    def __call__(self, frames: Tensor) -> Tensor:
        """Return the model's input.

        Args:
            frames: uint8 Tensor["n h w 3"], or float Tensor["n 3 h w"] in [0, 1], which keeps its
                dtype and its graph.

        Returns:
            Tensor["n 3 H W"], float32 for bytes.
        """
        if frames.is_floating_point():
            scaled = self.resized(frames) * (255.0 * self.scale)
        else:
            scaled = self.resized(frames.movedim(-1, -3)).to(torch.float32) * self.scale
        mean, std = (_channels(c, scaled.dtype, scaled.device) for c in (self.mean, self.std))
        return (scaled - mean) / std


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return Tensor["c 1 1"], made once: a copy from the host waits for the device."""
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)[:, None, None]


def _resize_of(processor: Any) -> tuple[int | None, tuple[int, int] | None]:
    if not processor.do_resize:
        return None, None
    size = {k: v for k, v in dict(processor.size).items() if v is not None}
    if set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"]), None
    if set(size) == {"height", "width"}:
        return None, (int(size["height"]), int(size["width"]))
    raise ConfigError(
        f"{type(processor).__name__} resizes to {size}; supported: shortest_edge, or height and "
        "width"
    )


def _crop(images: Tensor, height: int, width: int) -> Tensor:
    h, w = images.shape[-2:]
    if h < height or w < width:
        down, right = max(height - h, 0), max(width - w, 0)
        images = F.pad(images, [right // 2, down // 2, (right + 1) // 2, (down + 1) // 2])
        h, w = images.shape[-2:]
    top, left = (h - height) // 2, (w - width) // 2
    return images[..., top : top + height, left : left + width]
