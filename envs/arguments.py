"""Checks of what callers hand to environments: one sentence each, before anything is built."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Float32


def checked_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) [px]. Raises EnvError outside 8 to 2048."""
    height, width = (size, size) if isinstance(size, int) else size
    if not (8 <= height <= 2048 and 8 <= width <= 2048):
        raise EnvError(f"size must be 8 to 2048 pixels a side, got {size}")
    return height, width


def check_at_least_one(**counts: int) -> None:
    """Raise EnvError for the first named count below 1."""
    for name, count in counts.items():
        if count < 1:
            raise EnvError(f"{name} must be at least 1, got {count}")


def checked_views(views: Sequence[str], model: Any, env_id: str) -> tuple[str, ...]:
    """Return `views` as a tuple; raises EnvError listing the cameras of an `mujoco.MjModel`."""
    known = [model.camera(i).name for i in range(model.ncam)]
    views = (views,) if isinstance(views, str) else tuple(views)
    for view in views:
        if view not in known:
            raise EnvError(f"'{env_id}' has no view '{view}'; its cameras: {known}")
    if not views or len(set(views)) != len(views):
        raise EnvError(f"views must be one or more different cameras of {known}, got {views}")
    return views


def checked_action(action: Any, env_id: str, step: int, *, count: int = 4) -> Float32:
    """Return Float32[count] clipped to [-1, 1]. Raises EnvError for a wrong shape, NaN or inf."""
    action = np.asarray(action, np.float32)
    if action.shape != (count,) or not np.isfinite(action).all():
        raise EnvError(
            f"'{env_id}' step {step} needs an action of {count} finite numbers, got {action}"
        )
    return np.clip(action, -1.0, 1.0)
