"""Scripted behaviours for data collection: experts, sloppy experts and several ways to fail.

Rewards learned from experts alone never see failure, so the failing behaviours visit what
failure looks like: wandering, stopping half-way, walking off, reaching for the wrong place.

| behaviour | what it does                                                                    |
|-----------|---------------------------------------------------------------------------------|
| expert    | Meta-World's scripted policy                                                    |
| noisy     | expert under noise correlated over 0.25 s, of a strength drawn per episode, with |
|           | excursions of 0.1 to 0.4 s in one direction at full speed                       |
| wander    | smooth travel between random points of the workspace, gripper opening at random |
| stop      | expert up to a random progress in [0.05, 0.6], then holds its position          |
| retreat   | expert up to such a progress, then goes up and wanders above the objects        |
| miss      | expert that sees objects and goal displaced sideways by 10 to 16 cm             |

`trap/insert` has the same names (`trap_behaviours.py`), and so have the suite's own tasks
(`tasks/behaviours.py`) and robosuite's (`robosuite/behaviours.py`); the rest of this module is
Meta-World's.

Times are seconds of the simulated clock, so a behaviour looks alike at every `action_repeat`.
"""

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError, did_you_mean
from embodied_reward.types import Float32, Float64

from . import trap_behaviours
from .metaworld import MetaWorldEnv
from .robosuite import behaviours as robosuite_behaviours
from .robosuite.env import RobosuiteEnv
from .tasks import behaviours as task_behaviours
from .tasks.env import TaskEnv
from .trap import TrapEnv

Act = Callable[[Mapping[str, Any]], Float32]
Builder = Callable[[MetaWorldEnv, np.random.Generator], Act]

# What each quality draws from, and how often.
QUALITIES: dict[str, dict[str, float]] = {
    "expert": {"expert": 1.0},
    "noisy": {"noisy": 1.0},
    "random": {"wander": 0.4, "stop": 0.2, "retreat": 0.2, "miss": 0.2},
    "mixed": {
        "expert": 0.3,
        "noisy": 0.3,
        "wander": 0.1,
        "stop": 0.1,
        "retreat": 0.1,
        "miss": 0.1,
    },
}

_GAIN = 10.0  # action per metre of hand error
_STICKY_S = 0.25  # correlation time of the noise [s]
_NOISE = (0.1, 0.5)  # its standard deviation, in units of the action
_PER_AXIS = np.array([1.0, 1.0, 1.0, 0.4])  # a shaky grip drops everything
_EXCURSIONS_HZ = 0.7
_EXCURSION_S = (0.1, 0.4)
_WAYPOINT_S = (0.4, 1.2)
# Corners of the hand positions [m] to wander between: everywhere, and above what stands there.
_WORKSPACE = (np.array([-0.35, 0.45, 0.06]), np.array([0.35, 0.85, 0.35]))
_ABOVE = (np.array([-0.35, 0.45, 0.28]), np.array([0.35, 0.75, 0.4]))
_OBJECTS = (slice(4, 7), slice(11, 14), slice(22, 25), slice(29, 32))  # positions within state 39


class Behaviour:
    """One episode's way of acting; build a new one after every reset.

    Attributes:
        name: which of `BEHAVIOURS` this is, for the record.
    """

    def __init__(self, name: str, act: Act) -> None:
        self.name = name
        self._act = act

    def __call__(self, observation: Mapping[str, Any]) -> Float32:
        """Return an action Float32[4] in [-1, 1]."""
        return self._act(observation)


def make_behaviour(env: Any, quality: str, rng: np.random.Generator) -> Behaviour:
    """Build a behaviour for the episode that `env.reset()` has just begun.

    Args:
        env: a `VisualEnv` of Meta-World, robosuite, trap or the suite, wrapped or not.
        quality: expert, noisy, random or mixed (drawn anew by every call), or one behaviour
            by name.
        rng: decides the draw and all of the behaviour's own chances.

    Raises:
        EnvError: unknown quality, or an environment without scripted behaviours.
    """
    base = env.unwrapped
    builders = _builders(base)
    weights = QUALITIES.get(quality) or ({quality: 1.0} if quality in builders else None)
    if weights is None:
        known = [*QUALITIES, *builders]
        raise EnvError(f"unknown quality '{quality}'; {did_you_mean(quality, known)}")
    name = str(rng.choice(list(weights), p=list(weights.values())))
    return Behaviour(name, builders[name](base, rng))


def _builders(env: Any) -> Mapping[str, Callable[[Any, np.random.Generator], Act]]:
    if isinstance(env, MetaWorldEnv):
        return BEHAVIOURS
    if isinstance(env, RobosuiteEnv):
        return robosuite_behaviours.BEHAVIOURS
    if isinstance(env, TrapEnv):
        return trap_behaviours.BEHAVIOURS
    if isinstance(env, TaskEnv):
        return task_behaviours.BEHAVIOURS
    raise EnvError(
        f"{type(env).__name__} has no scripted behaviours; Meta-World, robosuite, trap and the "
        "suite have"
    )


def full_state(observation: Mapping[str, Any]) -> Float64:
    """Return Meta-World's own observation, Float64[39], from ours."""
    parts = (observation["agent_pos"], observation["environment_state"])
    return np.concatenate(parts).astype(np.float64)


def _expert(env: MetaWorldEnv, _rng: np.random.Generator) -> Act:
    policy = importlib.import_module("metaworld.policies").ENV_POLICY_MAP[env.task]()
    return lambda observation: _ask(policy, full_state(observation))


def _ask(policy: Any, state: Float64) -> Float32:
    with warnings.catch_warnings():
        # Meta-World warns that its own gains saturate; the clip below is what it means.
        warnings.simplefilter("ignore", UserWarning)
        action = policy.get_action(state)
    return np.clip(action, -1.0, 1.0).astype(np.float32)


def _noisy(env: MetaWorldEnv, rng: np.random.Generator) -> Act:
    expert, noise = _expert(env, rng), _Sticky(_rate(env), rng)
    return lambda observation: np.clip(expert(observation) + noise.next(), -1.0, 1.0)


def _wander(env: MetaWorldEnv, rng: np.random.Generator) -> Act:
    return _Wanderer(_rate(env), rng, _WORKSPACE)


def _stop(env: MetaWorldEnv, rng: np.random.Generator) -> Act:
    return _Until(env, rng, _expert(env, rng), _Holder())


def _retreat(env: MetaWorldEnv, rng: np.random.Generator) -> Act:
    return _Until(env, rng, _expert(env, rng), _Wanderer(_rate(env), rng, _ABOVE, rise=True))


def _miss(env: MetaWorldEnv, rng: np.random.Generator) -> Act:
    expert = _expert(env, rng)
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.1, 0.16)
    offset = distance * np.array([np.cos(angle), np.sin(angle), 0.0])

    def act(observation: Mapping[str, Any]) -> Float32:
        state = full_state(observation)
        for where in (*_OBJECTS, slice(36, 39)):
            state[where] += offset
        return expert({"agent_pos": state[:4], "environment_state": state[4:]})

    return act


BEHAVIOURS: dict[str, Builder] = {
    "expert": _expert,
    "noisy": _noisy,
    "wander": _wander,
    "stop": _stop,
    "retreat": _retreat,
    "miss": _miss,
}


def _rate(env: MetaWorldEnv) -> float:
    return float(env.metadata["render_fps"])


class _Sticky:
    """Ornstein-Uhlenbeck noise plus excursions: now and then one direction, at full speed."""

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        self._rate, self._rng = rate, rng
        self._keep = float(np.exp(-1.0 / (_STICKY_S * rate)))
        self._strength = rng.uniform(*_NOISE)
        self._value, self._push, self._left = np.zeros(4), np.zeros(4), 0

    def next(self) -> Float32:
        fresh = self._rng.normal(0.0, self._strength, 4) * _PER_AXIS
        self._value = self._keep * self._value + np.sqrt(1.0 - self._keep**2) * fresh
        self._left -= 1
        if self._left < 0 and self._rng.random() < _EXCURSIONS_HZ / self._rate:
            self._left = round(self._rng.uniform(*_EXCURSION_S) * self._rate)
            self._push = 2.0 * self._rng.choice([-1.0, 1.0], 4) * (_PER_AXIS == 1.0)
        return (self._push if self._left > 0 else self._value).astype(np.float32)


class _Holder:
    """Stays where the hand was when first asked, against the speed it then had."""

    def __init__(self) -> None:
        self._place: Float32 | None = None

    def __call__(self, observation: Mapping[str, Any]) -> Float32:
        place = observation["agent_pos"][:3].copy() if self._place is None else self._place
        self._place = place
        return _toward(place, observation, grip=0.0)


class _Wanderer:
    """Travels to one random point of a box after the other; may rise straight up before."""

    def __init__(
        self,
        rate: float,
        rng: np.random.Generator,
        box: tuple[Float64, Float64],
        rise: bool = False,
    ) -> None:
        self._rate, self._rng, self._box, self._rise = rate, rng, box, rise
        self._target, self._grip, self._left = np.zeros(3), -1.0, 0

    def __call__(self, observation: Mapping[str, Any]) -> Float32:
        if self._left <= 0:
            self._left = max(1, round(self._rng.uniform(*_WAYPOINT_S) * self._rate))
            self._target = self._rng.uniform(*self._box)
            self._grip = -1.0 if self._rise else float(self._rng.choice([-1.0, 1.0]))
            if self._rise:
                self._target[:2] = observation["agent_pos"][:2]
                self._rise = False
        self._left -= 1
        return _toward(self._target, observation, self._grip)


def _toward(place: Float32 | Float64, observation: Mapping[str, Any], grip: float) -> Float32:
    move = _GAIN * (place - observation["agent_pos"][:3])
    return np.clip([*move, grip], -1.0, 1.0).astype(np.float32)


class _Until:
    """Acts as `first` up to a random progress or time, whichever comes first, then as `then`."""

    def __init__(self, env: MetaWorldEnv, rng: np.random.Generator, first: Act, then: Act) -> None:
        self._env, self._first, self._then = env, first, then
        self._progress = rng.uniform(0.05, 0.6)
        # Some tasks have no progress; experts take about a second.
        self._steps = round(rng.uniform(0.3, 3.0) * _rate(env))
        self._over = False

    def __call__(self, observation: Mapping[str, Any]) -> Float32:
        self._steps -= 1
        self._over = self._over or self._steps < 0 or self._far_enough()
        return (self._then if self._over else self._first)(observation)

    def _far_enough(self) -> bool:
        try:
            return self._env.progress() >= self._progress
        except EnvError:
            return False
