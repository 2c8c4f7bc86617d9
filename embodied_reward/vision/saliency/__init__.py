"""Where a network looks: NormGrad, attention x gradient and LRP, and maps by regions."""

from embodied_reward.vision.saliency.maps import SaliencyMaps
from embodied_reward.vision.saliency.methods import METHODS, SaliencyOptions, explain
from embodied_reward.vision.saliency.target import Target

__all__ = ["METHODS", "SaliencyMaps", "SaliencyOptions", "Target", "explain"]
