"""The nearest command to a wish that the door will let pass, so that it is seldom tried.

The door (`safety.py`) judges; this shapes. A policy's or an operator's wish may lie anywhere; what
is planned from it keeps to velocity and acceleration, can always brake before the limits of
position and workspace, and is what gets recorded as the action.
"""

import numpy as np

from embodied_reward.types import Float64

from .kinematics import geodesic_angle
from .limits import Limits

_SHRINK = 1.0 - 1e-5  # rounding to float32 must not carry a command over a limit
_MARGIN = 0.004  # of the workspace's box [m]: paths of braking joints are not straight
_SHARES = (1.0, 0.75, 0.5, 0.25, 0.1, 0.0)


def plan(wish: Float64, limits: Limits, *, sent: Float64, velocity: Float64) -> Float64:
    """Return the command nearest to `wish` that the arm can be told next, Float64["n"] [unit].

    Args:
        wish: finite motor positions, Float64["n"] [unit].
        limits: the robot's.
        sent: what it was told before [unit].
        velocity: the change per second of that [unit/s].
    """
    period, room = limits.period, limits.acceleration * limits.period * _SHRINK
    target = np.clip(wish, limits.low, limits.high)
    towards = (target - sent) / period
    towards = np.clip(towards, -_arriving(sent - target, limits), _arriving(target - sent, limits))
    low = -np.minimum(limits.velocity * _SHRINK, _braking(sent - limits.low, limits))
    high = np.minimum(limits.velocity * _SHRINK, _braking(limits.high - sent, limits))
    for share in _SHARES:
        # The smallest change of speed has the last word: without it nothing may move at all.
        speed = np.clip(share * towards, low, high)
        speed = np.clip(speed, velocity - room, velocity + room)
        if _allowed(sent, speed, limits):
            return sent + speed * period
    speed = np.clip(np.zeros_like(sent), velocity - room, velocity + room)
    return sent + speed * period


def _braking(way: Float64, limits: Limits) -> Float64:
    """Return the highest speed at which the arm can still stop within `way` [unit/s].

    v T + v^2 / (2 a) <= d: one period at that speed, then braking.
    """
    a, period = limits.acceleration * _SHRINK, limits.period
    return a * (np.sqrt(period**2 + 2.0 * np.maximum(way, 0.0) / a) - period)


def _arriving(way: Float64, limits: Limits) -> Float64:
    """Return the speed at which a wish ahead is approached, so that it is not overshot [unit/s]."""
    direct = np.maximum(way, 0.0) / limits.period
    step = limits.acceleration * limits.period
    return np.where(direct <= step, direct, np.minimum(direct, step + _braking(way, limits)))


def _allowed(sent: Float64, speed: Float64, limits: Limits) -> bool:
    """Return whether the tool stays inside and slow, at the next command and where it can stop."""
    workspace = limits.workspace
    if workspace is None:
        return True
    after = sent + speed * limits.period
    stop = after + speed * np.abs(speed) / (2.0 * limits.acceleration)
    stop = np.clip(stop, limits.low, limits.high)
    place, turn = workspace.chain.forward(np.stack([sent, after, stop]))
    wanted = place[1:]
    # From outside the margin (or where a hand was put by force) only ways back are allowed.
    low = np.minimum(workspace.low + _MARGIN, np.maximum(place[0], workspace.low))
    high = np.maximum(workspace.high - _MARGIN, np.minimum(place[0], workspace.high))
    inside = ((wanted >= low) & (wanted <= high)).all()
    turned = (geodesic_angle(workspace.reference, turn[1:]) <= workspace.angle * 0.995).all()
    moved = np.linalg.norm(place[1] - place[0]) / limits.period
    spun = geodesic_angle(turn[0], turn[1]) / limits.period
    slow = moved <= workspace.speed * _SHRINK and spun <= workspace.turning * _SHRINK
    return bool(inside and turned and slow)
