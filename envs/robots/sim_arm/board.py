"""Memory that the arm and its cameras' process share: the scene one way, pictures the other."""

import mmap
import os
import struct

import numpy as np

from embodied_reward.types import Float64, UInt8

_HEAD = struct.Struct("=Qd")  # writes so far (odd: one is under way), time [s]
_TRIES = 1000


class _Slot:
    """One value that a single process writes and another reads whole."""

    def __init__(self, memory: mmap.mmap, offset: int, size: int) -> None:
        self._memory, self._offset, self._size = memory, offset, size

    def write(self, time: float, content: bytes) -> None:
        """Replace the value; a reader meanwhile sees an odd count and tries again."""
        count, _ = _HEAD.unpack_from(self._memory, self._offset)
        start = self._offset + _HEAD.size
        _HEAD.pack_into(self._memory, self._offset, count | 1, time)
        self._memory[start : start + self._size] = content
        _HEAD.pack_into(self._memory, self._offset, (count | 1) + 1, time)

    def time(self) -> float:
        """Return the time of the value; 0 before the first."""
        return _HEAD.unpack_from(self._memory, self._offset)[1]

    def read(self) -> tuple[float, bytes]:
        """Return time and value. Raises TimeoutError where a writer died while writing."""
        start = self._offset + _HEAD.size
        for _ in range(_TRIES):
            before = _HEAD.unpack_from(self._memory, self._offset)
            content = self._memory[start : start + self._size]
            if before[0] % 2 == 0 and before == _HEAD.unpack_from(self._memory, self._offset):
                return before[1], content
        raise TimeoutError("the newest picture was never finished: its camera died")


class Board:
    """The shared memory.

    Args:
        positions: numbers in MuJoCo's `qpos`.
        size: height and width of the pictures [px].
        views: pictures.
        fd: of the memory, in the process that was given it; None makes it.
    """

    def __init__(self, positions: int, size: int, views: int, fd: int | None = None) -> None:
        self._shape, self._positions = (views, size, size, 3), positions
        scene, frames = 8 * (positions + 3), views * size * size * 3
        total = 2 * _HEAD.size + scene + frames
        self.fd = os.memfd_create("er-sim-arm") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, total)
        self._memory = mmap.mmap(self.fd, total)
        self._scene = _Slot(self._memory, 0, scene)
        self._frames = _Slot(self._memory, _HEAD.size + scene, frames)

    def write_scene(self, time: float, qpos: Float64, mocap: Float64) -> None:
        """Publish positions Float64["q"] and the first mark's place Float64["1 3"]."""
        self._scene.write(time, np.concatenate([qpos, mocap.ravel()[:3]]).tobytes())

    def read_scene(self) -> tuple[float, Float64, Float64]:
        """Return time, positions and the mark's place."""
        time, content = self._scene.read()
        numbers = np.frombuffer(content, np.float64)
        return time, numbers[: self._positions], numbers[self._positions :].reshape(1, 3)

    def write_frames(self, time: float, frames: UInt8) -> None:
        """Publish pictures UInt8["v h w 3"] of the scene at `time`."""
        self._frames.write(time, frames.tobytes())

    def read_frames(self) -> tuple[float, UInt8]:
        """Return when the pictures were taken, and them."""
        time, content = self._frames.read()
        return time, np.frombuffer(content, np.uint8).reshape(self._shape).copy()

    def taken(self) -> float:
        """Return when the newest pictures were taken; 0 before the first."""
        return self._frames.time()

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self.fd)
