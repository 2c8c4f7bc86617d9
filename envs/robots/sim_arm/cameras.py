"""The arm's two cameras: LeRobot cameras, whose pictures another process takes where realtime.

Hardware cameras fail on their own: their process can be stopped or killed, and then pictures get
old. The scene's positions reach that process, and its pictures come back, through memory that
both have mapped (`board.py`).
"""

import subprocess
import sys
import time
from typing import Any

from lerobot.cameras import Camera, CameraConfig

from embodied_reward.errors import EnvError
from embodied_reward.types import UInt8

from .. import processes
from .board import Board
from .faults import ActiveFaults
from .painter import Painter
from .scene import VIEWS
from .world import Snapshot, World

FRESH = 0.15  # age of a picture that shows that pictures come [s]
STARTING = 90.0  # longest wait for the first picture: MuJoCo and GL are loaded meanwhile [s]


class SimCamera(Camera):
    """One view of a `Studio`.

    Attributes:
        latest_timestamp: when the newest picture was taken [s], as LeRobot's cameras have it.
    """

    def __init__(self, view: str, size: int, fps: float, studio: "Studio") -> None:
        super().__init__(CameraConfig(fps=round(fps), width=size, height=size))
        self.view, self._studio = view, studio

    @property
    def is_connected(self) -> bool:
        """Whether pictures can be asked for."""
        return self._studio.open

    @property
    def latest_timestamp(self) -> float:
        """When the newest picture was taken, by the world's clock [s]."""
        return self._studio.taken(self.view)

    @staticmethod
    def find_cameras() -> list[dict[str, Any]]:
        """Return nothing: simulated cameras belong to their arm."""
        return []

    def connect(self, warmup: bool = True) -> None:
        """The studio opens both cameras."""

    def read(self) -> UInt8:
        """Return the newest picture, UInt8["h w 3"]."""
        return self._studio.picture(self.view)

    def async_read(self, timeout_ms: float = 200) -> UInt8:
        """Return the newest picture."""
        return self.read()

    def read_latest(self, max_age_ms: int = 500) -> UInt8:
        """Return the newest picture. Raises TimeoutError if it is older than that."""
        age = self._studio.world.now() - self.latest_timestamp
        if age > max_age_ms / 1000:
            raise TimeoutError(f"camera '{self.view}': the newest picture is {age:.2f} s old")
        return self.read()

    def disconnect(self) -> None:
        """The studio closes both cameras."""


class Studio:
    """Both cameras of one world.

    Args:
        world: what they look at.
        size: height and width of the pictures [px].
        fps: pictures per second, where the world runs by the wall clock.
        faults: a frozen camera keeps its picture, and the time at which it was taken.
    """

    def __init__(self, world: World, size: int, fps: float, faults: ActiveFaults) -> None:
        self.world, self._size, self._fps, self._faults = world, size, fps, faults
        self._frozen: dict[str, tuple[float, UInt8]] = {}
        self._painter: Painter | None = None
        self._board: Board | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self._drawn: tuple[float, dict[str, UInt8]] = (-1.0, {})

    @property
    def open(self) -> bool:
        """Whether the cameras are connected."""
        return self._painter is not None or self._board is not None

    def connect(self) -> None:
        """Start the cameras. Raises EnvError where no picture comes."""
        if not self.world.realtime:
            self._painter = Painter(self.world.task, self._size)
            return
        self._board = Board(self.world.model.nq, self._size, len(VIEWS))
        self.world.on_change = self._publish
        self._publish(self.world.seen())
        words = [self.world.task, str(self._size), str(self._fps), str(self._board.fd)]
        self.process = subprocess.Popen(  # noqa: S603 (our own module)
            [sys.executable, "-m", f"{__package__}.painter", *words],
            pass_fds=(self._board.fd,),
            stdin=subprocess.DEVNULL,
            preexec_fn=processes.die_with_parent,
        )
        deadline = time.monotonic() + STARTING
        while self.world.now() - self._board.taken() > FRESH:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise EnvError("the simulated cameras took no picture: `er doctor` checks GL")
            time.sleep(0.02)

    def close(self) -> None:
        """Stop the cameras; safe to call twice."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self._painter is not None:
            self._painter.close()
        if self._board is not None:
            self.world.on_change = None
            self._board.close()
        self.process = self._painter = self._board = None

    def taken(self, view: str) -> float:
        """Return when the newest picture of a view was taken [s]."""
        return self._newest(view)[0]

    def picture(self, view: str) -> UInt8:
        """Return the newest picture of a view, UInt8["h w 3"]."""
        return self._newest(view)[1]

    def _publish(self, snapshot: Snapshot) -> None:
        if self._board is not None:
            self._board.write_scene(snapshot.time, snapshot.qpos, snapshot.mocap)

    def _newest(self, view: str) -> tuple[float, UInt8]:
        if self._faults.hits("camera_crash") and self.process is not None:
            self.process.kill()
        if not self._faults.hits("camera_freeze", view):
            self._frozen.pop(view, None)
            return self._live(view)
        return self._frozen.setdefault(view, self._live(view))

    def _live(self, view: str) -> tuple[float, UInt8]:
        if self._board is not None:
            taken, frames = self._board.read_frames()
            return taken, frames[VIEWS.index(view)]
        if self._painter is None:
            raise EnvError("the simulated arm is not connected")
        snapshot = self.world.seen()
        if self._drawn[0] != snapshot.time or not self._drawn[1]:
            self._drawn = (snapshot.time, self._painter.draw(snapshot.qpos, snapshot.mocap))
        return snapshot.time, self._drawn[1][view].copy()
