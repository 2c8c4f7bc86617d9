"""What `--finetune.*` takes for the methods that learn from plans by the cloning loss."""

from dataclasses import dataclass, field

from embodied_reward.errors import ConfigError, did_you_mean

from .config import ChainAgentConfig, FinetuneConfig, TuningConfig

SIGNALS = ("return", "advantage", "progress")


@dataclass(frozen=True)
class PlanAgentConfig(ChainAgentConfig):
    """Collects plans; `clip_range` and `target_kl` are PPO's and not used."""

    batch_size: int = 64
    """plans per minibatch"""
    n_epochs: int = 20
    """minibatches per rollout, in passes over it"""
    actor_starts: int = 0
    """plans during which the network does not learn"""


@dataclass(frozen=True)
class PlanConfig(TuningConfig):
    """What methods share that keep plans and learn from what these were worth."""

    rl: PlanAgentConfig = field(default_factory=PlanAgentConfig)
    """how plans are collected and valued; its gamma is the discount per plan"""
    signal: str = "return"
    """what a plan was worth: return (TD(lambda)), advantage (GAE: without the value of the state)
    or progress (its own reward alone: under a potential mode, the progress that it made)"""
    buffer_size: int = 2048
    """newest plans that are learned from; a new potential drops all at once"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if self.signal not in SIGNALS:
            hint = did_you_mean(self.signal, SIGNALS)
            raise ConfigError(f"--finetune.signal={self.signal} is unknown; {hint}")
        if self.buffer_size < 2:
            raise ConfigError(f"--finetune.buffer_size must be >= 2, got {self.buffer_size}")


@FinetuneConfig.register_subclass("rwr")
@dataclass(frozen=True)
class RWRConfig(PlanConfig):
    """Reward-weighted regression: clone the own plans, the better ones more often."""

    temperature: float = 0.1
    """of the weights exp(R / temperature), in standard deviations of what is kept"""
    max_weight: float = 100.0
    """largest weight before they are normalised; an average plan weighs 1"""
    demo_fraction: float = 0.1
    """share of every minibatch that is demonstrations, where --dataset.root gives some"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        super().check()
        if not self.temperature > 0:
            raise ConfigError(f"--finetune.temperature must be positive, got {self.temperature}")
        if not self.max_weight >= 1:
            raise ConfigError(f"--finetune.max_weight must be at least 1, got {self.max_weight}")
        if not 0 <= self.demo_fraction < 1:
            raise ConfigError(
                f"--finetune.demo_fraction must be in [0, 1), got {self.demo_fraction}"
            )
