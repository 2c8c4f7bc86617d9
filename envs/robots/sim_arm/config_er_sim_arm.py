"""What `--robot.*` takes where `--robot.type=er_sim_arm`."""

from dataclasses import dataclass, field

from lerobot.robots.config import RobotConfig

from embodied_reward.errors import ConfigError, did_you_mean

from .faults import FAULTS, parse_plan
from .scene import TASKS


@dataclass(frozen=True)
class FaultsConfig:
    """What goes wrong with the arm, its wires and its cameras."""

    latency_s: float = 0.0
    """delay of every command, and of every observation [s]"""
    drop: float = 0.0
    """share of packets that are lost, either way"""
    duplicate: float = 0.0
    """share of commands that are delivered a second time, out of order"""
    plan: tuple[str, ...] = ()
    """faults at times [s] after connecting, e.g. encoder_nan@3,stuck_motor:elbow_flex@9;
    encoder_nan, stuck_motor, protective_stop, camera_freeze, camera_crash. A reset mends them"""
    seed: int = 0
    """decides which packets are lost"""

    def check(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        if not 0 <= self.latency_s <= 2:
            raise ConfigError(f"--robot.faults.latency_s must be in [0, 2], got {self.latency_s}")
        for name in ("drop", "duplicate"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"--robot.faults.{name} must be in [0, 1), got {getattr(self, name)}"
                )
        for _, name, _ in parse_plan(self.plan):
            if name not in FAULTS:
                raise ConfigError(f"unknown fault '{name}'; {did_you_mean(name, FAULTS)}")


@RobotConfig.register_subclass("er_sim_arm")
@dataclass(kw_only=True)
class ErSimArmConfig(RobotConfig):
    """The simulated arm."""

    task: str = "reach"
    """reach (touch the ball) or push (push the puck onto the mark)"""
    size: int = 64
    """height and width of its cameras' pictures [px]"""
    realtime: bool = True
    """run by the wall clock, as hardware does; false waits for every command, for fast training"""
    camera_fps: float = 30.0
    """pictures per second of both cameras, where realtime [Hz]"""
    camera_timeout_s: float = 0.5
    """reading a camera fails when its newest picture is older, where realtime [s]"""
    faults: FaultsConfig = field(default_factory=FaultsConfig)
    """what goes wrong"""

    def __post_init__(self) -> None:
        """Raise ConfigError for values that cannot be used."""
        if self.task not in TASKS:
            raise ConfigError(
                f"unknown --robot.task '{self.task}'; {did_you_mean(self.task, TASKS)}"
            )
        if not 16 <= self.size <= 1024:
            raise ConfigError(f"--robot.size must be 16 to 1024 pixels, got {self.size}")
        if not (self.camera_fps > 0 and self.camera_timeout_s > 0):
            raise ConfigError("--robot.camera_fps and --robot.camera_timeout_s must be positive")
        self.faults.check()
