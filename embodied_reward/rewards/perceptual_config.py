"""Settings of `perceptual`."""

from dataclasses import dataclass, field

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.segmentation import OBJECTIVES
from embodied_reward.math.step_reward import ALPHA, KEPT
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.vision.encoders import EncoderConfig


@RewardModelConfig.register_subclass("perceptual")
@dataclass(frozen=True)
class PerceptualConfig(RewardModelConfig):
    """Configuration of `perceptual`."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """frozen; conv64 and conv112 get random weights, a run of `er train-reward` gives its own"""
    steps: int = 0
    """steps of the task, two at least; 0 chooses by how well held-out demonstrations are ordered"""
    most_steps: int = 6
    """largest number of steps that is tried"""
    shortest: int = 0
    """least frames per step; 0 takes 3, with objective=paper half of an even share"""
    objective: str = "variance"
    """what cuts minimise: variance (squared deviation within steps) or paper (mean deviation)"""
    features: int = KEPT
    """features per step and view"""
    alpha: float = ALPHA
    """weight of the distance between means when features are ranked"""
    least_spread: float = 0.5
    """floor of a feature's standard deviation within a step, as a share of that over all frames"""
    grid: int = 8
    """places per side at which each depth is read; fewer where there would be too many features"""
    frames: int = 200
    """frames per demonstration that are looked at, evenly spread"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"unknown --reward_model.objective={self.objective}; "
                f"{did_you_mean(self.objective, OBJECTIVES)}"
            )
        if self.steps == 1 or self.steps < 0:
            raise ConfigError(
                f"--reward_model.steps={self.steps}: a reward needs two steps at least, because "
                "the first one is where every episode starts; 0 chooses the number"
            )
        least = {"most_steps": 2, "shortest": 0, "features": 1, "grid": 1, "frames": 2}
        if self.least_spread <= 0:
            raise ConfigError(f"--reward_model.least_spread={self.least_spread}: need > 0")
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"--reward_model.{name}={getattr(self, name)}: need >= {low}")
