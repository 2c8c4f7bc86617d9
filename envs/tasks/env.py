"""The environment around the rules of any task of the suite: Gymnasium, cameras, seeds."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError, did_you_mean
from embodied_reward.types import Float32, Float64, UInt8

from ..arguments import checked_action, checked_views
from ..mujoco_env import MujocoEnv
from ..parts import PartNames
from ..rendering import load_mujoco
from .catalogue import PREFIX, rules_of
from .rules import Rules

REWARDS = ("success", "dense")


class TaskEnv(MujocoEnv):
    """One task of the suite, e.g. "SweepToGoal-MediumStick-v0".

    Observation: `agent_pos` and `environment_state` as the task's rules say
    (`embodied_reward.envs.tasks.planar`, `.tabletop`), which together decide the future; with
    `pixels=True` also `pixels`. Action: Float32 in [-1, 1].

    Args:
        task: a name from `embodied_reward.envs.tasks.task_names()`.
        views: camera names; default: the task's own.
        size: pixels, one number for squares or (height, width).
        seed: seeds the first reset, where that reset names no seed of its own.
        pixels: put the pictures into the observation.
        horizon: decisions until truncation.
        terminate_on_success: end the episode at the first success.
        action_repeat: base steps (1 / 10 s on the plane, 1 / 20 s on the table) per decision; with
            `terminate_on_success` the repetition stops at success.
        quality: "fast" (no shadows, reflections, multisampling), "full", or "auto": fast
            exactly where GL renders in software.
        reward: "success" pays 1.0 on steps that end in success and 0.0 otherwise; "dense" pays
            the true reward, `progress - 1 - disliked` in [-2, 0]: 0 only when done, so that
            finishing early is best.
        render_mode: "rgb_array", which is also what None means; for `gymnasium.make`.

    Raises:
        EnvError: unknown task, view, quality or reward; a number out of range.
        MissingDependencyError: MuJoCo is not installed.
    """

    suite = PREFIX
    part_names = PartNames(
        background=("screen", "shelf"),
        gripper=("agent", "hand"),
        objects=("peg", "ball"),
        goal=("zone", "region", "goal"),
    )
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10.0}  # noqa: RUF012

    def __init__(
        self,
        task: str,
        *,
        views: Sequence[str] = (),
        size: int | tuple[int, int] = 64,
        seed: int | None = 0,
        pixels: bool = False,
        horizon: int = 150,
        terminate_on_success: bool = True,
        action_repeat: int = 1,
        quality: str = "auto",
        reward: str = "success",
        render_mode: str | None = None,
    ) -> None:
        _check(reward, render_mode)
        self._rules = rules_of(task)
        self._configure(
            size=size,
            seed=seed,
            pixels=pixels,
            horizon=horizon,
            terminate_on_success=terminate_on_success,
            action_repeat=action_repeat,
            quality=quality,
            fps=self._rules.fps,
        )
        self._model = load_mujoco().MjModel.from_xml_string(self._rules.xml())
        self._data = load_mujoco().MjData(self._model)
        self.task, self.task_description = task, self._rules.description
        chosen = views or self._rules.cameras[: self._rules.default_views]
        self.views = checked_views(chosen, self._model, self.id)
        self._reward, self._started = reward, False
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self._rules.actions,), np.float32)
        self._state_spaces = {
            "agent_pos": _box(self._rules.agent_bounds),
            "environment_state": _box(self._rules.state_bounds),
        }
        self._finish_spaces()

    @property
    def model(self) -> Any:
        """The scene's `mujoco.MjModel`."""
        return self._model

    @property
    def data(self) -> Any:
        """The scene's `mujoco.MjData`."""
        return self._data

    @property
    def rules(self) -> Rules:
        """What is asked, what is true and where things are."""
        return self._rules

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Draw a scene; a seed decides it whatever went before. `options` are ignored."""
        self._begin_episode(seed)
        load_mujoco().mj_resetData(self._model, self._data)
        self._rules.place(self._model, self._data, self.np_random)
        load_mujoco().mj_forward(self._model, self._data)
        self._started = True
        return self._observation(), self._info()

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for `action_repeat` base steps.

        Raises:
            EnvError: before `reset`, or an action of another length or not finite.
        """
        self._require_reset("step")
        action = checked_action(action, self.id, self._steps, count=self._rules.actions)
        self._forget_frames()
        for _ in range(self._repeat):
            self._rules.act(self._model, self._data, action)
            if self._terminates and self._success:
                break
        self._steps += 1
        truncated = self._steps >= self._max_episode_steps
        terminated = self._terminates and self._success
        return self._observation(), self._paid(), terminated, truncated, self._info()

    def progress(self) -> float:
        """Return the mean progress of the task's parts; 1.0 exactly when it is done."""
        self._require_reset("progress")
        return self._rules.progress(self._data)

    def true_reward(self) -> float:
        """Return what `reward="dense"` pays for the present scene, in [-2, 0]."""
        return self.progress() - 1.0 - self._rules.disliked(self._data)

    def fingerprint(self) -> dict[str, Any]:
        """See the base class; what the reward pays is named too."""
        return super().fingerprint() | {"reward": self._reward}

    @property
    def _success(self) -> bool:
        return self._rules.success(self._data)

    def _require_reset(self, what: str) -> None:
        if not self._started:
            raise EnvError(f"'{what}' of '{self.id}' needs a scene; call reset() first")

    def _paid(self) -> float:
        return self.true_reward() if self._reward == "dense" else float(self._success)

    def _info(self) -> dict[str, Any]:
        known = {"is_success": self._success, "true_reward": self.true_reward()}
        return known | dict(self._rules.info(self._data))

    def _observation(self) -> dict[str, Any]:
        agent, state = self._rules.agent(self._data), self._rules.state(self._data)
        return self._observed({"agent_pos": agent, "environment_state": state})

    def _render_views(self) -> dict[str, UInt8]:
        self._require_reset("frames")
        # A step ends with positions newer than what is drawn.
        load_mujoco().mj_forward(self._model, self._data)
        return self._draw(self._model, self._data)


def _box(bounds: tuple[Float64, Float64]) -> gym.spaces.Box:
    low, high = (bound.astype(np.float32) for bound in bounds)
    return gym.spaces.Box(low, high)


def _check(reward: str, render_mode: str | None) -> None:
    if reward not in REWARDS:
        raise EnvError(f"unknown reward '{reward}'; {did_you_mean(reward, REWARDS)}")
    if render_mode not in (None, "rgb_array"):
        raise EnvError(f"unknown render_mode '{render_mode}'; accepted: rgb_array")
