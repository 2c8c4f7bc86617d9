"""Configuration of the `success` detector."""

from dataclasses import dataclass, field

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.rewards.detector import check_rule
from embodied_reward.vision.encoders import EncoderConfig


@RewardModelConfig.register_subclass("success")
@dataclass(frozen=True)
class SuccessConfig(RewardModelConfig):
    """Configuration of the `success` detector."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    dim: int = 128
    """size of a frame's embedding"""
    hidden: int = 128
    """width of the classifier's head"""
    task: str = ""
    """task to detect, where the dataset holds several; the others' episodes are failures"""
    target_fpr: float = 0.01
    """share of failed episodes that may fire; the threshold is fitted to it"""
    persistence: int = 3
    """frames in a row that must reach the threshold"""
    frames: int = 24
    """frames per episode and batch"""
    view_dropout: float = 0.2
    """chance that a view of a frame is replaced by its token in training"""
    start_dropout: float = 0.2
    """chance that the episode's first frame is replaced by its token in training"""
    shift: int = 3
    """largest random image shift in training [px]"""
    jitter: float = 0.2
    """strength of the colour jitter in training"""
    erase: float = 0.2
    """largest side of the rectangle painted over each image, as a share of the image's side"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        check_rule(self.target_fpr, self.persistence)
        if self.frames < 3:
            raise ConfigError(f"--reward_model.frames must be at least 3, got {self.frames}")
