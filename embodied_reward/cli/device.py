"""Which device a command computes on."""

import torch

from embodied_reward.errors import ConfigError


def pick_device(name: str) -> str:
    """Turn `auto` into the best device that is there. Raises ConfigError for one that is not."""
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        there = ", ".join(d for d, ok in available.items() if ok)
        raise ConfigError(f"--device={name} is not available here; available: {there}")
    return name
