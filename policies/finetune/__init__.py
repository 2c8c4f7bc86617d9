"""Reinforcement learning on top of a frozen diffusion policy."""
