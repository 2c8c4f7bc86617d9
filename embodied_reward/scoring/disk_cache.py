"""Features that outlive a process: safetensors segments, written once, read by memory map."""

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from embodied_reward.files import replacing
from embodied_reward.types import Int64

SEGMENT_ROWS = 4096


class DiskCache:
    """One folder per lane, in it segments with `keys` UInt8["k 24"] and `features` ["k ..."].

    A segment appears complete or not at all, so processes may share the folder: each sees what
    the others had written when it first used a lane. A damaged segment is skipped with a warning.

    Args:
        folder: created when something is written.
        max_bytes: of one lane; the oldest segments go first.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._lanes: dict[str, _Lane] = {}

    def get(self, lane: str, keys: Sequence[bytes]) -> tuple[Int64, Tensor | None]:
        """Return the positions Int64["k"] of the keys that are there, and their rows."""
        opened = self._lane(lane)
        places = [opened.index.get(key) for key in keys]
        found = np.array([k for k, place in enumerate(places) if place is not None], np.int64)
        if not len(found):
            return found, None
        return found, torch.stack([opened.row(*places[k]) for k in found])  # type: ignore[misc]

    def put(self, lane: str, keys: Sequence[bytes], features: Tensor) -> None:
        """Keep rows Tensor["k ..."] for the next segment, and write it when it is full."""
        opened = self._lane(lane)
        for key, row in zip(keys, features.detach().cpu(), strict=True):
            if key not in opened.index and key not in opened.waiting:
                opened.waiting[key] = row.clone()
        if len(opened.waiting) >= SEGMENT_ROWS:
            opened.write(self._max_bytes)

    def flush(self) -> None:
        """Write every lane's last segment."""
        for opened in self._lanes.values():
            opened.write(self._max_bytes)

    def _lane(self, lane: str) -> "_Lane":
        if lane not in self._lanes:
            name = hashlib.sha256(lane.encode()).hexdigest()[:32]
            self._lanes[lane] = _Lane(self._folder / name)
        return self._lanes[lane]


class _Lane:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.waiting: dict[bytes, Tensor] = {}
        self.index: dict[bytes, tuple[int, int]] = {}
        self._segments: list[Tensor] = []
        for path in self._paths():
            self._read(path)

    def _paths(self) -> list[Path]:
        # pathlib's `*` matches the hidden names of segments that are being written.
        return [p for p in sorted(self.folder.glob("*.safetensors")) if p.name[0] != "."]

    def row(self, segment: int, row: int) -> Tensor:
        return self._segments[segment][row]

    def write(self, max_bytes: int) -> None:
        if not self.waiting:
            return
        keys = list(self.waiting)
        table = torch.from_numpy(
            np.frombuffer(bytearray(b"".join(keys)), np.uint8).reshape(len(keys), -1)
        )
        path = self.folder / f"{time.time_ns():020d}-{os.getpid()}.safetensors"
        with replacing(path) as temporary:
            rows = torch.stack([self.waiting[key] for key in keys])
            save_file({"keys": table, "features": rows}, temporary)
        self.waiting.clear()
        self._read(path)
        self._trim(max_bytes)

    def _read(self, path: Path) -> None:
        try:
            with safe_open(path, "pt") as file:
                keys, features = file.get_tensor("keys").numpy(), file.get_tensor("features")
            if len(keys) != len(features) or keys.ndim != 2:
                raise SafetensorError(f"{len(keys)} keys for {len(features)} features")
        except (SafetensorError, OSError) as error:
            warnings.warn(
                f"cache segment '{path}' is damaged ({error}) and is ignored; delete it",
                stacklevel=2,
            )
            return
        number = len(self._segments)
        self._segments.append(features)
        self.index.update({key.tobytes(): (number, row) for row, key in enumerate(keys)})

    def _trim(self, max_bytes: int) -> None:
        """Delete the oldest segments; rows that this process has mapped stay readable for it."""
        paths = self._paths()
        sizes = [path.stat().st_size for path in paths]
        while len(paths) > 1 and sum(sizes) > max_bytes:
            with contextlib.suppress(FileNotFoundError):
                paths[0].unlink()
            paths, sizes = paths[1:], sizes[1:]
