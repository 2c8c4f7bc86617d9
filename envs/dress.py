"""How somebody may change what is seen of a scene without touching the scene."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from embodied_reward.types import Float64, UInt8


@dataclass(frozen=True)
class Shot:
    """One picture as the camera took it, before it is turned upright.

    Attributes:
        view: the camera's name.
        frame: UInt8["h w 3"], first row on top.
        depth: Float64["h w"], distance along the optical axis [m]; inf where nothing is.
        place: where the camera is, Float64[3] [m].
        axes: its right, up and backward directions as columns, Float64["3 3"].
        focal: focal length [px].
        sky: distance beyond which there is only a skybox, which MuJoCo draws as a far box [m].
    """

    view: str
    frame: UInt8
    depth: Float64
    place: Float64
    axes: Float64
    focal: float
    sky: float

    def rays(self) -> Float64:
        """Return the direction of every pixel in the world, Float64["h w 3"].

        Scaled so that `place + depth * ray` is the point that is seen.
        """
        height, width = self.depth.shape
        across = (np.arange(width) + 0.5 - width / 2) / self.focal
        up = (height / 2 - np.arange(height) - 0.5) / self.focal
        x, y = np.meshgrid(across, up)
        return np.stack([x, y, -np.ones_like(x)], axis=-1) @ self.axes.T


class Dress(Protocol):
    """What a scene wears while its pictures are taken."""

    @property
    def paints(self) -> bool:
        """Whether `paint` wants to be called, which costs reading the depth of every pixel."""
        ...

    def worn(self, model: Any, data: Any) -> AbstractContextManager[None]:
        """Change `mujoco.MjModel` and `mujoco.MjData` until the context ends, then put all back."""
        ...

    def add(self, scene: Any) -> None:
        """Add geoms to the `mujoco.MjvScene` of one picture."""
        ...

    def paint(self, shot: Shot, model: Any, data: Any) -> UInt8:
        """Return what the picture becomes, UInt8["h w 3"]."""
        ...
