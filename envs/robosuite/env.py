"""The environment around a robosuite task: Gymnasium, cameras, seeds."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError, did_you_mean
from embodied_reward.types import Float32, Float64, UInt8

from ..arguments import checked_action, checked_views
from ..mujoco_env import MujocoEnv
from . import backend
from .progress import Progress
from .tasks import PARTS_OF, SUITE, TASKS

FPS = 20  # robosuite's default control rate [Hz]
REWARDS = ("success", "dense")
VIEWS = ("agentview", "robot0_eye_in_hand")
_HAND = ("eef_pos", "eef_quat", "gripper_qpos")
# Bounds of what hands report: places [m], quaternions, finger joints [m].
_HAND_BOUNDS = {"eef_pos": 3.0, "eef_quat": 1.0, "gripper_qpos": 0.1}
_BOUND = 10.0  # [m, rad]; what falls off the table is reported at the edge of the space


class RobosuiteEnv(MujocoEnv):
    """One robosuite task with the Panda arm (two for TwoArmPegInHole).

    Observation: `agent_pos` Float32["s"], per arm the hand's position [m] (3), its orientation as
    quaternion x, y, z, w with x >= 0 (4) and the finger joints [m] (2, where there are fingers);
    `environment_state` Float32["e"], robosuite's own sensors, listed in `TASKS[task].state`; with
    `pixels=True` also `pixels`. All are of the end of the step; robosuite's own are 2 ms older.
    Action: Float32 in [-1, 1], robosuite's own: per arm displacement of the hand (3, 5 cm per
    unit), rotation about the base's axes (3, 0.5 rad per unit; not with `control="position"`),
    fingers (1 where there are some, positive closes).

    Args:
        task: a name from `TASKS`.
        views: camera names, at least one.
        size: pixels, one number for squares or (height, width).
        seed: seeds the first reset, where that reset names no seed of its own.
        pixels: put the pictures into the observation.
        horizon: decisions until truncation.
        terminate_on_success: end the episode at the first success.
        action_repeat: robosuite steps per decision; the rate of decisions is 20 Hz over this.
            With `terminate_on_success` the repetition stops at success.
        quality: "fast" (no shadows, reflections, multisampling), "full", or "auto": fast
            exactly where GL renders in software.
        reward: "success" pays 1.0 on steps that end in success and 0.0 otherwise; "dense"
            pays robosuite's own shaped reward, averaged over the repeated steps.
        control: "pose" (robosuite's OSC_POSE) or "position" (OSC_POSITION: the hand keeps its
            orientation, three numbers less).
        render_mode: "rgb_array", which is also what None means; for `gymnasium.make`.

    Raises:
        EnvError: unknown task, view, quality, reward or control; a number out of range.
        MissingDependencyError: `robosuite` is not installed.
    """

    suite = SUITE
    part_names = PARTS_OF
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": FPS}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        views: Sequence[str] = VIEWS,
        size: int | tuple[int, int] = 64,
        seed: int | None = 0,
        pixels: bool = False,
        horizon: int = 500,
        terminate_on_success: bool = True,
        action_repeat: int = 1,
        quality: str = "auto",
        reward: str = "success",
        control: str = "pose",
        render_mode: str | None = None,
    ) -> None:
        _check(reward, render_mode)
        self._configure(
            size=size,
            seed=seed,
            pixels=pixels,
            horizon=horizon,
            terminate_on_success=terminate_on_success,
            action_repeat=action_repeat,
            quality=quality,
            fps=FPS,
        )
        self._sim, self.control = backend.build(task, control), control
        self.task, self.task_description = task, TASKS[task].description
        self.views = checked_views(views, self.model, self.id)
        self._reward, self._started = reward, False
        self._hand_names, self._seen = self._hands(), self._look()
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self._sim.action_dim,), np.float32)
        self._state_spaces = {
            "agent_pos": self._agent_space(),
            "environment_state": gym.spaces.Box(-_BOUND, _BOUND, self._state().shape, np.float32),
        }
        self._finish_spaces()
        self._progress = Progress(task)

    @property
    def sim(self) -> Any:
        """The wrapped robosuite environment."""
        return self._sim

    @property
    def model(self) -> Any:
        """The scene's `mujoco.MjModel`."""
        return self._sim.sim.model._model

    @property
    def data(self) -> Any:
        """The scene's `mujoco.MjData`."""
        return self._sim.sim.data._data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Place arm and objects anew in the same model; a seed decides them whatever went before.

        `options` are ignored.
        """
        self._begin_episode(seed)
        backend.reseed(self._sim, int(self.np_random.integers(2**63)))
        self._sim.reset()
        self._look()
        self._started = True
        self._progress.start(self._sim)
        return self._observation(), self._info(float(self._sim.reward(None)))

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for `action_repeat` robosuite steps.

        Raises:
            EnvError: before `reset`, or an action of another length or not finite.
        """
        self._require_reset("step")
        action = checked_action(action, self.id, self._steps, count=self._sim.action_dim)
        self._forget_frames()
        dense = [self._sim_step(action)]
        while len(dense) < self._repeat and not (self._terminates and self._success):
            dense.append(self._sim_step(action))
        self._steps += 1
        self._look()
        info = self._info(float(np.mean(dense)))
        reward = info["dense_reward"] if self._reward == "dense" else float(self._success)
        terminated = self._terminates and self._success
        truncated = self._steps >= self._max_episode_steps
        return self._observation(), reward, terminated, truncated, info

    def progress(self) -> float:
        """Return true progress; `embodied_reward.envs.robosuite.progress` says how."""
        self._require_reset("progress")
        return self._progress.value(self._sim)

    def seen(self, observation: Mapping[str, Any]) -> dict[str, Float64]:
        """Take an observation apart: robosuite's name of a sensor -> Float64["n"]."""
        numbers = np.concatenate([observation["agent_pos"], observation["environment_state"]])
        names = [*self._hand_names, *TASKS[self.task].state]
        ends = np.cumsum([len(self._seen[name]) for name in names])
        parts = np.split(numbers.astype(np.float64), ends[:-1])
        return dict(zip(names, parts, strict=True))

    def fingerprint(self) -> dict[str, Any]:
        """Return versions, renderer, quality and settings, as JSON values."""
        versions = {p: importlib.metadata.version(p) for p in ("mujoco", "robosuite")}
        more = {"reward": self._reward, "control": self.control, "versions": versions}
        return super().fingerprint() | more

    def close(self) -> None:
        """Free the simulator and the GL context; safe to call twice."""
        super().close()

    @property
    def _success(self) -> bool:
        return bool(self._sim._check_success())

    def _require_reset(self, what: str) -> None:
        if not self._started:
            raise EnvError(f"'{what}' of '{self.id}' needs a scene; call reset() first")

    def _sim_step(self, action: Float32) -> float:
        _, reward, _, _ = self._sim.step(action.astype(np.float64))
        backend.settle(self._sim)
        return float(reward)

    def _look(self) -> dict[str, Float64]:
        self._seen = backend.observe(self._sim)
        return self._seen

    def _hands(self) -> list[str]:
        names, there = backend.wanted_sensors(self.task), self._sim.observation_names
        return [n for n in names if n.endswith(_HAND) and n.startswith("robot") and n in there]

    def _agent(self) -> Float64:
        return np.concatenate([_signed(n, self._seen[n]) for n in self._hand_names])

    def _state(self) -> Float64:
        return np.concatenate([self._seen[name] for name in TASKS[self.task].state])

    def _agent_space(self) -> gym.spaces.Box:
        bounds = [
            np.full(len(self._seen[n]), _HAND_BOUNDS[n.partition("_")[2]], np.float32)
            for n in self._hand_names
        ]
        high = np.concatenate(bounds)
        return gym.spaces.Box(-high, high)

    def _info(self, dense_reward: float) -> dict[str, Any]:
        return {"is_success": self._success, "dense_reward": dense_reward}

    def _observation(self) -> dict[str, Any]:
        return self._observed({"agent_pos": self._agent(), "environment_state": self._state()})

    def _render_views(self) -> dict[str, UInt8]:
        self._require_reset("frames")
        return self._draw(self.model, self.data)


def _signed(name: str, numbers: Float64) -> Float64:
    """Give a hand's quaternion the sign with x >= 0.

    Both signs mean the same. robosuite's changes where w crosses 0, which is where a hand points
    straight down.
    """
    return -numbers if name.endswith("_quat") and numbers[0] < 0.0 else numbers


def _check(reward: str, render_mode: str | None) -> None:
    if reward not in REWARDS:
        raise EnvError(f"unknown reward '{reward}'; {did_you_mean(reward, REWARDS)}")
    if render_mode not in (None, "rgb_array"):
        raise EnvError(f"unknown render_mode '{render_mode}'; accepted: rgb_array")
