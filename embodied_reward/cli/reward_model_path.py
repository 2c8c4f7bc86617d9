"""`--reward_model.path`, for verbs that take a trained model as it is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class RewardModelPath:
    """Which trained reward model."""

    path: str | None = None
    """run folder, checkpoint or pretrained_model folder"""
