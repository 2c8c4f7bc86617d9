"""`trap/insert`: a peg that must be pressed into a socket that often throws it back.

A hand slides a peg over a table. Above the socket nearly all of the way is done; only pressing
the peg to the bottom finishes the task, and that works with probability p. Otherwise the
socket's spring flings the hand back, seven tenths of the way. A reward that pays for being
*near* is maximised by hovering above the socket: the "semantic trap" of Robo-Dopamine
(arXiv:2512.23703, section 3.3).

The motion is kinematic: MuJoCo places the bodies and draws them, no contact is simulated. So
states, chances and optimal values are known exactly.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from embodied_reward.errors import EnvError, did_you_mean
from embodied_reward.types import Float32, Float64, UInt8

from .arguments import checked_action, checked_views
from .mujoco_env import MujocoEnv
from .parts import PartNames
from .rendering import load_mujoco

DESCRIPTIONS = {"insert": "press the peg into the socket until it locks"}
REWARDS = ("success",)
SIM_FPS = 40  # [Hz]
STEP = 0.025  # largest displacement per axis and simulator step [m]
LENGTH, HALF_WIDTH, DEPTH = 0.9, 0.1, 0.1  # the table's length, half its width, the hole's depth
SOCKET = np.array([LENGTH, 0.0])  # where the hole is [m]
THROWN = np.array([0.2, 0.0])  # where the spring throws the hand [m]
STARTS = (-HALF_WIDTH, 0.0, HALF_WIDTH)  # y of the first state [m]; its x is 0
TOLERANCE = STEP / 2 + 1e-9  # the peg enters the hole within this distance per axis [m]
_EPS = 1e-9  # sums of steps are not exact [m]

_SCENE = f"""
<mujoco model="trap">
  <visual>
    <headlight ambient=".45 .45 .45" diffuse=".5 .5 .5" specular="0 0 0"/>
    <quality offsamples="4"/>
  </visual>
  <worldbody>
    <light pos=".2 -.5 1.2" dir=".2 .4 -1" diffuse=".15 .15 .15" directional="true"/>
    <camera name="front" pos=".45 -1.42 .98" xyaxes="1 0 0 0 .53 .85" fovy="40"/>
    <camera name="top" pos=".45 0 2" xyaxes="1 0 0 0 1 0" fovy="36"/>
    <geom name="ground" type="plane" size="9 9 .1" pos="0 0 -.3" rgba=".28 .3 .34 1"/>
    <geom name="table" type="box" size=".53 .2 .06" pos=".45 0 -.06" rgba=".74 .68 .58 1"/>
    <geom type="box" size=".01 .15 .002" pos="-.02 0 .001" rgba=".5 .45 .4 1"/>
    <geom name="socket" type="cylinder" size=".055 .003" pos="{LENGTH} 0 .003" rgba=".1 .35 .75 1"/>
    <geom name="hole" type="cylinder" size=".034 .004" pos="{LENGTH} 0 .003" rgba=".03 .03 .05 1"/>
    <body name="hand">
      <joint name="x" type="slide" axis="1 0 0"/>
      <joint name="y" type="slide" axis="0 1 0"/>
      <joint name="z" type="slide" axis="0 0 1"/>
      <geom type="cylinder" size=".026 .07" pos="0 0 .075" rgba=".85 .15 .1 1" mass="1"/>
      <geom type="box" size=".014 .03 .03" pos="-.042 0 .15" rgba=".3 .32 .36 1" mass="1"/>
      <geom type="box" size=".014 .03 .03" pos=".042 0 .15" rgba=".3 .32 .36 1" mass="1"/>
      <geom type="box" size=".056 .035 .02" pos="0 0 .2" rgba=".3 .32 .36 1" mass="1"/>
    </body>
  </worldbody>
</mujoco>
"""


def make(task: str, **kwargs: Any) -> "TrapEnv":
    """Build the task; what `embodied_reward.envs.make("trap/insert")` calls."""
    return TrapEnv(task, **kwargs)


def task_names() -> list[str]:
    """Return the names of all tasks. Raises MissingDependencyError without MuJoCo."""
    load_mujoco()
    return list(DESCRIPTIONS)


def moved(place: Float64, action: Float32 | Float64) -> Float64:
    """Return where one simulator step takes the hand: Float64[3] x, y [m], height [m] <= 0.

    The table holds the peg up everywhere but above the hole; the hole's wall holds it sideways
    while it is inside.

    Args:
        place: Float64[3], the present position; height 0 on the table, -DEPTH at the bottom.
        action: [3] in [-1, 1], displacement in units of `STEP`.
    """
    sideways, lift = place[:2] + STEP * action[:2], place[2] + STEP * action[2]
    if place[2] < -_EPS:
        return np.array([*place[:2], np.clip(lift, -DEPTH, 0.0)])
    sideways = np.clip(sideways, [0.0, -HALF_WIDTH], [LENGTH, HALF_WIDTH])
    above = bool(np.all(np.abs(sideways - SOCKET) <= TOLERANCE))
    return np.array([*sideways, np.clip(lift, -DEPTH if above else 0.0, 0.0)])


class TrapEnv(MujocoEnv):
    """Bring the peg above the socket and press it to the bottom.

    Observation: `agent_pos` Float32[3]: hand x, y and height [m]; `environment_state`
    Float32[2]: the socket's x, y [m]. With `pixels=True` also `pixels`.
    Action: Float32[3] in [-1, 1]: displacement along x, y, z, 2.5 cm per simulator step and unit.

    When the peg reaches the bottom it locks with `success_probability`, else the hand is thrown
    back to `THROWN`. `info["attempts"]` counts how often it reached the bottom.

    Args:
        task: "insert".
        views: "front" (oblique), "top".
        size: pixels, one number for squares or (height, width).
        seed: seeds the first reset, where that reset names no seed of its own.
        pixels: put the pictures into the observation.
        horizon: decisions until truncation.
        terminate_on_success: end the episode when the peg locks; else it stays locked.
        action_repeat: simulator steps per decision (4 move one tenth of the way); the
            repetition stops when the peg locks or is thrown back.
        quality: "fast" (no shadows, reflections, multisampling), "full", or "auto".
        reward: "success" pays 1.0 on steps that end in success and 0.0 otherwise.
        success_probability: chance p that the peg locks.

    Raises:
        EnvError: unknown task, view, quality or reward; a number out of range.
        MissingDependencyError: MuJoCo is not installed.
    """

    suite = "trap"
    kinematic = True
    part_names = PartNames(gripper=("hand",), objects=("socket", "hole"))

    def __init__(
        self,
        task: str,
        *,
        views: Sequence[str] = ("front", "top"),
        size: int | tuple[int, int] = 64,
        seed: int | None = 0,
        pixels: bool = False,
        horizon: int = 200,
        terminate_on_success: bool = True,
        action_repeat: int = 1,
        quality: str = "auto",
        reward: str = "success",
        success_probability: float = 0.3,
    ) -> None:
        _check(task, reward, success_probability)
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
        self._model = load_mujoco().MjModel.from_xml_string(_SCENE)
        self._data = load_mujoco().MjData(self._model)
        self.task, self.task_description = task, DESCRIPTIONS[task]
        self.views = checked_views(views, self._model, self.id)
        self._chance = float(success_probability)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        table = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._state_spaces = {"agent_pos": _agent_space(), "environment_state": table}
        self._finish_spaces()
        self._place: Float64 | None = None
        self._attempts, self._locked = 0, False

    @property
    def model(self) -> Any:
        """The scene's `mujoco.MjModel`."""
        return self._model

    @property
    def data(self) -> Any:
        """The scene's `mujoco.MjData`."""
        return self._data

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Put the hand at the far end, in one of three rows.

        Args:
            seed: decides the row and all later chances.
            options: `{"place": (x, y)}` puts the hand there [m] instead.

        Raises:
            EnvError: a place outside the table.
        """
        self._begin_episode(seed)
        drawn = (0.0, float(self.np_random.choice(STARTS)))
        x, y = (options or {}).get("place", drawn)
        if not (0.0 <= x <= LENGTH and -HALF_WIDTH <= y <= HALF_WIDTH):
            raise EnvError(
                f"'{self.id}' cannot start at ({x}, {y}): x must be 0 to {LENGTH} m, "
                f"y -{HALF_WIDTH} to {HALF_WIDTH} m"
            )
        self._place = np.array([x, y, 0.0])
        self._attempts, self._locked = 0, False
        return self._observation(), self._info()

    def step(self, action: Float32) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Apply one action for `action_repeat` simulator steps.

        Raises:
            EnvError: before `reset`, or an action that is not three finite numbers.
        """
        self._require_reset("step")
        action = checked_action(action, self.id, self._steps, count=3)
        self._forget_frames()
        for _ in range(self._repeat):
            if self._locked or self._sim_step(action):
                break
        self._steps += 1
        truncated = self._steps >= self._max_episode_steps
        terminated = self._terminates and self._locked
        return self._observation(), float(self._locked), terminated, truncated, self._info()

    def progress(self) -> float:
        """Return 1 - way left / whole way: the longer of both axes, then the hole's depth.

        Above the socket it is 0.9; 1.0 exactly when the peg is locked.
        """
        place = self._require_reset("progress")
        if self._locked:
            return 1.0
        left = float(np.abs(place[:2] - SOCKET).max()) + DEPTH + float(place[2])
        return float(np.clip(1.0 - left / (LENGTH + DEPTH), 0.0, 0.99))

    def fingerprint(self) -> dict[str, Any]:
        """See the base class; the chance is named too."""
        return super().fingerprint() | {"success_probability": self._chance}

    def _sim_step(self, action: Float32) -> bool:
        """Move once; returns whether the peg reached the bottom, which decides the attempt."""
        self._place = moved(self._require_reset("step"), action)
        if self._place[2] > -DEPTH + _EPS:
            return False
        self._attempts += 1
        self._locked = bool(self.np_random.random() < self._chance)
        if not self._locked:
            self._place = np.array([*THROWN, 0.0])
        return True

    def _require_reset(self, what: str) -> Float64:
        if self._place is None:
            raise EnvError(f"'{what}' of '{self.id}' needs a scene; call reset() first")
        return self._place

    def _info(self) -> dict[str, Any]:
        return {"is_success": self._locked, "attempts": self._attempts}

    def _observation(self) -> dict[str, Any]:
        place = self._require_reset("observation")
        return self._observed({"agent_pos": place, "environment_state": SOCKET})

    def _render_views(self) -> dict[str, UInt8]:
        self._data.qpos[:] = self._require_reset("frames")
        load_mujoco().mj_forward(self._model, self._data)
        return self._draw(self._model, self._data)


def _check(task: str, reward: str, chance: float) -> None:
    if task not in DESCRIPTIONS:
        raise EnvError(f"unknown task 'trap/{task}'; {did_you_mean(task, DESCRIPTIONS)}")
    if reward not in REWARDS:
        raise EnvError(f"'trap/{task}' has no reward '{reward}'; {did_you_mean(reward, REWARDS)}")
    if not 0.0 <= chance <= 1.0:
        raise EnvError(f"success_probability must lie in [0, 1], got {chance}")


def _agent_space() -> gym.spaces.Box:
    low, high = [0.0, -HALF_WIDTH, -DEPTH], [LENGTH, HALF_WIDTH, 0.0]
    return gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
