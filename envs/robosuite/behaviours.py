"""Scripted behaviours of robosuite tasks, under the names that `er collect --quality` knows.

| behaviour | what it does                                                                    |
|-----------|---------------------------------------------------------------------------------|
| expert    | solves the task (`EXPERTS`)                                                     |
| noisy     | expert under noise correlated over 0.3 s, of a strength drawn per episode       |
| wander    | smooth random movement                                                          |
| stop      | expert up to a random progress in [0.05, 0.6], then holds still                 |
| retreat   | expert up to such a progress, then lets go, goes up and wanders                 |
| miss      | expert that sees things 6 to 12 cm beside their places                          |

Times are seconds of the simulated clock, so a behaviour looks alike at every `action_repeat`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Float32, Float64

from ..behaviour_parts import Act, sticky, until
from .env import RobosuiteEnv
from .experts import OPEN, SCRIPTS, Expert

EXPERTS = tuple(SCRIPTS)
_NOISE_S, _NOISE = 0.3, (0.1, 0.6)  # correlation time [s], standard deviation of the action
_WANDER_S, _WANDER = 0.8, 0.6
_SHAKY = 0.3  # share of noise on rotations and fingers: a shaky grip drops everything
_ENOUGH = (0.05, 0.6)  # progress at which a failing behaviour gives up ...
_PATIENCE_S = (0.5, 4.0)  # ... or time, whichever comes first [s]
_RISE_S = 0.7
_BESIDE = (0.06, 0.12)  # [m]


def expert(env: RobosuiteEnv, _rng: np.random.Generator) -> Act:
    """Return the task's expert. Raises EnvError where there is none."""
    return _expert(env, np.zeros(3))


def _expert(env: RobosuiteEnv, offset: Float64) -> Act:
    if env.task not in SCRIPTS:
        raise EnvError(
            f"'{env.id}' has no scripted expert, so of all behaviours only 'wander'; these have "
            f"one: {', '.join(EXPERTS)}"
        )
    script, turns = SCRIPTS[env.task](), env.control == "pose"
    if script.lean and not turns:
        raise EnvError(f"the expert of '{env.id}' leans the hand; it needs control='pose'")
    act = Expert(script, _rate(env), turns)
    return lambda observation: act(_misread(env.seen(observation), offset))


def _noisy(env: RobosuiteEnv, rng: np.random.Generator) -> Act:
    act = expert(env, rng)
    shake = _shake(env, rng, seconds=_NOISE_S, strength=rng.uniform(*_NOISE))
    return lambda seen: np.clip(act(seen) + shake(), -1.0, 1.0).astype(np.float32)


def _wander(env: RobosuiteEnv, rng: np.random.Generator) -> Act:
    shake = _shake(env, rng, seconds=_WANDER_S, strength=_WANDER)
    return lambda _: np.clip(shake(), -1.0, 1.0).astype(np.float32)


def _stop(env: RobosuiteEnv, rng: np.random.Generator) -> Act:
    still = np.zeros(_count(env), np.float32)
    return _give_up(env, rng, lambda _: still)


def _retreat(env: RobosuiteEnv, rng: np.random.Generator) -> Act:
    wander, left = _wander(env, rng), round(_RISE_S * _rate(env))
    rise = np.zeros(_count(env), np.float32)
    rise[2], rise[-1] = 1.0, OPEN

    def leave(observation: Mapping[str, Any]) -> Float32:
        nonlocal left
        left -= 1
        return rise if left >= 0 else wander(observation)

    return _give_up(env, rng, leave)


def _miss(env: RobosuiteEnv, rng: np.random.Generator) -> Act:
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*_BESIDE)
    return _expert(env, distance * np.array([np.cos(angle), np.sin(angle), 0.0]))


BEHAVIOURS: dict[str, Callable[[RobosuiteEnv, np.random.Generator], Act]] = {
    "expert": expert,
    "noisy": _noisy,
    "wander": _wander,
    "stop": _stop,
    "retreat": _retreat,
    "miss": _miss,
}


def _rate(env: RobosuiteEnv) -> float:
    return float(env.metadata["render_fps"])


def _count(env: RobosuiteEnv) -> int:
    assert env.action_space.shape is not None
    return env.action_space.shape[0]


def _misread(seen: Mapping[str, Float64], offset: Float64) -> dict[str, Float64]:
    """Return what is seen with every thing's place displaced by `offset` [m]."""
    things = [k for k in seen if k.endswith("_pos") and not k.startswith("robot")]
    return {**seen, **{k: seen[k] + offset for k in things}}


def _shake(
    env: RobosuiteEnv, rng: np.random.Generator, *, seconds: float, strength: float
) -> Callable[[], Float64]:
    """Return a source of noise of the size of an action."""
    share = np.full(_count(env), _SHAKY)
    arm = _count(env) // (2 if env.sim.num_robots == 2 else 1)
    for first in range(0, _count(env), arm):
        share[first : first + 3] = 1.0
    noise = sticky(_rate(env), rng, count=_count(env), seconds=seconds, strength=strength)
    return lambda: noise() * share


def _give_up(env: RobosuiteEnv, rng: np.random.Generator, then: Act) -> Act:
    enough, most = rng.uniform(*_ENOUGH), round(rng.uniform(*_PATIENCE_S) * _rate(env))
    return until(env.progress, enough, most, expert(env, rng), then)
