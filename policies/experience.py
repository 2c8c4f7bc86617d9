"""One episode of a policy, as an actor sends it to a learner: safetensors, nothing that runs code.

The arrays are what the replay buffer stores; pictures stay where they were recorded. Reading
checks every name, type, shape and number before anything is kept.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from embodied_reward.errors import RequestError
from embodied_reward.types import Bool, Float32, Float64

MOST_STEPS = 100_000
"""Decisions of the longest episode that is read."""
ACCOUNTS = ("episode_reward_ledger", "run_reward_ledger")
"""What `info` holds of an episode's reward at its end: `shaping/ledger.py`."""
_ID = re.compile(r"[0-9a-zA-Z_-]{1,80}")
_TYPES = {
    "observations": np.float32,
    "actions": np.float32,
    "executed": np.float32,
    "interventions": np.bool_,
    "rewards": np.float64,
    "success": np.bool_,
    "potentials": np.float64,
    "shaping": np.float64,
}


@dataclass(frozen=True)
class Experience:
    """One finished episode of t decisions.

    Attributes:
        id: names it once and for all, so that it can be sent twice and kept once.
        observations: Float32["t+1 o"], flat.
        actions: Float32["t a"] in [-1, 1], what the policy wanted.
        executed: Float32["t a"] in [-1, 1], what was done.
        interventions: Bool["t"], whether a person acted.
        rewards: Float64["t"], base rewards.
        success: Bool["t"], the environment's.
        potentials: Float64["t+1"], Phi of every state as it was scored live.
        shaping: Float64["t"], what was added to the base reward, for the log.
        terminated: whether the last state is terminal; else the episode was truncated.
        facts: the reward's accounts for the log, name in `ACCOUNTS` -> numbers by name.
    """

    id: str
    observations: Float32
    actions: Float32
    executed: Float32
    interventions: Bool
    rewards: Float64
    success: Bool
    potentials: Float64
    shaping: Float64
    terminated: bool
    facts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Decisions."""
        return len(self.actions)


def encode(experience: Experience) -> bytes:
    """Return the episode as the bytes of a safetensors file."""
    arrays = {
        name: np.ascontiguousarray(getattr(experience, name), t) for name, t in _TYPES.items()
    }
    facts = {
        "id": experience.id,
        "terminated": experience.terminated,
        "facts": dict(experience.facts),
    }
    return safetensors.numpy.save(arrays, {"episode": json.dumps(facts)})


def decode(data: bytes | bytearray, *, observation: int, action: int) -> Experience:
    """Read an episode of so many observed and commanded numbers.

    Raises:
        RequestError: anything is not as `Experience` says; no other exception, whatever the bytes.
    """
    arrays = _arrays(bytes(data))
    steps = arrays["actions"].shape[0] if arrays["actions"].ndim else 0
    if not 1 <= steps <= MOST_STEPS:
        raise RequestError(f"an episode has 1 to {MOST_STEPS} decisions, this one has {steps}")
    shapes = {
        "observations": (steps + 1, observation),
        "actions": (steps, action),
        "executed": (steps, action),
        "potentials": (steps + 1,),
    }
    for name, array in arrays.items():
        expected = shapes.get(name, (steps,))
        if array.shape != expected:
            raise RequestError(f"'{name}' must have shape {expected}, got {array.shape}")
        if array.dtype != np.bool_ and not np.isfinite(array).all():
            raise RequestError(f"'{name}' holds a NaN or an infinity")
    for name in ("actions", "executed"):
        if np.abs(arrays[name]).max() > 1:
            raise RequestError(f"'{name}' must lie in [-1, 1], got {np.abs(arrays[name]).max()}")
    fields: dict[str, Any] = {**arrays, **_head(bytes(data))}
    return Experience(**fields)


def _arrays(data: bytes) -> dict[str, np.ndarray]:
    try:
        arrays = safetensors.numpy.load(data)
    # KeyError: a type that numpy does not have.
    except (SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise RequestError(f"the episode is no safetensors file: {error!s:.120}") from None
    if arrays.keys() != _TYPES.keys():
        raise RequestError(f"an episode holds {sorted(_TYPES)}, got {sorted(arrays)!s:.200}")
    for name, array in arrays.items():
        if array.dtype != _TYPES[name]:
            kind = np.dtype(_TYPES[name])
            raise RequestError(f"'{name}' must be of type {kind}, got {array.dtype}")
    return arrays


def _head(data: bytes) -> dict[str, Any]:
    try:
        tree = json.loads(metadata(data)["episode"])
        head = {"id": tree["id"], "terminated": tree["terminated"], "facts": tree["facts"]}
        good = _ID.fullmatch(head["id"]) and type(head["terminated"]) is bool
        good = good and set(head["facts"]) <= set(ACCOUNTS)
        good = good and all(_numbers(account) for account in head["facts"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        good, head = False, {}
    if not good:
        raise RequestError("the episode's metadata must hold id, terminated and facts as JSON")
    return head


def _numbers(account: Any) -> bool:
    return isinstance(account, dict) and all(type(x) in (int, float) for x in account.values())


def metadata(data: bytes) -> dict[str, str]:
    """Return the free texts in the header of a valid safetensors file."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})
