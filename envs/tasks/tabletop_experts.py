"""Scripted experts of the tabletop tasks: where the hand should go next, from what is seen now.

A careless one ends where a hasty person would: above the ball, before the mark, with the drawer
half open, beside the hole.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from embodied_reward.types import Float32, Float64

from .tabletop import HOLE, PUCK, SPEED
from .tabletop_scene import PEG_TIP

Act = Callable[[Mapping[str, Any]], Float32]
Where = Callable[[Float64, Float64], Float64]  # (hand, state) -> where the hand should go [m]

_OVER = 0.27  # fingertips at this height pass the screen [m]
_HOVER = 0.1  # above what is pushed [m]
_BEHIND = PUCK + 0.03  # the hand's middle is so far from the puck's before a push [m]
_HOOK = np.array([0.0, 0.03, -0.018])  # from the handle to where the fingers pull [m]
_ABOVE_HANDLE = 0.1  # [m]


def _reach(hand: Float64, ball: Float64) -> Float64:
    beside = np.linalg.norm((ball - hand)[:2])
    if beside < 0.035 or hand[1] > 0.02:
        return ball
    if hand[2] < _OVER - 0.02 and hand[1] > -0.2:
        return np.array([hand[0], hand[1] - 0.01, _OVER])
    return np.array([*ball[:2], _OVER + 0.01])


def _hover_over_ball(hand: Float64, ball: Float64) -> Float64:
    return _reach(hand, ball + [0.0, 0.0, 0.09])


def _push(hand: Float64, state: Float64) -> Float64:
    puck, goal = state[:2], state[3:]
    return _push_along(hand, puck, goal - puck)


def _push_short(hand: Float64, state: Float64) -> Float64:
    """Leave the puck 7 cm before the mark."""
    way = state[3:] - state[:2]
    left = float(np.linalg.norm(way))
    return _push_along(hand, state[:2], way * max(left - 0.07, 0.0) / max(left, 1e-6))


def _push_along(hand: Float64, puck: Float64, way: Float64) -> Float64:
    left = float(np.linalg.norm(way))
    along = way / max(left, 1e-6)
    offset = puck - hand[:2]
    across = np.array([-along[1], along[0]])
    beside = float(offset @ across)
    low = hand[2] < 0.03
    if low and left < 0.012:
        return hand
    if low and offset @ along > 0.02 and abs(beside) < 0.015:
        return np.array([*(hand[:2] + min(left, 0.02) * along + beside * across), 0.012])
    start = puck - _BEHIND * along
    if np.linalg.norm(start - hand[:2]) < 0.012:
        return np.array([*start, 0.012])
    if hand[2] < _HOVER - 0.02:
        return np.array([*(hand[:2] - 0.02 * along), _HOVER])
    return np.array([*start, _HOVER])


def _pull(hand: Float64, state: Float64, enough: float = 0.14) -> Float64:
    handle, opening = state[:3], state[3]
    hook = handle + _HOOK
    across, along = hand[:2] - handle[:2]
    if opening >= enough:
        return hand
    if abs(across) < 0.02 and 0.005 < along < 0.05 and hand[2] < handle[2]:
        return hand - [0.0, 0.03, 0.0]
    if np.linalg.norm(hand[:2] - hook[:2]) < 0.012:
        return hook
    if hand[2] < handle[2] + _ABOVE_HANDLE - 0.02:
        return np.array([*hand[:2], handle[2] + _ABOVE_HANDLE])
    return np.array([*hook[:2], handle[2] + _ABOVE_HANDLE])


def _pull_half(hand: Float64, state: Float64) -> Float64:
    return _pull(hand, state, enough=0.06)


def _insert(hand: Float64, mouth: Float64) -> Float64:
    beside = np.abs(hand[:2] - mouth[:2]).max()
    tip = hand[2] - PEG_TIP
    bottom = np.array([*mouth[:2], mouth[2] + PEG_TIP - 0.06])
    if beside < 0.003 or (tip < mouth[2] and beside < HOLE):
        return bottom
    if tip < mouth[2] + 0.015:
        return np.array([*hand[:2], mouth[2] + PEG_TIP + 0.03])
    return np.array([*mouth[:2], mouth[2] + PEG_TIP + 0.025])


def _press_beside(hand: Float64, mouth: Float64) -> Float64:
    return _insert(hand, mouth + [0.035, -0.035, 0.0])


# task -> (expert, careless expert, the fingers' action)
WAYS: dict[str, tuple[Where, Where, float]] = {
    "TableReach": (_reach, _hover_over_ball, -1.0),
    "TablePush": (_push, _push_short, 1.0),
    "TableDrawer": (_pull, _pull_half, 1.0),
    "TablePeg": (_insert, _press_beside, 0.0),
}


def tabletop_expert(task: str, rate: float, *, careless: bool = False) -> Act:
    """Return an expert.

    Args:
        task: a name of `WAYS`.
        rate: decisions per second [Hz].
        careless: do not finish as a person would want.
    """
    expert, hasty, grip = WAYS[task]
    where = hasty if careless else expert

    def act(observation: Mapping[str, Any]) -> Float32:
        hand = observation["agent_pos"][:3].astype(np.float64)
        goal = where(hand, observation["environment_state"].astype(np.float64))
        move = (goal - hand) * rate / SPEED
        move /= max(1.0, float(np.linalg.norm(move)))
        return np.array([*move, grip], np.float32)

    return act
