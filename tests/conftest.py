"""Shared test settings."""

import os

# Before anything imports torch or MuJoCo: on two shared cores, two threads measured far slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
