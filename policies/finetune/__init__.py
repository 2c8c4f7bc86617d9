"""Reinforcement learning on top of a diffusion policy."""

# Registers the configurations that stand in modules of their own.
from . import options as options
from . import plan_options as plan_options
