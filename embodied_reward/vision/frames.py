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
