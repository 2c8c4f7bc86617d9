"""Takes the simulated cameras' pictures; run as a module it is their process."""

import sys
import time
from typing import Any

import numpy as np

from embodied_reward.types import Float64, UInt8

from ...rendering import Camera, ViewRenderer, load_mujoco
from .board import Board
from .scene import VIEWS, scene_xml


class Painter:
    """Draws both views of a task's scene.

    Args:
        task: of `scene.TASKS`.
        size: height and width of the pictures [px].
    """

    def __init__(self, task: str, size: int) -> None:
        self.model: Any = load_mujoco().MjModel.from_xml_string(scene_xml(task))
        self._data: Any = load_mujoco().MjData(self.model)
        cameras = {view: Camera(view) for view in VIEWS}
        self._renderer = ViewRenderer(self.model, cameras, (size, size), "auto")

    def draw(self, qpos: Float64, mocap: Float64) -> dict[str, UInt8]:
        """Return view -> UInt8["h w 3"] of the scene in these positions."""
        self._data.qpos[:], self._data.mocap_pos[:] = qpos, mocap
        load_mujoco().mj_forward(self.model, self._data)
        return self._renderer.render(self._data)

    def close(self) -> None:
        """Free the GL context."""
        self._renderer.close()


def main(task: str, size: int, fps: float, fd: int) -> None:
    """Take pictures of the scene on the board until the process is ended."""
    painter = Painter(task, size)
    board = Board(painter.model.nq, size, len(VIEWS), fd)
    due = time.monotonic()
    while True:
        taken, qpos, mocap = board.read_scene()
        pictures = painter.draw(qpos, mocap)
        board.write_frames(taken, np.stack([pictures[view] for view in VIEWS]))
        due = max(due + 1.0 / fps, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0.0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
