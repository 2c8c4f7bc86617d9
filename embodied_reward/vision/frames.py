"""Pictures of several cameras, stacked at the size a model sees, as bytes; the one place for it.

A camera that is missing, black or flat is masked, in training and in inference alike.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.types import Episode, UInt8, blocks_of
from embodied_reward.vision.preprocess import resize_frames

DARK = 12
"""No pixel above this, of 255: the lens is covered or the picture is empty."""

FLAT = 4
"""All pixels within this: the camera delivers one colour."""


def stack_views(
    pictures: Mapping[str, UInt8], views: Sequence[str], size: int
) -> tuple[Tensor, Tensor]:
    """Stack pictures of n moments; a camera that is missing, black or flat is masked.

    Args:
        pictures: view -> UInt8["n h w 3"]; views that are not asked for are not looked at. Of
            `StreamedViews` a block is held at a time.
        views: cameras in the model's order; at least one is among `pictures`.
        size: side of the stacked pictures [px].

    Returns:
        uint8 Tensor["n v size size 3"], black where missing, and bool Tensor["n v"], which camera
        shows something.
    """
    given = [k for k, view in enumerate(views) if view in pictures]
    shown = [_reduced(pictures, views[k], size) for k in given]
    frames = shown[0].new_zeros((len(shown[0]), len(views), size, size, 3))
    for k, images in zip(given, shown, strict=True):
        frames[:, k] = images
    return frames, shows_something(frames)


def _reduced(pictures: Mapping[str, UInt8], view: str, size: int) -> Tensor:
    # A copy: decoded arrays may be read-only, which torch cannot express.
    blocks = (torch.from_numpy(np.array(block)) for block in blocks_of(pictures, view))
    return torch.cat([resize_frames(block, size) for block in blocks])


def pictures_at(episode: Episode, view: str, rows: Sequence[int]) -> UInt8:
    """Return some frames of a view, UInt8["n h w 3"], in the order of `rows`."""
    found: dict[int, UInt8] = {}
    first = 0
    for block in blocks_of(episode.views, view):
        found |= {r: block[r - first].copy() for r in rows if first <= r < first + len(block)}
        first += len(block)
    return np.stack([found[row] for row in rows])


def episode_frames(episode: Episode, views: Sequence[str], size: int) -> tuple[Tensor, Tensor]:
    """Decode one episode; returns what `stack_views` does.

    Raises:
        DatasetError: the episode has none of the views.
    """
    if not any(view in episode.views for view in views):
        raise DatasetError(
            f"{episode.source} has none of the views {', '.join(views)}; "
            f"it has {', '.join(episode.views) or 'none'}"
        )
    return stack_views(episode.views, views, size)


def decode_all(
    episodes: Iterable[Episode], views: Sequence[str], size: int
) -> list[tuple[Tensor, Tensor]]:
    """Decode every episode; memory is t * v * size^2 * 3 bytes each."""
    return [episode_frames(episode, views, size) for episode in episodes]


def shows_something(frames: Tensor) -> Tensor:
    """Return bool Tensor["..."]: False for black or flat pictures, uint8 Tensor["... h w 3"]."""
    brightest = frames.amax(dim=(-3, -2, -1)).int()
    darkest = frames.amin(dim=(-3, -2, -1)).int()
    return (brightest > DARK) & (brightest - darkest > FLAT)
