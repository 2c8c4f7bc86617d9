"""What `--decorrelation.*` takes; free of torch, so that commands start quickly."""

from dataclasses import dataclass

from embodied_reward.errors import ConfigError, did_you_mean

TYPES = ("none", "sgfd", "stablenet")


@dataclass(frozen=True)
class DecorrelationConfig:
    """Sample weights against spurious features; see `training/decorrelation.py`."""

    type: str = "none"
    """none, sgfd (features that tell the training variants apart, against the rest) or stablenet
    (all pairs of features)"""
    frequencies: int = 5
    """random Fourier frequencies per feature, drawn anew at every inner step"""
    steps: int = 10
    """inner steps of Adam on the weights, per batch"""
    lr: float = 0.1
    """learning rate of the weights"""
    min_ess: float = 0.3
    """floor of the effective sample size, as a share of the batch"""
    memory: int = 1024
    """earlier samples that are kept with their weights and decorrelated together with the batch"""
    columns: int = 32
    """features of each side that an inner step looks at; bounds the work"""
    salient: float = 0.0
    """share of the features that count as salient, those of the largest saliency (sgfd); 0 takes
    all above the mean saliency"""
    classifier_steps: int = 5
    """steps per batch of the classifier that tells the variants apart (sgfd)"""
    warmup: int = 50
    """batches with uniform weights at the start: features of an untrained encoder mean nothing"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        if self.type not in TYPES:
            raise ConfigError(
                f"unknown --decorrelation.type={self.type}; {did_you_mean(self.type, TYPES)}"
            )
        if not 0 <= self.min_ess <= 1:
            raise ConfigError(f"--decorrelation.min_ess={self.min_ess}: need 0 <= min_ess <= 1")
        if not 0 <= self.salient < 1:
            raise ConfigError(f"--decorrelation.salient={self.salient}: need 0 <= salient < 1")
        least = {"frequencies": 1, "steps": 1, "memory": 0, "columns": 2, "classifier_steps": 1}
        for name, low in (least | {"warmup": 0}).items():
            if getattr(self, name) < low:
                raise ConfigError(f"--decorrelation.{name} must be at least {low}")
        if self.lr <= 0:
            raise ConfigError(f"--decorrelation.lr must be positive, got {self.lr}")

    @property
    def on(self) -> bool:
        """Whether samples are weighed at all."""
        return self.type != "none"
