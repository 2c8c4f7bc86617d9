"""Where the tool of a serial arm is: products of rotations, for many joint vectors at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodied_reward.types import Float64


@dataclass(frozen=True)
class Link:
    """One revolute joint of a chain.

    Attributes:
        motor: position of its motor in the command vector.
        offset: from the joint before (or the base) to this one, in the frame of the one before [m].
        axis: unit vector of rotation, in the frame of the one before.
        scale: radians per unit of the motor [rad/unit].
        zero: the motor's reading at which the joint is at angle zero [unit].
    """

    motor: int
    offset: tuple[float, float, float]
    axis: tuple[float, float, float]
    scale: float
    zero: float = 0.0


@dataclass(frozen=True)
class SerialChain:
    """An arm's revolute joints from base to tool.

    At angle zero all frames have the base's orientation.

    Attributes:
        links: from the base outwards.
        tool: from the last joint to the tool's point, in the last joint's frame [m].
    """

    links: tuple[Link, ...]
    tool: tuple[float, float, float]

    def forward(self, command: Float64) -> tuple[Float64, Float64]:
        """Return where the tool is in the base's frame.

        Args:
            command: Float64["b n"], motor positions in the robot's units.

        Returns:
            Position Float64["b 3"] [m] and rotation matrix Float64["b 3 3"] of the tool.
        """
        count = len(command)
        place, turn = np.zeros((count, 3)), np.broadcast_to(np.eye(3), (count, 3, 3))
        for link in self.links:
            place = place + turn @ np.asarray(link.offset)
            angle = (command[:, link.motor] - link.zero) * link.scale
            turn = turn @ rotation(link.axis, angle)
        return place + turn @ np.asarray(self.tool), turn


def rotation(axis: Sequence[float], angle: Float64) -> Float64:
    """Return rotation matrices Float64["b 3 3"] about a unit axis by angles Float64["b"] [rad].

    Rodrigues' formula, R = I + sin(a) K + (1 - cos(a)) K^2 with K the axis' cross product.
    """
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1.0 - cosine) * (cross @ cross)


def geodesic_angle(first: Float64, second: Float64) -> Float64:
    """Return the angle of the rotation between orientations, Float64["b"] in [0, pi] [rad].

    The angle of R = first^T second, as atan2 of its sine and cosine: the arc cosine of the trace
    alone would lose half the digits near 0 and pi.

    Args:
        first: rotation matrices Float64["b 3 3"] or Float64["3 3"].
        second: the same.
    """
    turn = np.swapaxes(first, -1, -2) @ second
    skew = turn - np.swapaxes(turn, -1, -2)
    sine = np.sqrt(skew[..., 2, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 0] ** 2) / 2.0
    cosine = (np.trace(turn, axis1=-2, axis2=-1) - 1.0) / 2.0
    return np.arctan2(sine, cosine)


def matrix_of(quaternion: Sequence[float]) -> Float64:
    """Return the rotation matrix Float64["3 3"] of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
