"""True progress of Meta-World tasks, from the simulator's geometry.

Progress is a function of the present state and of the episode's first state, nothing between:

    1.0                                             when the simulator reports success, else
    min(0.99, mean of the family's parts)

| family    | parts (0 at the first state, 1 when done, clipped to [0, 1])                   |
|-----------|--------------------------------------------------------------------------------|
| reach     | goal: gripper to goal                                                          |
| mechanism | approach: hand to the contact point; move: button, handle, drawer, ...         |
| carry     | approach: hand to the grasp point; move: object to goal                        |
| tool      | approach: hand to the tool; bring: tool to object; move                        |

Every part has the same weight, as every sub-task has the same progress mass in Robo-Dopamine
(arXiv:2512.23703, section 3.1).

A part is `1 - (distance - done) / (first distance - done)`. "move" uses the very error that
Meta-World thresholds for success, with that threshold as `done`, so it reaches 1 where success
does. A later part counts for the earlier ones: a drawer that is half open credits the approach
with at least one half, wherever the hand is, since letting go undoes nothing.

The contact point is the object's observed position plus a fixed offset: where the hand stands
when the object first moves, measured over scripted experts (spread below 2 cm except where
noted). It matters: handles are observed at their centre but pushed from one side, so distance
to the bare position would fall while the hand goes to the wrong side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.errors import EnvError
from embodied_reward.types import Float64

Error = Callable[[Any, Float64, Mapping[str, Any]], float]
_CAP = 0.99  # success alone is 1.0
_NEAR = 0.03  # [m]; a hand that starts closer than this to contact has approached already


@dataclass(frozen=True)
class Spec:
    """How one task's progress is measured.

    Attributes:
        family: "reach", "mechanism", "carry" or "tool".
        done: the error at which Meta-World reports success.
        contact: offset [m] from the object's observed position to the hand at first contact.
        error: (sim, state, outcome) -> what is left to do; by default Meta-World's own
            `obj_to_target` [m].
        bring: (sim, state, outcome) -> distance [m] from tool to object; tools only.
    """

    family: str
    done: float
    contact: tuple[float, float, float] = (0.0, 0.0, 0.04)
    error: Error = lambda _sim, _state, outcome: float(outcome["obj_to_target"])
    bring: Error | None = None


class Progress:
    """Progress of one Meta-World task.

    Args:
        task: e.g. "drawer-open-v3".

    Raises:
        EnvError: from `value`, where the task has no honest definition.
    """

    def __init__(self, task: str) -> None:
        self._task, self._spec = task, SPECS.get(task)
        self._first: dict[str, float] = {}

    def start(self, sim: Any, state: Float64, outcome: Mapping[str, Any]) -> None:
        """Remember an episode's first state, Float64[39], and its `evaluate_state` info."""
        if self._spec is not None:
            first = _distances(self._spec, sim, state, outcome)
            # A hand that starts at the contact point has approached; measured against a first
            # distance of nothing, its first millimetre away would undo all of that at once.
            self._first = first | {"approach": max(first.get("approach", 0.0), _NEAR)}

    def value(self, sim: Any, state: Float64, outcome: Mapping[str, Any]) -> float:
        """Return progress in [0, 1]; 1.0 exactly when `outcome["success"]`."""
        if self._spec is None:
            why = UNDEFINED.get(self._task, "nobody has defined one")
            raise EnvError(f"'metaworld/{self._task}' has no honest progress: {why}")
        if outcome["success"]:
            return 1.0
        now, done = _distances(self._spec, sim, state, outcome), {"move": self._spec.done}
        parts = {k: _part(now[k], self._first[k], done.get(k, 0.0)) for k in now}
        return min(_CAP, combine(self._spec.family, parts))


_WEIGHTS = {
    "reach": {"move": 1.0},
    "mechanism": {"approach": 1 / 2, "move": 1 / 2},
    "carry": {"approach": 1 / 2, "move": 1 / 2},
    "tool": {"approach": 1 / 3, "bring": 1 / 3, "move": 1 / 3},
}


def combine(family: str, parts: Mapping[str, float]) -> float:
    """Return the weighted sum of parts in [0, 1]; later parts vouch for earlier ones."""
    total, reached = 0.0, 0.0
    for name, weight in reversed(_WEIGHTS[family].items()):
        reached = max(reached, parts[name])
        total += weight * reached
    return total


def _part(now: float, first: float, done: float) -> float:
    return float(np.clip(1.0 - (now - done) / max(first - done, 1e-6), 0.0, 1.0))


def _distances(
    spec: Spec, sim: Any, state: Float64, outcome: Mapping[str, Any]
) -> dict[str, float]:
    """Return what is left of every part, in the part's own unit."""
    left = {"move": spec.error(sim, state, outcome)}
    if spec.family != "reach":
        hand, contact = state[:3], state[4:7] + np.asarray(spec.contact)
        left["approach"] = max(float(np.linalg.norm(hand - contact)) - _NEAR, 0.0)
    if spec.bring is not None:
        left["bring"] = spec.bring(sim, state, outcome)
    return left


def _to_goal(sim: Any, state: Float64, _outcome: Mapping[str, Any]) -> float:
    return float(np.linalg.norm(state[4:7] - sim._target_pos))


def _below_goal(sim: Any, state: Float64, _outcome: Mapping[str, Any]) -> float:
    return float(sim._target_pos[2] - state[6])


def _door_x(sim: Any, state: Float64, _outcome: Mapping[str, Any]) -> float:
    return abs(float(state[4] - sim._target_pos[0]))


def _nail(sim: Any, _state: Float64, _outcome: Mapping[str, Any]) -> float:
    return 0.09 - float(sim.data.joint("NailSlideJoint").qpos[0])


def _lever(sim: Any, _state: Float64, _outcome: Mapping[str, Any]) -> float:
    """Angle [rad] left to vertical, as Meta-World computes it."""
    return abs(-float(sim.data.joint("LeverAxis").qpos[0]) - np.pi / 2)


def _hammer_to_nail(sim: Any, state: Float64, _outcome: Mapping[str, Any]) -> float:
    head = state[4:7] + np.array([0.16, 0.06, 0.0])
    return float(np.linalg.norm(head - sim._get_site_pos("nailHead")))


SPECS: dict[str, Spec] = {
    "assembly-v3": Spec("carry", 0.02, (-0.012, 0.0, 0.045), error=_to_goal),
    "basketball-v3": Spec("carry", 0.08, (0.007, 0.004, 0.048)),
    "bin-picking-v3": Spec("carry", 0.05, (0.0, 0.0, 0.042)),
    "box-close-v3": Spec("carry", 0.08, (0.003, -0.002, 0.07), error=_to_goal),
    "button-press-topdown-v3": Spec("mechanism", 0.024, (0.0, -0.002, 0.049)),
    "button-press-topdown-wall-v3": Spec("mechanism", 0.024, (0.0, -0.052, 0.044)),
    "button-press-v3": Spec("mechanism", 0.02, (0.0, -0.05, -0.063)),
    "button-press-wall-v3": Spec("mechanism", 0.03, (0.0, -0.039, 0.033)),
    "coffee-button-v3": Spec("mechanism", 0.02, (0.002, -0.049, -0.07)),
    "coffee-pull-v3": Spec("carry", 0.07, (0.0, 0.0, 0.072)),
    "coffee-push-v3": Spec("carry", 0.07, (0.013, 0.002, 0.068)),
    "dial-turn-v3": Spec("mechanism", 0.07, (0.037, 0.024, 0.09)),
    "disassemble-v3": Spec("carry", 0.0, (-0.013, -0.002, 0.04), error=_below_goal),
    "door-close-v3": Spec("mechanism", 0.08, (-0.04, 0.15, 0.046)),
    "door-lock-v3": Spec("mechanism", 0.02, (-0.017, -0.022, 0.045)),
    "door-open-v3": Spec("mechanism", 0.08, (0.008, 0.029, 0.015), error=_door_x),
    "door-unlock-v3": Spec("mechanism", 0.02, (-0.023, -0.015, -0.028)),
    "drawer-close-v3": Spec("mechanism", 0.065, (0.003, -0.022, -0.034)),
    "drawer-open-v3": Spec("mechanism", 0.03, (0.0, -0.018, -0.017)),
    "faucet-close-v3": Spec("mechanism", 0.07, (0.022, 0.039, 0.021)),
    "faucet-open-v3": Spec("mechanism", 0.07, (-0.022, 0.035, 0.024)),
    "hammer-v3": Spec("tool", 0.0, (-0.027, 0.0, 0.038), error=_nail, bring=_hammer_to_nail),
    "hand-insert-v3": Spec("carry", 0.05, (0.0, 0.0, 0.042)),
    "handle-press-side-v3": Spec("mechanism", 0.02, (0.003, 0.004, 0.021)),
    "handle-press-v3": Spec("mechanism", 0.02, (0.002, -0.017, 0.013)),
    "handle-pull-side-v3": Spec("mechanism", 0.08, (0.0, 0.0, 0.037)),
    "handle-pull-v3": Spec("mechanism", 0.05, (0.0, -0.041, 0.022)),
    "lever-pull-v3": Spec("mechanism", np.pi / 24, (0.0, -0.054, -0.115), error=_lever),
    "peg-insert-side-v3": Spec("carry", 0.07, (0.008, -0.003, 0.025)),
    "peg-unplug-side-v3": Spec("carry", 0.07, (-0.018, 0.006, 0.07)),
    "pick-out-of-hole-v3": Spec("carry", 0.07, (0.0, 0.0, 0.027)),
    "pick-place-v3": Spec("carry", 0.07, (0.0, 0.0, 0.038)),
    "pick-place-wall-v3": Spec("carry", 0.07, (0.0, 0.0, 0.039)),
    "plate-slide-back-side-v3": Spec("mechanism", 0.07, (0.024, 0.0, 0.06)),
    "plate-slide-back-v3": Spec("mechanism", 0.07, (0.004, -0.064, 0.057)),
    "plate-slide-side-v3": Spec("mechanism", 0.07, (0.067, 0.002, 0.032)),
    "plate-slide-v3": Spec("mechanism", 0.07, (0.0, -0.049, 0.059)),
    "push-back-v3": Spec("carry", 0.07, (0.008, -0.008, 0.043)),
    "push-v3": Spec("carry", 0.05, (0.0, 0.0, 0.033)),
    "push-wall-v3": Spec("carry", 0.07, (0.0, 0.0, 0.032)),
    "reach-v3": Spec("reach", 0.05),
    "reach-wall-v3": Spec("reach", 0.05),
    "shelf-place-v3": Spec("carry", 0.07, (0.003, 0.0, 0.045)),
    "soccer-v3": Spec("carry", 0.07, (0.012, -0.014, 0.052)),
    "sweep-into-v3": Spec("carry", 0.05, (0.0, 0.0, 0.029)),
    "sweep-v3": Spec("carry", 0.05, (0.007, 0.0, 0.053)),
    "window-close-v3": Spec("mechanism", 0.05, (0.022, -0.024, -0.095)),
    "window-open-v3": Spec("mechanism", 0.05, (0.0, -0.028, -0.093)),
}

_DRIFT = "its thermos slides 19 cm towards the goal by itself in the first 30 simulator steps"
UNDEFINED = {"stick-pull-v3": _DRIFT, "stick-push-v3": _DRIFT}
