"""Light and cameras: arrays that are other ones while a picture is taken."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from embodied_reward.types import Float64

from .changes import Change
from .colour import rgb
from .draws import Draw

_ORBIT = np.deg2rad(12.0)  # of a camera about what it looks at
_LIFT = np.deg2rad(8.0)
_ROLL = np.deg2rad(5.0)
_AIM = 0.12  # share of half the field of view
_DISTANCE = 0.05, 0.2  # shares of it; farther only, so that nothing leaves the picture
_HELD = 0.25  # a camera on a robot turns by this share of the angles


def lit(model: Any, data: Any, level: float, draw: Draw) -> Iterator[Change]:
    """Yield other lights: turned about the vertical, weaker, tinted.

    The azimuth leads. The headlight gives some of its light to the lamps, or no direction would
    be seen where scenes are lit from the camera.
    """
    lean, dimness, hue = draw.numbers[0], (draw.numbers[1] + 1.0) / 2.0, draw.numbers[2]
    turn = _about([0.0, 0.0, 1.0], level * np.pi * (2.0 * draw.leading - 1.0))
    turn = _about([1.0, 0.0, 0.0], level * 0.6 * lean) @ turn
    strength = 1.0 - level * (0.05 + 0.25 * dimness)
    colour = (1.0 - 0.5 * level) + 0.5 * level * rgb(hue, 0.7, 1.0)
    head, given = model.vis.headlight, 0.5 * level * model.vis.headlight.diffuse
    yield head.ambient, head.ambient * strength * colour
    yield head.diffuse, (head.diffuse - given) * strength * colour
    yield model.light_ambient, model.light_ambient * strength * colour
    # A lamp lights one side only, so it may be brighter than the headlight it replaces.
    lamps = model.light_diffuse + 1.5 * given / max(model.nlight, 1)
    yield model.light_diffuse, lamps * strength * colour
    middle = model.stat.center
    yield data.light_xpos, middle + (data.light_xpos - middle) @ turn.T
    yield data.light_xdir, data.light_xdir @ turn.T


def moved_cameras(model: Any, data: Any, level: float, draw: Draw) -> Iterator[Change]:
    """Yield cameras that stand and look elsewhere; the orbit's azimuth leads.

    A camera that stands still orbits what it looks at, the nearest point of its axis to the
    scene's middle; one that a robot carries turns a little where it is.
    """
    places, axes = data.cam_xpos.copy(), data.cam_xmat.reshape(-1, 3, 3).copy()
    for camera in range(model.ncam):
        held = model.body_weldid[model.cam_bodyid[camera]] != 0
        size = level * (_HELD if held else 1.0)
        lift, roll, *aim, back = np.roll(draw.numbers, -5 * camera)[:5]
        orbit = _orbit(axes[camera], size, draw.signed, lift, roll)
        farther = 1.0 + size * (_DISTANCE[0] + (_DISTANCE[1] - _DISTANCE[0]) * (back + 1.0) / 2.0)
        pivot = places[camera] if held else _pivot(model, places[camera], axes[camera])
        places[camera] = pivot + farther * orbit @ (places[camera] - pivot)
        axes[camera] = orbit @ axes[camera]
        for axis, angle in zip((0, 1), aim, strict=True):
            turn = size * _AIM * angle * np.deg2rad(model.cam_fovy[camera]) / 2.0
            axes[camera] = _about(axes[camera][:, axis], turn) @ axes[camera]
    yield data.cam_xpos, places
    yield data.cam_xmat, axes.reshape(-1, 9)


def _orbit(axes: Float64, size: float, signed: float, lift: float, roll: float) -> Float64:
    around = _about([0.0, 0.0, 1.0], size * _ORBIT * signed)
    up = _about(axes[:, 0], size * _LIFT * lift)
    return around @ up @ _about(axes[:, 2], size * _ROLL * roll)


def _pivot(model: Any, place: Float64, axes: Float64) -> Float64:
    """Return the point of the camera's axis that is nearest to the scene's middle."""
    ahead = -axes[:, 2]
    distance = max(float((model.stat.center - place) @ ahead), 0.3)
    return place + distance * ahead


def _about(axis: Any, angle: float) -> Float64:
    """Return the rotation by `angle` [rad] about a unit vector, after Rodrigues."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
