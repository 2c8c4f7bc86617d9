"""The simulated arm as a LeRobot robot."""

import numpy as np
from lerobot.robots.robot import Robot

from embodied_reward.errors import EnvError
from embodied_reward.types import Float64

from .cameras import SimCamera, Studio
from .config_er_sim_arm import ErSimArmConfig
from .faults import ActiveFaults
from .scene import MOTORS, TASKS, VIEWS
from .world import Snapshot, World


class ErSimArm(Robot):
    """An arm of the SO-101's class, a table, a thing on it and two cameras, in MuJoCo.

    Beside LeRobot's interface it offers what `guarded.py` uses where a robot has it: `now`,
    `observed_at`, `wait`, `reset_scene` and `inject`. Observations hold the motors
    (`shoulder_pan.pos`, ... in degrees, the gripper from 0 to 100), what a tracker sees of the
    task's things (`ball.x`, ... [m]), pictures, and `truth.progress` and `truth.success`, which
    only a simulator knows.
    """

    config_class = ErSimArmConfig
    name = "er_sim_arm"

    def __init__(self, config: ErSimArmConfig) -> None:
        super().__init__(config)
        self.config, faults = config, config.faults
        self.faults = ActiveFaults(faults.plan, faults.drop, faults.duplicate, faults.seed)
        self.world = World(
            config.task, self.faults, latency=faults.latency_s, realtime=config.realtime
        )
        self._studio = Studio(self.world, config.size, config.camera_fps, self.faults)
        self.cameras = {
            view: SimCamera(view, config.size, config.camera_fps, self._studio) for view in VIEWS
        }
        self._last: Snapshot | None = None

    @property
    def task_description(self) -> str:
        """The task in words."""
        return TASKS[self.config.task].words

    @property
    def observation_features(self) -> dict:
        """See LeRobot's `Robot`."""
        numbers = (*TASKS[self.config.task].numbers, "truth.progress", "truth.success")
        size = (self.config.size, self.config.size, 3)
        return {
            **self.action_features,
            **dict.fromkeys(numbers, float),
            **dict.fromkeys(VIEWS, size),
        }

    @property
    def action_features(self) -> dict:
        """See LeRobot's `Robot`."""
        return {f"{motor}.pos": float for motor in MOTORS}

    @property
    def is_connected(self) -> bool:
        """Whether the arm can be talked to."""
        return self._studio.open

    @property
    def is_calibrated(self) -> bool:
        """True: there is nothing to calibrate."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Switch arm and cameras on."""
        if self.is_connected:
            raise EnvError("the simulated arm is connected already")
        self.world.start()
        self._studio.connect()

    def calibrate(self) -> None:
        """There is nothing to calibrate."""

    def configure(self) -> None:
        """There is nothing to configure."""

    def get_observation(self) -> dict:
        """Return what arrived last. Raises TimeoutError where a camera gives nothing new."""
        self._check_connected()
        if self._last is None or not self.faults.lost():
            self._last = self.world.seen()
        seen = self._last
        motors = [np.nan if self.faults.hits("encoder_nan", m) else v for m, v in self._read(seen)]
        numbers = (*motors, *seen.numbers, *seen.truth)
        keys = [key for key, kind in self.observation_features.items() if kind is float]
        out = {key: float(v) for key, v in zip(keys, numbers, strict=True)}
        oldest = round(1000 * (self.config.camera_timeout_s + self.config.faults.latency_s))
        return {**out, **{v: self.cameras[v].read_latest(oldest) for v in VIEWS}}

    def send_action(self, action: dict) -> dict:
        """Set the motors' goals. Raises RuntimeError in a protective stop."""
        self._check_connected()
        if self.faults.hits("protective_stop"):
            raise RuntimeError("the controller is in a protective stop")
        self.world.command(np.array([action[key] for key in self.action_features]))
        return action

    def disconnect(self) -> None:
        """Switch arm and cameras off; safe to call twice."""
        self.world.close()
        self._studio.close()

    def now(self) -> float:
        """Return the arm's clock [s]."""
        return self.world.now()

    @property
    def observed_at(self) -> float:
        """When the encoders were read that the last observation holds [s]."""
        return self._last.time if self._last else self.world.now()

    def wait(self, seconds: float) -> None:
        """Let time pass; only here it does where the arm is not realtime."""
        self.world.wait(seconds)

    def reset_scene(self, seed: int) -> None:
        """Do what a person does at a reset: mend, put the arm home, place the things."""
        crashed = self._studio.process is not None and self._studio.process.poll() is not None
        self.world.reset(seed)
        if crashed:
            self._studio.close()
            self._studio.connect()

    def inject(self, name: str, target: str = "") -> None:
        """Let a fault begin; see `faults.FAULTS`."""
        self.faults.inject(name, target)

    def speed(self) -> float:
        """Return how fast the fastest joint turns right now [deg/s]."""
        return self.world.speed()

    def _read(self, seen: Snapshot) -> list[tuple[str, float]]:
        return list(zip(MOTORS, seen.motors, strict=True))

    def _check_connected(self) -> None:
        if not self.is_connected:
            raise EnvError("the simulated arm is not connected; call connect() first")


def pose(values: dict) -> Float64:
    """Return the motors' positions Float64["n"] of an observation or action."""
    return np.array([values[f"{motor}.pos"] for motor in MOTORS])
