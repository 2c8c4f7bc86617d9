"""Scripted behaviours of `trap/insert`, under the names that `behaviours.QUALITIES` draws from.

| behaviour | what it does                                                                |
|-----------|-----------------------------------------------------------------------------|
| expert    | straight to the socket, press to the bottom; again after every throw        |
| noisy     | expert under noise that is drawn anew at every decision                     |
| wander    | to random points of the table, one after the other; never presses           |
| stop      | expert up to a random progress in [0.2, 0.9], then stays: it may hover      |
| retreat   | expert up to such a progress, then wanders                                  |
| miss      | expert that sees the socket 6 to 15 cm beside its place                     |
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.types import Float32, Float64

from .trap import HALF_WIDTH, LENGTH, STEP, TOLERANCE, TrapEnv

Act = Callable[[Mapping[str, Any]], Float32]
_NOISE = 0.6  # standard deviation, in units of the action
_NEAR = 0.03  # a wanderer draws its next point within this distance of the last [m]


def _expert(env: TrapEnv, _rng: np.random.Generator) -> Act:
    return lambda observation: _insert(env, observation, observation["environment_state"])


def _noisy(env: TrapEnv, rng: np.random.Generator) -> Act:
    expert = _expert(env, rng)
    return lambda seen: np.clip(expert(seen) + rng.normal(0, _NOISE, 3), -1, 1).astype(np.float32)


def _wander(env: TrapEnv, rng: np.random.Generator) -> Act:
    low, high = [0.0, -HALF_WIDTH], [LENGTH, HALF_WIDTH]
    target = rng.uniform(low, high)

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal target
        if np.abs(target - observation["agent_pos"][:2]).max() < _NEAR:
            target = rng.uniform(low, high)
        return _toward(env, observation, target, lift=1.0)

    return act


def _stop(env: TrapEnv, rng: np.random.Generator) -> Act:
    still = np.zeros(3, np.float32)
    return _until(env, rng, _expert(env, rng), lambda _: still)


def _retreat(env: TrapEnv, rng: np.random.Generator) -> Act:
    return _until(env, rng, _expert(env, rng), _wander(env, rng))


def _miss(env: TrapEnv, rng: np.random.Generator) -> Act:
    offset = np.array([-rng.uniform(0.06, 0.15), rng.uniform(-0.05, 0.05)])
    return lambda seen: _insert(env, seen, seen["environment_state"] + offset)


BEHAVIOURS: dict[str, Callable[[TrapEnv, np.random.Generator], Act]] = {
    "expert": _expert,
    "noisy": _noisy,
    "wander": _wander,
    "stop": _stop,
    "retreat": _retreat,
    "miss": _miss,
}


def _insert(env: TrapEnv, observation: Mapping[str, Any], socket: Float32 | Float64) -> Float32:
    beside = np.abs(socket - observation["agent_pos"][:2]).max() > TOLERANCE
    return _toward(env, observation, socket, lift=1.0 if beside else -1.0)


def _toward(
    env: TrapEnv, observation: Mapping[str, Any], place: Float32 | Float64, lift: float
) -> Float32:
    reach = STEP * env.action_repeat  # one decision's longest way [m]
    sideways = (place - observation["agent_pos"][:2]) / reach
    return np.clip([*sideways, lift], -1.0, 1.0).astype(np.float32)


def _until(env: TrapEnv, rng: np.random.Generator, first: Act, then: Act) -> Act:
    enough, over = rng.uniform(0.2, 0.9), False

    def act(observation: Mapping[str, Any]) -> Float32:
        nonlocal over
        over = over or env.progress() >= enough - 1e-6
        return (then if over else first)(observation)

    return act
