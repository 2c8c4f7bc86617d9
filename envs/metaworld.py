"""Meta-World v3 tasks as `VisualEnv`s, through the `metaworld` package.

Two differences from `metaworld`'s own reset: placement is drawn from the Gymnasium generator,
and the first observation is read after a forward pass (Meta-World reads it before, so in
window-close-v3 it shows the handle 20 cm away from where it is). Dynamics are untouched: after
the same placement, states equal Meta-World's own.
"""

import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError, MissingDependencyError, did_you_mean
from embodied_reward.types import Float32, Float64, UInt8

from .arguments import checked_action, checked_views
from .metaworld_tasks import DESCRIPTIONS, PARTS_OF, camera
from .mujoco_env import MujocoEnv
from .progress import Progress
from .rendering import load_mujoco, place_cameras

SIM_FPS = 80  # Meta-World's control rate [Hz]
REWARDS = ("success", "dense")
_AGENT = 4  # hand x, y, z [m] and gripper opening in [0, 1]
_BOUND = 10.0  # [m]; objects that fly off the table are reported at the edge of the space


def make(task: str, **kwargs: Any) -> "MetaWorldEnv":
    """Build one task; what `embodied_reward.envs.make("metaworld/<task>")` calls."""
    return MetaWorldEnv(task, **kwargs)


def task_names() -> list[str]:
    """Return the names of all tasks, e.g. "drawer-open-v3". Raises MissingDependencyError."""
    return list(_load().env_dict.ALL_V3_ENVIRONMENTS)


class MetaWorldEnv(MujocoEnv):
    """One Meta-World v3 task.

    Observation: `agent_pos` Float32[4]: hand position [m] and gripper opening in [0, 1];
    `environment_state` Float32[35]: object poses (14, zero-padded), the previous simulator
    step's hand and objects (18), the goal [m] (3). With `pixels=True` also `pixels`.
    Action: Float32[4] in [-1, 1]: hand displacement, 1 cm per simulator step and unit, and
    gripper effort (positive closes).

    Args:
        task: a name from `task_names()`.
        views: camera names, at least one.
        size: pixels, one number for squares or (height, width).
        seed: seeds the first reset, where that reset names no seed of its own.
        pixels: put the pictures into the observation.
        horizon: decisions until truncation.
        terminate_on_success: end the episode at the first success.
        action_repeat: simulator steps per decision; the rate of decisions is 80 Hz over this.
            With `terminate_on_success` the repetition stops at success.
        quality: "fast" (no shadows, reflections, multisampling), "full", or "auto": fast
            exactly where GL renders in software.
        reward: "success" pays 1.0 on steps that end in success and 0.0 otherwise; "dense"
            pays Meta-World's own reward in [0, 10], averaged over the repeated steps.

    Raises:
        EnvError: unknown task, view, quality or reward; a number out of range.
        MissingDependencyError: `metaworld` is not installed.
    """

    suite = "metaworld"
    part_names = PARTS_OF

    def __init__(
        self,
        task: str,
        *,
        views: Sequence[str] = ("corner2", "gripperPOV"),
        size: int | tuple[int, int] = 64,
        seed: int | None = 0,
        pixels: bool = False,
        horizon: int = 500,
        terminate_on_success: bool = True,
        action_repeat: int = 1,
        quality: str = "auto",
        reward: str = "success",
    ) -> None:
        if reward not in REWARDS:
            raise EnvError(f"unknown reward '{reward}'; {did_you_mean(reward, REWARDS)}")
        self._configure(
            size=size,
            seed=seed,
            pixels=pixels,
            horizon=horizon,
            terminate_on_success=terminate_on_success,
            action_repeat=action_repeat,
            quality=quality,
            fps=SIM_FPS,
        )
        self._sim = _build(task)
        # The simulator counts its own steps and refuses the 501st; the horizon is ours.
        self._sim.max_path_length = sys.maxsize
        self.task, self.task_description = task, DESCRIPTIONS[task]
        self.views = checked_views(views, self._sim.model, self.id)
        self._cameras = {view: camera(view) for view in self.views}
        place_cameras(self._sim.model, self._cameras)
        self._reward = reward
        self.action_space = gym.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self._state_spaces = {"agent_pos": _agent_space(), "environment_state": _state_space()}
        self._finish_spaces()
        self._progress = Progress(task)
        self._state: Float64 | None = None
        self._outcome: Mapping[str, Any] = {}

    @property
    def sim(self) -> Any:
        """The wrapped `metaworld` environment, for geometry (`sim.model`, `sim.data`)."""
        return self._sim

    @property
    def model(self) -> Any:
        """The scene's `mujoco.MjModel`."""
        return self._sim.model

    @property
    def data(self) -> Any:
        """The scene's `mujoco.MjData`."""
        return self._sim.data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Place hand, objects and goal; a seed decides the scene whatever went before."""
        self._begin_episode(seed)
        self._place()
        self._state = _settled_state(self._sim)
        reward, self._outcome = self._sim.evaluate_state(self._state, np.zeros(4, np.float32))
        self._progress.start(self._sim, self._state, self._outcome)
        return self._observation(), self._info(float(reward))

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for `action_repeat` simulator steps.

        Raises:
            EnvError: before `reset`, or an action that is not four finite numbers.
        """
        self._require_reset("step")
        action = checked_action(action, self.id, self._steps)
        self._forget_frames()
        dense = [self._sim_step(action)]
        while len(dense) < self._repeat and not (self._terminates and self._success):
            dense.append(self._sim_step(action))
        self._steps += 1
        info = self._info(float(np.mean(dense)))
        reward = info["dense_reward"] if self._reward == "dense" else float(self._success)
        terminated = self._terminates and self._success
        truncated = self._steps >= self._max_episode_steps
        return self._observation(), reward, terminated, truncated, info

    def progress(self) -> float:
        """Return true progress; `embodied_reward.envs.progress` says how, per family."""
        state = self._require_reset("progress")
        return self._progress.value(self._sim, state, self._outcome)

    def fingerprint(self) -> dict[str, Any]:
        """Return versions, renderer, quality and settings, as JSON values."""
        cameras = list(self._cameras.values())
        return super().fingerprint() | {
            "half_turned": [c.name for c in cameras if c.half_turn],
            "moved_cameras": {c.name: list(c.position) for c in cameras if c.position},
            # Meta-World draws goals as small spheres; reach and push show the goal no other way.
            "goal_site_visible": True,
            "reward": self._reward,
            "versions": {p: importlib.metadata.version(p) for p in ("metaworld", "mujoco")},
        }

    def close(self) -> None:
        """Free the simulator and the GL context; safe to call twice."""
        super().close()
        self._sim.close()

    @property
    def _success(self) -> bool:
        return bool(self._outcome["success"])

    def _require_reset(self, what: str) -> Float64:
        if self._state is None:
            raise EnvError(f"'{what}' of '{self.id}' needs a scene; call reset() first")
        return self._state

    def _sim_step(self, action: Float32) -> float:
        self._state, reward, _, _, self._outcome = self._sim.step(action)
        return float(reward)

    def _place(self) -> None:
        """Draw a placement, then reset to it frozen, as Meta-World's benchmarks do.

        The second reset matters: tasks compute goals from where a draw has put things.
        """
        self._sim.np_random = self.np_random
        for frozen in (False, True):
            self._sim._freeze_rand_vec = frozen
            load_mujoco().mj_resetData(self._sim.model, self._sim.data)
            self._sim.curr_path_length = 0
            self._sim.reset_model()

    def _info(self, dense_reward: float) -> dict[str, Any]:
        return {"is_success": self._success, "dense_reward": dense_reward}

    def _observation(self) -> dict[str, Any]:
        state = self._require_reset("observation")
        return self._observed({"agent_pos": state[:_AGENT], "environment_state": state[_AGENT:]})

    def _render_views(self) -> dict[str, UInt8]:
        self._require_reset("frames")
        return self._draw(self._sim.model, self._sim.data, self._cameras)


def _load() -> ModuleType:
    load_mujoco()
    try:
        import metaworld
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Meta-World is not installed; run `pip install 'embodied-reward[metaworld]'`"
        ) from error
    return metaworld


def _build(task: str) -> Any:
    known = task_names()
    if task not in known:
        raise EnvError(f"unknown task 'metaworld/{task}'; {did_you_mean(task, known)}")
    sim = _load().env_dict.ALL_V3_ENVIRONMENTS[task]()
    sim._set_task_called = True
    sim.seeded_rand_vec = True
    sim._partially_observable = False
    # Cached when goals were still hidden; with them visible it has other bounds.
    del sim.sawyer_observation_space
    return sim


def _settled_state(sim: Any) -> Float64:
    load_mujoco().mj_forward(sim.model, sim.data)
    sim._prev_obs = sim._get_curr_obs_combined_no_goal()
    return sim._get_obs()


def _agent_space() -> gym.spaces.Box:
    low, high = [-0.525, 0.348, -0.0525, 0.0], [0.525, 1.025, 0.7, 1.0]
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


def _state_space() -> gym.spaces.Box:
    return gym.spaces.Box(-_BOUND, _BOUND, (35,), np.float32)
