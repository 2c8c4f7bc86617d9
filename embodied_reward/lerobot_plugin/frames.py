"""Pictures of a LeRobot batch as the bytes that our models score."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from embodied_reward.data.schema import view_name
from embodied_reward.errors import DatasetError
from embodied_reward.types import UInt8

PREFIX = "observation.image"  # of `observation.image` and `observation.images.<camera>`


@dataclass(frozen=True)
class Pictures:
    """Pictures of a batch.

    Attributes:
        views: camera -> UInt8["b w h w 3"]; w is 1 where the batch has no window.
        window: whether it has one.
    """

    views: Mapping[str, UInt8]
    window: bool

    @property
    def shape(self) -> tuple[int, int]:
        """Batch size b and frames per sample w."""
        first = next(iter(self.views.values()))
        return first.shape[0], first.shape[1]

    def at(self, place: int) -> dict[str, UInt8]:
        """Return the frames at one place of the window, camera -> UInt8["b h w 3"]."""
        return {view: frames[:, place] for view, frames in self.views.items()}

    def flat(self) -> dict[str, UInt8]:
        """Return all frames, sample by sample, camera -> UInt8["b*w h w 3"]."""
        return {view: f.reshape(-1, *f.shape[2:]) for view, f in self.views.items()}


def read_pictures(batch: Mapping[str, Any], views: tuple[str, ...]) -> Pictures:
    """Take the pictures of `views` out of a batch.

    LeRobot gives float Tensor["b (w) 3 h w"] in [0, 1], or uint8 of that shape; values that came
    from bytes come back as the same bytes.

    Raises:
        DatasetError: none of the views is there, or a picture is of another shape or range.
    """
    found = {
        view_name(key): value
        for key, value in batch.items()
        if key.startswith(PREFIX) and isinstance(value, Tensor) and "_is_pad" not in key
    }
    chosen = {view: found[view] for view in views if view in found}
    if not chosen:
        raise DatasetError(
            f"the reward model needs the views {', '.join(views)}; the batch has "
            f"{', '.join(found) or 'no pictures'} (keys observation.images.<view>)"
        )
    dims = {value.ndim for value in chosen.values()}
    if len(dims) > 1 or not dims <= {4, 5}:
        raise DatasetError(
            "pictures of a batch must be [b 3 h w], or [b w 3 h w] with a window, got "
            + ", ".join(f"{view}: {list(value.shape)}" for view, value in chosen.items())
        )
    window = dims == {5}
    return Pictures(
        {v: _bytes(v, x if window else x.unsqueeze(1)) for v, x in chosen.items()}, window
    )


def _bytes(view: str, images: Tensor) -> UInt8:
    if images.shape[2] != 3:
        raise DatasetError(
            f"'{view}' must hold channels first, [b (w) 3 h w], got {list(images.shape)}"
        )
    if images.dtype != torch.uint8:
        low, high = images.amin().item(), images.amax().item()
        # Written so that NaN fails as well. Resizing may overshoot a little.
        if not (low >= -0.1 and high <= 1.1):
            raise DatasetError(
                f"'{view}' must be in [0, 1], it is in [{low:.3g}, {high:.3g}]: give the pictures "
                "before normalisation"
            )
        images = (images.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return images.permute(0, 1, 3, 4, 2).contiguous().cpu().numpy()
