r"""How much of a model's saliency lies on what matters, beside how much of the picture that is.

For maps m_t (sum 1 per frame) and masks M_t, over the frames that have a map,

    share = mean_t sum_{u in M_t} m_t(u)     area = mean_t |M_t| / pixels     ratio = share / area

A map without any preference has ratio 1 whatever the masks; the largest possible is 1 / area.
`edges` is what a filter of outlines gets, without any model.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from embodied_reward.types import Bool, UInt8
from embodied_reward.vision.saliency import SaliencyMaps
from embodied_reward.vision.saliency.maps import shares


@dataclass(frozen=True)
class Focus:
    """Where the saliency of some frames lies, see the module docstring.

    Attributes:
        share: in [0, 1]; NaN where no frame has a map.
        area: in [0, 1], of the same frames; NaN likewise.
        frames: with a map.
        blind: frames without one.
    """

    share: float
    area: float
    frames: int
    blind: int

    @property
    def ratio(self) -> float:
        """Share over area: 1 at chance; NaN where nothing is masked in, or no frame has a map."""
        return self.share / self.area if self.area > 0 else float("nan")

    def to_dict(self) -> dict[str, float]:
        """Return plain numbers."""
        return {**vars(self), "ratio": self.ratio}


def focus(maps: SaliencyMaps, mask: Bool) -> Focus:
    """Measure maps of t frames against masks Bool["t h w"] of the maps' size."""
    if mask.shape != maps.values.shape:
        raise ValueError(f"masks of {mask.shape} for maps of {maps.values.shape}")
    seen = int(maps.ok.sum())
    if not seen:
        return Focus(float("nan"), float("nan"), 0, len(maps))
    there = mask[maps.ok]
    share = float((maps.values[maps.ok] * there).sum((1, 2)).mean())
    return Focus(share, float(there.mean()), seen, len(maps) - seen)


def pooled(parts: Iterable[Focus]) -> Focus:
    """Join measurements of several episodes or views; every frame with a map weighs the same."""
    found = list(parts)
    frames, blind = sum(f.frames for f in found), sum(f.blind for f in found)
    if not frames:
        return Focus(float("nan"), float("nan"), 0, blind)
    seen = [f for f in found if f.frames]
    share, area = (
        sum(getattr(f, name) * f.frames for f in seen) / frames for name in ("share", "area")
    )
    return Focus(share, area, frames, blind)


def focus_on(maps: SaliencyMaps, labels: UInt8, groups: Mapping[str, tuple[int, ...]]) -> dict:
    """Measure maps on groups of labels UInt8["t h w"]: name -> `Focus`."""
    return {name: focus(maps, np.isin(labels, wanted)) for name, wanted in groups.items()}


def edges(frames: UInt8) -> SaliencyMaps:
    """Return the size of the brightness' gradient (Sobel), frames UInt8["t h w 3"]."""
    found = []
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float64)
        found.append(np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)))
    return shares(torch.from_numpy(np.stack(found)))
