"""A guarded robot as an environment: what policies, trainers and recorders take any simulator for.

Actions are shares of each motor's velocity limit. What is sent is the nearest command that the
limits allow (`planner.py`), judged once more at the door (`safety.py`).
"""

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError, did_you_mean
from embodied_reward.types import Float32, Float64, UInt8

from ..arguments import check_at_least_one
from ..base import VisualEnv
from .arm import Arm, State
from .guarded import TRUTH, Reading
from .planner import plan

SUCCESS, PROGRESS = TRUTH + "success", TRUTH + "progress"
HOMING = 20.0  # longest way home [s]
_CLOSE = 0.35  # of a period's way at full speed: so near is home


class Crew(Protocol):
    """Who stands at the robot: a person, or what replaces one in an unattended run."""

    def prepare(self, arm: Arm, seed: int) -> None:
        """Bring scene and arm to where an episode begins. Raises EnvError if that fails."""
        ...

    def take(self, keys: str) -> None:
        """Take keys typed during an episode."""
        ...

    def begin(self) -> None:
        """Forget the labels of the episode before."""
        ...

    @property
    def label(self) -> bool | None:
        """Success or failure that a person has just seen; None while nobody said anything."""
        ...

    def intervene(self, reading: Reading) -> Float64 | None:
        """Return where the motors should go instead of where the policy wants; None lets it."""
        ...


class Station:
    """One arm and its crew, which several environments use in turn.

    Args:
        arm: guarded.
        crew: see `Crew`.
    """

    def __init__(self, arm: Arm, crew: Crew) -> None:
        self.arm, self.crew = arm, crew
        self.user: object | None = None


class ArmEnv(VisualEnv):
    """Episodes on a real or simulated arm.

    Observations: `agent_pos` are the measured motors in the robot's units, `environment_state`
    the other numbers that it observes, left out where there are none. Success is what the crew
    says or, in simulation, the truth. An episode is truncated at the horizon, when the crew says
    failure, and when the robot is held: `info["held"]` is the reason then.

    `info` also holds `intervention` and `executed_action`, the action that was in fact executed.

    Args:
        station: shared by all environments on this arm.
        robot_id: for the id, `robot/<robot_id>`.
        task: in words.
        views: cameras; none takes all.
        horizon: decisions per episode.
        seed: of the first reset.
        terminate_on_success: end an episode at its success.
        motors: those that an action moves, in the limits' order; the others stay where the home
            pose has them. None moves all.
    """

    def __init__(
        self,
        station: Station,
        robot_id: str,
        *,
        task: str,
        views: Sequence[str] = (),
        horizon: int = 100,
        seed: int | None = None,
        terminate_on_success: bool = True,
        motors: Sequence[str] = (),
    ) -> None:
        check_at_least_one(horizon=horizon)
        self._station, self.task, self.task_description = station, robot_id, task
        features, limits = station.arm.features, station.arm.limits
        for view in views:
            if view not in features.views:
                raise EnvError(f"no camera '{view}'; {did_you_mean(view, features.views)}")
        self.views = tuple(views) or tuple(features.views)
        self._max_episode_steps, self._terminates = horizon, terminate_on_success
        self._first_seed, self._steps, self._over = seed, 0, True
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": limits.rate}
        self.render_mode = "rgb_array"
        margin = limits.lead.astype(np.float32)
        low, high = limits.low.astype(np.float32), limits.high.astype(np.float32)
        spaces: dict[str, gym.Space] = {"agent_pos": gym.spaces.Box(low - margin, high + margin)}
        if features.numbers:
            spaces["environment_state"] = gym.spaces.Box(-np.inf, np.inf, (len(features.numbers),))
        self.observation_space = gym.spaces.Dict(spaces)
        for motor in motors:
            if motor not in limits.motors:
                raise EnvError(f"no motor '{motor}'; {did_you_mean(motor, limits.motors)}")
        self.motors = tuple(m for m in limits.motors if m in motors or not motors)
        self._moved = [limits.motors.index(m) for m in self.motors]
        self.action_space = gym.spaces.Box(-1.0, 1.0, (len(self.motors),), np.float32)
        self._state: State | None = None
        self._reading: Reading | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Let the crew prepare the next episode. Raises EnvError where the robot cannot begin."""
        super().reset(seed=self._first_seed if seed is None else seed)
        self._first_seed, self._steps, self._over = None, 0, False
        station, drawn = self._station, int(self.np_random.integers(2**31))
        station.user = self
        station.crew.prepare(station.arm, drawn)
        station.crew.begin()
        station.arm.tick()
        self._look()
        if self._state is None or self._state.held or self._reading is None:
            held = self._state.held if self._state else "no observation"
            raise EnvError(f"the episode cannot begin, the robot is held: {held}")
        return self._observation(), self._info(None, intervention=False)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move for one control period."""
        action = np.asarray(action, np.float64)
        if action.shape != self.action_space.shape or not np.isfinite(action).all():
            raise EnvError(
                f"the robot needs an action of {self.action_space.shape} finite numbers, "
                f"got {action}"
            )
        wish = self._known().sent.copy()
        wish[self._moved] += np.clip(action, -1, 1) * self._stride()[self._moved]
        return self.step_towards(wish)

    def step_towards(
        self, wish: Float64
    ) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Move towards motor positions Float64["n"] [unit] for one control period."""
        if self._steps == 0:
            # The learner may have thought for long: the arm rested, but what was seen is old.
            self._known()
            self._look()
        station, before = self._station, self._known()
        arm, reading = station.arm, self._known_reading()
        taken_over = station.crew.intervene(reading)
        target = before.sent.copy()
        target[self._moved] = (wish if taken_over is None else taken_over)[self._moved]
        if before.held is None and np.isfinite(target).all():
            goal = plan(target, arm.limits, sent=before.sent, velocity=before.velocity)
            arm.command(goal, reading.time)
        arm.tick()
        self._look()
        self._steps += 1
        executed = (self._known().sent - before.sent) / self._stride()
        info = self._info(executed[self._moved], intervention=taken_over is not None)
        done, label = info["is_success"], station.crew.label
        terminated = bool(done and self._terminates)
        stopped = self._steps >= self._max_episode_steps or label is False or "held" in info
        self._over = self._over or terminated or stopped
        if self._over:
            arm.rest()
        return self._observation(), float(done), terminated, stopped and not terminated, info

    def progress(self) -> float:
        """See the base class; only a simulated arm knows it."""
        values = self._known_reading().values
        if PROGRESS not in values:
            raise EnvError("a real robot has no true progress")
        return float(values[PROGRESS])

    def numbers(self) -> dict[str, float]:
        """Return the newest observation's numbers by name, without what only a simulator knows."""
        values = self._known_reading().values
        return {k: v for k, v in values.items() if not k.startswith(TRUTH)}

    def fingerprint(self) -> dict[str, Any]:
        """See the base class."""
        limits = self._station.arm.limits
        return {
            "id": f"robot/{self.task}",
            "views": list(self.views),
            "horizon": self._max_episode_steps,
            "rate": limits.rate,
            "motors": list(self.motors),
            "velocity": dict(zip(limits.motors, limits.velocity.tolist(), strict=True)),
            "terminate_on_success": self._terminates,
        }

    def _render_views(self) -> dict[str, UInt8]:
        frames = self._known_reading().frames
        return {view: np.asarray(frames[view]) for view in self.views}

    def _look(self) -> None:
        """Take the newest state; a reading that is not finite is not taken."""
        state = self._station.arm.observe()
        self._station.crew.take(state.keys)
        self._state, reading = state, state.reading
        if reading is not None and np.isfinite(list(reading.values.values())).all():
            self._reading = reading
        self._forget_frames()

    def _known(self) -> State:
        if self._state is None:
            raise EnvError("call reset() first")
        if self._station.user is not self:
            raise EnvError("another environment has used this arm since: call reset() first")
        return self._state

    def _known_reading(self) -> Reading:
        if self._reading is None:
            raise EnvError("call reset() first")
        return self._reading

    def _stride(self) -> Float64:
        limits = self._station.arm.limits
        return limits.velocity * limits.period

    def _observation(self) -> dict[str, Any]:
        values, features = self._known_reading().values, self._station.arm.features
        out = {"agent_pos": _vector(values, features.motors)}
        box = self.observation_space["agent_pos"]  # type: ignore[index]
        out["agent_pos"] = np.clip(out["agent_pos"], box.low, box.high)
        if features.numbers:
            out["environment_state"] = _vector(values, features.numbers)
        return out

    def _info(self, executed: Float64 | None, *, intervention: bool) -> dict[str, Any]:
        label, values = self._station.crew.label, self._known_reading().values
        success = values.get(SUCCESS, 0.0) > 0.5 if label is None else label
        info: dict[str, Any] = {"is_success": bool(success), "intervention": intervention}
        if executed is not None:
            info["executed_action"] = np.clip(executed, -1, 1).astype(np.float32)
        if self._state is not None and self._state.held:
            info["held"] = self._state.held
        return info


def go_home(arm: Arm) -> bool:
    """Bring the arm to the limits' home pose through the door; returns whether it arrived."""
    limits, state = arm.limits, arm.observe()
    near = _CLOSE * limits.velocity * limits.period
    for _ in range(round(HOMING * limits.rate)):
        if state.held or state.reading is None:
            return False
        measured = np.array([state.reading.values[m] for m in limits.motors])
        if (np.abs(measured - limits.home) <= near).all():
            arm.rest()
            return True
        goal = plan(limits.home, limits, sent=state.sent, velocity=state.velocity)
        arm.command(goal, state.reading.time)
        arm.tick()
        state = arm.observe()
    arm.rest()
    return False


def _vector(values: Any, names: Sequence[str]) -> Float32:
    return np.array([values[name] for name in names], np.float32)
