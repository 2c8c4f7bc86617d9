"""Episodes decoded once, at the size the model sees, as bytes."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.types import Episode
from embodied_reward.vision.preprocess import resize_frames


def episode_frames(episode: Episode, views: Sequence[str], size: int) -> Tensor:
    """Decode one episode to uint8 Tensor["t v size size 3"].

    Raises:
        DatasetError: the episode lacks one of the views.
    """
    missing = [view for view in views if view not in episode.views]
    if missing:
        raise DatasetError(
            f"{episode.source} has no view '{missing[0]}'; it has {', '.join(episode.views)}"
        )
    # A copy: decoded arrays may be read-only, which torch cannot express.
    per_view = [resize_frames(torch.from_numpy(np.array(episode.views[v])), size) for v in views]
    return torch.stack(per_view, dim=1)


def decode_all(episodes: Iterable[Episode], views: Sequence[str], size: int) -> list[Tensor]:
    """Decode every episode; memory is t * v * size^2 * 3 bytes each."""
    return [episode_frames(episode, views, size) for episode in episodes]


DARK = 12
"""No pixel above this, of 255: the lens is covered or the picture is empty."""

FLAT = 4
"""All pixels within this: the camera delivers one colour."""


def masked_frames(episode: Episode, views: Sequence[str], size: int) -> tuple[Tensor, Tensor]:
    """Decode one episode; a camera that is missing, black or flat is masked.

    Returns:
        Frames uint8 Tensor["t v size size 3"], black where missing, and bool Tensor["t v"],
        which camera shows something.

    Raises:
        DatasetError: the episode has none of the views.
    """
    given = [view for view in views if view in episode.views]
    if not given:
        raise DatasetError(
            f"{episode.source} has none of the views {', '.join(views)}; "
            f"it has {', '.join(episode.views) or 'none'}"
        )
    frames = torch.zeros(len(episode), len(views), size, size, 3, dtype=torch.uint8)
    for k, view in enumerate(views):
        if view in episode.views:
            frames[:, k] = resize_frames(torch.from_numpy(np.array(episode.views[view])), size)
    return frames, shows_something(frames)


def shows_something(frames: Tensor) -> Tensor:
    """Return bool Tensor["..."]: False for black or flat pictures, uint8 Tensor["... h w 3"]."""
    brightest = frames.amax(dim=(-3, -2, -1)).int()
    darkest = frames.amin(dim=(-3, -2, -1)).int()
    return (brightest > DARK) & (brightest - darkest > FLAT)
