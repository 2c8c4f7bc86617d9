"""LeRobot configurations of our reward models: `er_dopamine`, `er_success`, ...

A LeRobot checkpoint and one of `er train-reward` are one format: `config.json` holds our keys
(`type`, `task`, `config`, `encoder`, `weights_sha256`, ...) and, where LeRobot wrote it, LeRobot's
fields beside them. LeRobot finds a class for our `type` because each is registered twice, as
`er_dopamine` and, unless LeRobot has such a type itself, as `dopamine`.
"""

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, ClassVar

import draccus
from lerobot.configs.rewards import RewardModelConfig as LeRobotRewardModelConfig
from lerobot.optim import AdamWConfig, CosineDecayWithWarmupSchedulerConfig

from embodied_reward import config as configs
from embodied_reward.errors import ConfigError
from embodied_reward.rewards import (
    DopamineConfig,
    EnsembleConfig,
    GoalDistanceConfig,
    PerceptualConfig,
    RaplConfig,
    RemainingTimeConfig,
    RewardModelConfig,
    RlhfConfig,
    SuccessConfig,
    TccConfig,
)

FAR = 1_000_000
"""Rows; LeRobot clamps a window to its episode, so this far back is the episode's first frame."""

FIRST, NOW = 0, 1
"""Where the first and the current frame stand in a window."""


@dataclass
class ErConfig(LeRobotRewardModelConfig):
    """What all types share; each adds `config`, the settings of its method."""

    native: ClassVar[type[RewardModelConfig]]

    task: str = ""
    reference_tasks: list[str] = field(default_factory=list)
    encoder: dict[str, Any] = field(default_factory=dict)
    calibration: dict[str, Any] | None = None
    weights_sha256: str = ""
    # What `compute_reward` returns: potential or success.
    output: str = ""
    # Rows after the current one whose frames a training sample holds as well.
    pair_offsets: list[int] = field(default_factory=lambda: [2, 6])
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    grad_clip_norm: float = 1.0
    warmup_steps: int = 20

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        self.output = self.output or ("success" if self.native is SuccessConfig else "potential")
        if self.output not in ("potential", "success"):
            raise ConfigError(f"--reward_model.output={self.output}: take potential or success")
        if any(offset < 1 or offset >= FAR for offset in self.pair_offsets):
            raise ConfigError(f"--reward_model.pair_offsets={self.pair_offsets}: need rows >= 1")

    @property
    def observation_delta_indices(self) -> list[int]:
        """Return the window of a sample: first, current, some later frames, last."""
        return [-FAR, 0, *self.pair_offsets, FAR]

    def delta_timestamps(self, fps: float, keys: list[str]) -> dict[str, list[float]]:
        """Return what `LeRobotDataset(delta_timestamps=...)` needs for `compute_reward`.

        Args:
            fps: of the dataset [Hz].
            keys: image keys to load, such as `dataset.meta.camera_keys`.
        """
        return {key: [-FAR / fps, 0.0] for key in keys}

    def settings(self) -> RewardModelConfig:
        """Return the settings of the method as our own class. Raises ConfigError."""
        return configs.decode(self.native, draccus.encode(getattr(self, "config")))  # noqa: B009

    def get_optimizer_preset(self) -> AdamWConfig:
        """Return the optimiser that `er train-reward` uses."""
        return AdamWConfig(
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            grad_clip_norm=self.grad_clip_norm,
        )

    def get_scheduler_preset(self) -> CosineDecayWithWarmupSchedulerConfig:
        """Return warm-up and cosine decay; LeRobot shortens both to fit `--steps`."""
        return CosineDecayWithWarmupSchedulerConfig(
            num_warmup_steps=self.warmup_steps,
            num_decay_steps=1000,
            peak_lr=self.learning_rate,
            decay_lr=0.0,
        )


def _settings_type(kind: type) -> type:
    """Return a plain dataclass with the fields of `kind`, for LeRobot's parser.

    `kind` itself is one choice of our registry, of which LeRobot's parser would ask the type.
    """
    hints = typing.get_type_hints(kind)
    fields = [_field(f, hints[f.name]) for f in dataclasses.fields(kind)]
    name = kind.__name__.removesuffix("Config") + "Settings"
    return dataclasses.make_dataclass(name, fields, frozen=True, module=__name__)


def _field(original: dataclasses.Field, kind: Any) -> tuple[str, Any, Any]:
    if original.default is not dataclasses.MISSING:
        return original.name, kind, field(default=original.default)
    if isinstance(kind, type) and issubclass(kind, RewardModelConfig):
        # Another method's settings (a member of the ensemble): a tree, which `settings` decodes.
        return original.name, dict[str, Any], field(default_factory=dict)
    return original.name, kind, field(default_factory=original.default_factory)  # type: ignore[arg-type]


def _declare(method: str, kind: type[RewardModelConfig]) -> type[ErConfig]:
    """Make and register the LeRobot configuration of one of our methods."""
    settings: Any = _settings_type(kind)
    cls: Any = dataclasses.make_dataclass(
        "Er" + kind.__name__,
        [("config", settings, field(default_factory=settings))],
        bases=(ErConfig,),
        namespace={"native": kind, "__doc__": f"LeRobot configuration of our `{method}`."},
        module=__name__,
    )
    LeRobotRewardModelConfig.register_subclass(f"er_{method}", cls)
    if method not in LeRobotRewardModelConfig.get_known_choices():
        LeRobotRewardModelConfig.register_subclass(method, cls)
    return cls


# By the names that LeRobot's factories derive.
ErDopamineConfig = _declare("dopamine", DopamineConfig)
ErRemainingTimeConfig = _declare("remaining_time", RemainingTimeConfig)
ErSuccessConfig = _declare("success", SuccessConfig)
ErGoalDistanceConfig = _declare("goal_distance", GoalDistanceConfig)
ErTccConfig = _declare("tcc", TccConfig)
ErPerceptualConfig = _declare("perceptual", PerceptualConfig)
ErRlhfConfig = _declare("rlhf", RlhfConfig)
ErRaplConfig = _declare("rapl", RaplConfig)
ErEnsembleConfig = _declare("ensemble", EnsembleConfig)

CONFIGS: dict[str, type[ErConfig]] = {
    "dopamine": ErDopamineConfig,
    "remaining_time": ErRemainingTimeConfig,
    "success": ErSuccessConfig,
    "goal_distance": ErGoalDistanceConfig,
    "tcc": ErTccConfig,
    "perceptual": ErPerceptualConfig,
    "rlhf": ErRlhfConfig,
    "rapl": ErRaplConfig,
    "ensemble": ErEnsembleConfig,
}
