"""Configuration of the `dopamine` process reward."""

from dataclasses import dataclass, field

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.fusion import MODES, Gate
from embodied_reward.math.pairs import PairSampler
from embodied_reward.rewards.base import RewardModelConfig
from embodied_reward.vision.encoders import EncoderConfig

SUBTASKS = ("auto", "annotated", "discovered", "none")


@RewardModelConfig.register_subclass("dopamine")
@dataclass(frozen=True)
class DopamineConfig(RewardModelConfig):
    """Configuration of the `dopamine` process reward."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    dim: int = 128
    """size of a frame's embedding"""
    hidden: int = 256
    """width of the hop and success heads"""
    bins: int = 41
    """bins of the hop distribution over [-1, 1]"""
    inference: str = "anchored"
    """potential to report: anchored, weighted, mean, median, variance, gated, forward, backward
    or incremental"""
    gate_alpha: float = 20.0
    """sharpness of the consistency gate (inference=gated)"""
    gate_floor: float = 0.5
    """floor of the gate's denominator"""
    chunk: int = 0
    """frames per state C; 0 cuts the median demonstration into 24 states"""
    pairs: int = 300
    """pairs per episode and batch, balanced over the hop and gap bins"""
    hop_bins: int = 25
    """hop bins of the stratified sampler"""
    gap_bins: int = 4
    """temporal-distance bins inside each hop bin"""
    zero_ratio: float = 0.05
    """share of pairs with label exactly 0"""
    reference_swap: float = 0.75
    """chance that a pair sees another episode's start and goal"""
    references: int = 4
    """demonstrations per task whose start and goal frames the checkpoint keeps"""
    subtasks: str = "auto"
    """sub-tasks: auto (annotated, else discovered), annotated, discovered or none"""
    n_subtasks: int = 0
    """steps to discover; 0 chooses, one for a motion without steps"""
    heads: int = 1
    """hop heads on one trunk, each trained on its own bootstrap of the demonstrations"""
    mismatch: float = 0.1
    """share of pairs that see another task's start and goal, where the data has several tasks"""
    reverse: float = 0.0
    """share of pairs that see start and goal exchanged, with the labels of the way back; makes a
    model of several tasks read the task from its references"""
    failure_margin: float = 0.1
    """a failed episode's progress is taught to stay below 1 by this much"""
    failure_weight: float = 0.5
    """weight of that"""
    view_dropout: float = 0.3
    """chance that a view is replaced by its token in training, for a frame or a whole episode"""
    context_dropout: float = 0.1
    """chance that a reference is replaced by its token in training"""
    shift: int = 3
    """largest random image shift in training [px]"""
    jitter: float = 0.2
    """strength of the colour jitter in training"""
    erase: float = 0.3
    """largest side of the rectangle painted over each image, as a share of the image's side"""
    success_weight: float = 1.0
    """weight of the success head's loss"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        if self.inference not in MODES:
            raise ConfigError(
                f"unknown --reward_model.inference={self.inference}; "
                f"{did_you_mean(self.inference, MODES)}"
            )
        if self.subtasks not in SUBTASKS:
            raise ConfigError(
                f"unknown --reward_model.subtasks={self.subtasks}; "
                f"{did_you_mean(self.subtasks, SUBTASKS)}"
            )
        if self.heads < 1 or self.n_subtasks < 0:
            raise ConfigError("need reward_model.heads >= 1 and n_subtasks >= 0")
        if self.bins < 3 or self.pairs < 2 or self.references < 1:
            raise ConfigError("need reward_model.bins >= 3, pairs >= 2 and references >= 1")

    def gate(self) -> Gate:
        """Return the consistency gate that these fields describe."""
        return Gate(self.gate_alpha, self.gate_floor)

    def sampler(self) -> PairSampler:
        """Return the stratified sampler that these fields describe."""
        return PairSampler(self.pairs, self.hop_bins, self.gap_bins, self.zero_ratio)
