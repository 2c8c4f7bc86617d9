"""One seed per run, spread to every source of randomness."""

import os
import random

import numpy as np
import torch


def seed_everything(seed: int) -> np.random.Generator:
    """Seed Python, NumPy and torch for third-party code; return our own Generator.

    Our code takes the Generator (or a torch.Generator) explicitly; libraries such as
    Stable-Baselines3 draw from the global ones.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    return np.random.default_rng(seed)


def set_threads(count: int) -> int:
    """Set torch's CPU threads; 0 picks 1 below four cores, where 2 measured slower."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chosen = count or (1 if (cores or 1) < 4 else min(8, (cores or 1) // 2))
    torch.set_num_threads(chosen)
    return chosen
