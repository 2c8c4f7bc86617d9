"""The scripted operator of the simulated arm: what a person with a leader arm would do.

It knows the arm's geometry and sees what policies see: the motors and the tracker's numbers.
"""

from collections.abc import Mapping

import numpy as np

from embodied_reward.types import Float64

from .scene import HOME, MOTORS, ON_MARK, PUCK

_UPPER, _FORE, _HAND = 0.116, 0.135, 0.16  # [m]
_SHOULDER = (0.03, 0.115)  # away from the pan's axis and above the table [m]
_HOVER = 0.09  # height of the tip on its way round the puck [m]
_SHARE = 0.25  # of the way that is left, per decision
_LOW = 0.02  # height of the tip when it pushes [m]


def joints_for(tip: Float64, pitch: float) -> Float64:
    """Return motor positions Float64["n"] that bring the tip there, the hand `pitch` [deg] down.

    Two-link geometry in the plane of the pan; what is out of reach is approached as far as
    the arm goes.

    Args:
        tip: Float64[3] in the base's frame [m].
        pitch: of the hand below the horizontal [deg].
    """
    pan, down = np.arctan2(tip[1], tip[0]), np.deg2rad(pitch)
    across = np.hypot(tip[0], tip[1]) - _HAND * np.cos(down) - _SHOULDER[0]
    up = tip[2] + _HAND * np.sin(down) - _SHOULDER[1]
    longest, shortest = _UPPER + _FORE - 1e-4, abs(_UPPER - _FORE) + 1e-4
    far = np.clip(np.hypot(across, up), shortest, longest)
    cosine = (_UPPER**2 + far**2 - _FORE**2) / (2 * _UPPER * far)
    # The elbow stays above the line from shoulder to wrist.
    upper = np.pi / 2 - np.arctan2(up, across) - np.arccos(cosine)
    wrist = np.array([far * np.cos(np.arctan2(up, across)), far * np.sin(np.arctan2(up, across))])
    elbow = wrist - _UPPER * np.array([np.sin(upper), np.cos(upper)])
    fore = -np.arctan2(elbow[1], elbow[0])  # below the horizontal
    angles = np.rad2deg([pan, upper, fore - upper, down - fore])
    return np.array([*angles, HOME[4], HOME[5]])


class ScriptedOperator:
    """Solve a task of the simulated arm.

    Args:
        task: of `scene.TASKS`.
        rng: how it hesitates and how steeply it holds the hand, so that no two demonstrations
            are the same.
    """

    def __init__(self, task: str, rng: np.random.Generator) -> None:
        self._task, self._pitch = task, rng.uniform(57.0, 67.0)
        self._offset = rng.uniform(-0.006, 0.006, 3)

    def wish(self, values: Mapping[str, float]) -> Float64:
        """Return where the motors should go, Float64["n"], from an observation's numbers.

        A share of the way that is left, as people move: fast at first, gently at the end.
        """
        here = np.array([values[f"{motor}.pos"] for motor in MOTORS])
        return here + _SHARE * (joints_for(self._tip(values), self._pitch) - here)

    def _tip(self, values: Mapping[str, float]) -> Float64:
        if self._task == "reach":
            ball = np.array([values["ball.x"], values["ball.y"], values["ball.z"]])
            return ball + self._offset
        puck = np.array([values["puck.x"], values["puck.y"]])
        way = np.array([values["mark.x"], values["mark.y"]]) - puck
        return self._push(tip_of(values), puck, way)

    def _push(self, tip: Float64, puck: Float64, way: Float64) -> Float64:
        left = float(np.linalg.norm(way))
        along = way / max(left, 1e-6)
        if left < ON_MARK / 2:
            return tip
        behind = puck - (PUCK + 0.03) * along
        offset = puck - tip[:2]
        aside = abs(float(offset @ np.array([-along[1], along[0]])))
        if tip[2] < 0.045 and offset @ along > 0.02 and aside < 0.02:
            return np.array([*(puck - (PUCK - min(left, 0.03)) * along), _LOW])
        if np.linalg.norm(behind - tip[:2]) < 0.015:
            return np.array([*behind, _LOW])
        if tip[2] < _HOVER - 0.02 and np.linalg.norm(offset) < 0.08:
            return np.array([*tip[:2], _HOVER + 0.01])
        return np.array([*behind, _HOVER])


def tip_of(values: Mapping[str, float]) -> Float64:
    """Return where the tip is, Float64[3] [m], from the motors (the roll does not move it)."""
    pan, lift, elbow, wrist = (
        np.deg2rad(values[f"{m}.pos"])
        for m in ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex")
    )
    fore, hand = lift + elbow, lift + elbow + wrist
    reach = _SHOULDER[0] + _UPPER * np.sin(lift) + _FORE * np.cos(fore) + _HAND * np.cos(hand)
    high = _SHOULDER[1] + _UPPER * np.cos(lift) - _FORE * np.sin(fore) - _HAND * np.sin(hand)
    return np.array([reach * np.cos(pan), reach * np.sin(pan), high])
