"""True progress of robosuite tasks, from the simulator's geometry.

Progress is a function of the present state and of the episode's first state, nothing between:

    1.0                                             when robosuite reports success, else
    min(0.99, (things done + progress of the best other thing) / things)

The progress of a thing is the mean of its parts, as in `embodied_reward.envs.progress`: a part is
the share of its first distance that is gone, all weigh the same, and a later part vouches for
earlier ones.

| task             | parts                                                                     |
|------------------|---------------------------------------------------------------------------|
| Lift             | hand to the cube; cube up to the height that robosuite asks for           |
| Stack            | hand to the red cube; its way onto the green one                          |
| Door             | hand to the handle; handle turned until the latch is free; door opened    |
| NutAssembly...   | per nut: hand to the nut's handle; the nut's way onto its peg             |
| PickPlace...     | per thing: hand to it; its way into its bin                               |
| Wipe             | wiper to the nearest dirt; share of the dirt that is wiped                |
| TwoArmPegInHole  | sum of sideways distance, depth and angle (times the peg's length), as    |
|                  | far as each is outside of what robosuite asks for                         |

A way over something is as long as a hand would carry the thing: up to where it passes, across,
and down. Where it is above its goal only the way down is left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embodied_reward.types import Float64

_CAP = 0.99  # success alone is 1.0
_NEAR = 0.03  # [m]; a hand that starts closer than this has approached already
_UNLATCHED = 1.2  # turn of the handle from which the latch passes its frame, by geometry [rad]
_OPENED = 0.3  # robosuite's threshold of success [rad]
_SIDEWAYS, _ABOVE, _BELOW, _ANGLE = 0.06, 0.14, -0.12, np.arccos(0.95)  # TwoArmPegInHole's

Left = list[list[float]]  # things, parts; what is left of each, 0 when done


@dataclass(frozen=True)
class Spec:
    """How one task's progress is measured.

    Attributes:
        left: robosuite's environment -> what is left, per thing and part.
        done: robosuite's environment -> which things are done; default: none before success.
    """

    left: Callable[[Any], Left]
    done: Callable[[Any], Sequence[bool]] = lambda _: ()


class Progress:
    """Progress of one task of `embodied_reward.envs.robosuite`."""

    def __init__(self, task: str) -> None:
        self._spec = SPECS[task]
        self._first: list[Float64] = []

    def start(self, sim: Any) -> None:
        """Remember an episode's first state."""
        self._first = [_first(np.array(parts)) for parts in self._spec.left(sim)]

    def value(self, sim: Any) -> float:
        """Return progress in [0, 1]; 1.0 exactly when robosuite reports success."""
        if sim._check_success():
            return 1.0
        left = self._spec.left(sim)
        done = [*self._spec.done(sim), *[False] * len(left)][: len(left)]
        things = [self._thing(*pair) for pair in zip(self._first, left, strict=True)]
        open_ones = [value for value, over in zip(things, done, strict=True) if not over]
        return min(_CAP, (sum(done) + max(open_ones, default=0.0)) / len(things))

    def _thing(self, first: Float64, left: list[float]) -> float:
        parts = np.clip(1.0 - np.array(left) / first, 0.0, 1.0)
        return float(np.maximum.accumulate(parts[::-1]).mean())


def way(here: Float64, goal: Float64, pass_height: float, beside: float = 0.0) -> float:
    """Return how far a thing has to be carried over something [m].

    Args:
        here: where it is, x, y, z [m].
        goal: where it has to be [m]; at or below that height it is down.
        pass_height: height at which it passes what stands in the way [m].
        beside: distance from the goal, seen from above, within which the way down is free [m].
    """
    across = max(float(np.linalg.norm((here - goal)[:2])) - beside, 0.0)
    if across == 0.0:
        return max(float(here[2] - goal[2]), 0.0)
    high = max(pass_height, float(here[2]))
    return high - float(here[2]) + across + max(high - float(goal[2]), 0.0)


def _first(parts: Float64) -> Float64:
    """Return first distances; a hand that starts at the thing has approached.

    Measured against a first distance of nothing, its first millimetre away would undo all that.
    """
    return np.maximum(parts, np.array([_NEAR, *[1e-6] * (len(parts) - 1)]))


def _hand(sim: Any) -> Float64:
    return sim.sim.data.site_xpos[sim.robots[0].eef_site_id["right"]]


def _reach(sim: Any, place: Float64, near: float = 0.02) -> float:
    return max(float(np.linalg.norm(_hand(sim) - place)) - near, 0.0)


def _place(sim: Any, name: str) -> Float64:
    return sim.sim.data.body_xpos[sim.sim.model.body_name2id(name)]


def _lift(sim: Any) -> Left:
    cube = _place(sim, sim.cube.root_body)
    goal = sim.model.mujoco_arena.table_offset[2] + 0.04
    return [[_reach(sim, cube), max(float(goal - cube[2]), 0.0)]]


def _stack(sim: Any) -> Left:
    red, green = _place(sim, sim.cubeA.root_body), _place(sim, sim.cubeB.root_body)
    goal = green + [0.0, 0.0, sim.cubeA.size[2] + sim.cubeB.size[2] + 0.002]
    return [[_reach(sim, red), way(red, goal, goal[2] + 0.03, beside=0.02)]]


def _door(sim: Any) -> Left:
    turned, opened = (
        float(sim.sim.data.qpos[a]) for a in (sim.handle_qpos_addr, sim.hinge_qpos_addr)
    )
    near = _reach(sim, sim._handle_xpos, near=0.03)
    return [[near, max(_UNLATCHED - abs(turned), 0.0), max(_OPENED - opened, 0.0)]]


def _nuts(sim: Any, chosen: Sequence[int] = (0, 1)) -> Left:
    found = []
    for i in chosen:
        peg = _place(sim, f"peg{i + 1}")
        goal = np.array([*peg[:2], sim.table_offset[2] + 0.05])
        nut = _place(sim, sim.nuts[i].root_body)
        handle = sim.sim.data.site_xpos[sim.object_site_ids[i]]
        top = float(peg[2]) + 0.1
        found.append([_reach(sim, handle), way(nut, goal, top, beside=0.03)])
    return found


def _groceries(sim: Any, chosen: Sequence[int] = (0, 1, 2, 3)) -> Left:
    found = []
    for i in chosen:
        thing, goal = _place(sim, sim.objects[i].root_body), sim.target_bin_placements[i].copy()
        # robosuite asks for any place within a quarter of the bin; the nearest is the goal.
        room = np.array(sim.bin_size[:2]) / 4.0 - 0.005
        goal[:2] = np.clip(thing[:2], goal[:2] - room, goal[:2] + room)
        goal[2] += 0.1
        rim = float(goal[2]) + 0.1
        found.append([_reach(sim, thing, near=0.04), way(thing, goal, rim, beside=1e-3)])
    return found


def _wipe(sim: Any) -> Left:
    dirt = [m for m in sim.model.mujoco_arena.markers if m not in sim.wiped_markers]
    places = [_place(sim, marker.root_body) for marker in dirt]
    near = min((_reach(sim, place) for place in places), default=0.0)
    return [[near, len(dirt) / sim.num_markers]]


def _peg_in_hole(sim: Any) -> Left:
    depth, sideways, cosine = sim._compute_orientation()
    angle = float(np.arccos(np.clip(cosine, 0.0, 1.0)))
    outside = max(float(depth) - _ABOVE, _BELOW - float(depth), 0.0)
    turn = 2.0 * sim.peg_length * max(angle - _ANGLE, 0.0)
    return [[max(float(sideways) - _SIDEWAYS, 0.0) + outside + turn]]


def _only(left: Callable[[Any, Sequence[int]], Left], index: int) -> Spec:
    return Spec(lambda sim: left(sim, [index]))


SPECS: dict[str, Spec] = {
    "Lift": Spec(_lift),
    "Stack": Spec(_stack),
    "Door": Spec(_door),
    "NutAssembly": Spec(_nuts, lambda sim: [bool(on) for on in sim.objects_on_pegs]),
    "NutAssemblySquare": _only(_nuts, 0),
    "NutAssemblyRound": _only(_nuts, 1),
    "PickPlace": Spec(_groceries, lambda sim: [bool(there) for there in sim.objects_in_bins]),
    "PickPlaceMilk": _only(_groceries, 0),
    "PickPlaceBread": _only(_groceries, 1),
    "PickPlaceCereal": _only(_groceries, 2),
    "PickPlaceCan": _only(_groceries, 3),
    "Wipe": Spec(_wipe),
    "TwoArmPegInHole": Spec(_peg_in_hole),
}
