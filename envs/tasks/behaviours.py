"""Scripted behaviours of the suite, under the names that `er collect --quality` knows.

| behaviour | what it does                                                                    |
|-----------|---------------------------------------------------------------------------------|
| expert    | solves the task                                                                 |
| noisy     | expert under noise correlated over 0.3 s, of a strength drawn per episode       |
| careless  | what a person would rank lower: straight through the region (Avoid), a puck left |
|           | behind (SweepToGoal), two of three gathered (Group), hovering above the ball,   |
|           | puck short of the mark, drawer half open, peg beside its hole                   |
| wander    | smooth random movement                                                          |
| stop      | expert up to a random progress in [0.05, 0.6], then holds still                 |
| retreat   | expert up to such a progress, then wanders                                      |
| miss      | expert that sees the objects 0.2 to 0.35 m off (the long stick: itself, twice as |
|           | far; on the table a third as far)                                               |
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from embodied_reward.types import Float64

from ..behaviour_parts import Act, sticky, until
from .env import TaskEnv
from .planar import Planar
from .planar_experts import EXPERTS
from .tabletop_experts import tabletop_expert

_STICKY_S = 0.3  # correlation time of an expert's noise [s]
_NOISE = (0.2, 0.7)  # its standard deviation, in units of the action
_WANDER_S, _WANDER = 0.8, 0.8  # the same of wandering
_ENOUGH = (0.05, 0.6)  # progress at which a failing behaviour gives up ...
_PATIENCE_S = (0.5, 5.0)  # ... or time, whichever comes first [s]
_BESIDE = (0.2, 0.35)  # [m]


def expert(env: TaskEnv, rng: np.random.Generator) -> Act:
    """Return the task's expert for the environment's embodiment."""
    return _scripted(env)


def careless(env: TaskEnv, rng: np.random.Generator) -> Act:
    """Return an expert that does not do what a person would want done."""
    return _scripted(env, careless=True)


def _scripted(env: TaskEnv, **kwargs: Any) -> Act:
    rules, name = env.rules, type(env.rules).__name__
    if isinstance(rules, Planar):
        return EXPERTS[name](rules.body, _rate(env), **kwargs)
    return tabletop_expert(name, _rate(env), **kwargs)


def _noisy(env: TaskEnv, rng: np.random.Generator) -> Act:
    act = expert(env, rng)
    noise = _sticky(env, rng, seconds=_STICKY_S, strength=rng.uniform(*_NOISE))
    return lambda seen: np.clip(act(seen) + noise(), -1.0, 1.0).astype(np.float32)


def _wander(env: TaskEnv, rng: np.random.Generator) -> Act:
    noise = _sticky(env, rng, seconds=_WANDER_S, strength=_WANDER)
    return lambda _: np.clip(noise(), -1.0, 1.0).astype(np.float32)


def _stop(env: TaskEnv, rng: np.random.Generator) -> Act:
    still = np.zeros(env.rules.actions, np.float32)
    return _until(env, rng, expert(env, rng), lambda _: still)


def _retreat(env: TaskEnv, rng: np.random.Generator) -> Act:
    return _until(env, rng, expert(env, rng), _wander(env, rng))


def _miss(env: TaskEnv, rng: np.random.Generator) -> Act:
    act = expert(env, rng)
    angle, distance = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(*_BESIDE)
    offset = distance * np.array([np.cos(angle), np.sin(angle)])
    return lambda seen: act(env.rules.misread(seen, offset))


BEHAVIOURS: dict[str, Callable[[TaskEnv, np.random.Generator], Act]] = {
    "expert": expert,
    "noisy": _noisy,
    "careless": careless,
    "wander": _wander,
    "stop": _stop,
    "retreat": _retreat,
    "miss": _miss,
}


def _rate(env: TaskEnv) -> float:
    return float(env.metadata["render_fps"])


def _sticky(
    env: TaskEnv, rng: np.random.Generator, *, seconds: float, strength: float
) -> Callable[[], Float64]:
    return sticky(_rate(env), rng, count=env.rules.actions, seconds=seconds, strength=strength)


def _until(env: TaskEnv, rng: np.random.Generator, first: Act, then: Act) -> Act:
    enough, most = rng.uniform(*_ENOUGH), round(rng.uniform(*_PATIENCE_S) * _rate(env))
    return until(env.progress, enough, most, first, then)
