"""Features of pictures that were seen before, by content: in memory, and on disk if wanted.

The key is content, trunk, preprocessing and dtype (`Trunk.lane`); a head is not part of it, so
exchanging heads keeps every hit. Nothing expires by time.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.disk_cache import DiskCache
from embodied_reward.scoring.keys import digest_named
from embodied_reward.types import Int64

FIRST_ROWS = 256


class FeatureCache:
    """Features of images per trunk lane; safe to share between threads and cores.

    Args:
        capacity_bytes: memory for the features of one lane; the least recently used go first.
        folder: where features outlive the process; None keeps them in memory only.
        disk_bytes: bytes of one lane on disk; the oldest segments go first.
        hash: content hash, `xxh3` (fast) or `blake2b` (for tenants who do not trust each other).
    """

    def __init__(
        self,
        *,
        capacity_bytes: int = 1 << 30,
        folder: Path | str | None = None,
        disk_bytes: int = 16 << 30,
        hash: str = "xxh3",  # noqa: A002 (the plain word)
    ) -> None:
        self.digest = digest_named(hash)
        self._tag = hash
        self._capacity = capacity_bytes
        self._disk = DiskCache(Path(folder), disk_bytes) if folder else None
        self._lanes: dict[str, _Slab] = {}
        self._lock = threading.RLock()
        self.hits = self.disk_hits = self.misses = 0

    def lookup(self, lane: str, keys: Sequence[bytes]) -> tuple[Int64, Tensor | None]:
        """Find features.

        Returns:
            Positions Int64["k"] of the keys that are there, and their rows Tensor["k ..."], a
            copy; None without any hit.
        """
        with self._lock:
            slab = self._slab(lane)
            slots = slab.slots(keys)
            if self._disk is not None and (slots < 0).any():
                self._promote(lane, slab, [k for k, s in zip(keys, slots, strict=True) if s < 0])
                slots = slab.slots(keys)
            found = np.flatnonzero(slots >= 0)
            self.hits += len(found)
            self.misses += len(keys) - len(found)
            return found, slab.rows(slots[found]) if len(found) else None

    def put(self, lane: str, keys: Sequence[bytes], features: Tensor) -> None:
        """Store rows Tensor["k ..."] under their keys, as far as the device has memory for them."""
        with self._lock:
            self._slab(lane).put(keys, features)
            if self._disk is not None:
                self._disk.put(self._name(lane), keys, features)

    def flush(self) -> None:
        """Write to disk what is not there yet; does nothing for a cache in memory."""
        with self._lock:
            if self._disk is not None:
                self._disk.flush()

    def __len__(self) -> int:
        """Return the number of features in memory."""
        with self._lock:
            return sum(len(slab.index) for slab in self._lanes.values())

    def _slab(self, lane: str) -> "_Slab":
        if lane not in self._lanes:
            self._lanes[lane] = _Slab(self._capacity)
        return self._lanes[lane]

    def _name(self, lane: str) -> str:
        # Without the number of the device: two GPUs give the same features, a CPU others.
        return f"{self._tag}:{lane.rsplit(':', 1)[0]}"

    def _promote(self, lane: str, slab: "_Slab", keys: list[bytes]) -> None:
        assert self._disk is not None
        found, rows = self._disk.get(self._name(lane), keys)
        if rows is not None:
            device = slab.data.device if slab.data is not None else torch.device(_device(lane))
            slab.put([keys[k] for k in found], rows.to(device))
            self.disk_hits += len(found)


def _device(lane: str) -> str:
    """Return the device in a lane's name; `cuda:0` holds a colon itself."""
    parts = lane.split(":")
    return ":".join(parts[-2:]) if parts[-2].isalpha() else parts[-1]


class _Slab:
    """Rows of one shape in one tensor, with the least recently used first in `index`."""

    def __init__(self, capacity_bytes: int) -> None:
        self.index: OrderedDict[bytes, int] = OrderedDict()
        self.data: Tensor | None = None
        self._bytes, self._limit = capacity_bytes, 0

    def slots(self, keys: Sequence[bytes]) -> Int64:
        """Return the row of every key, -1 where there is none; found ones become the newest."""
        index, found = self.index, np.empty(len(keys), np.int64)
        for k, key in enumerate(keys):
            slot = index.get(key, -1)
            found[k] = slot
            if slot >= 0:
                index.move_to_end(key)
        return found

    def rows(self, slots: Int64) -> Tensor:
        """Copy rows."""
        assert self.data is not None
        return self.data[torch.from_numpy(slots).to(self.data.device)]

    def put(self, keys: Sequence[bytes], features: Tensor) -> None:
        """Store rows, over the oldest ones where there is no room."""
        try:
            self._grow(features, len(keys))
        except torch.OutOfMemoryError:
            # A cache may not fail what it is there to speed up: it stays at the size it has.
            self._limit = 0 if self.data is None else len(self.data)
            if not self._limit:
                return
        # Once per key: a request may hold one picture several times.
        new = {key: k for k, key in enumerate(keys) if key not in self.index}
        fresh = list(new.values())[-self._limit :]
        if not fresh:
            return
        assert self.data is not None
        # Memory first: a key that has a place must have its row there.
        rows = features[torch.tensor(fresh, device=features.device)].to(self.data)
        where = torch.empty(len(fresh), dtype=torch.int64, device=self.data.device)
        where.copy_(torch.tensor([self._place(keys[k]) for k in fresh]))
        self.data[where] = rows

    def _place(self, key: bytes) -> int:
        full = len(self.index) >= self._limit
        slot = self.index.popitem(last=False)[1] if full else len(self.index)
        self.index[key] = slot
        return slot

    def _grow(self, features: Tensor, more: int) -> None:
        row = max(1, features[0].numel() * features.element_size()) if len(features) else 1
        self._limit = self._limit or max(1, self._bytes // row)
        have = len(self.data) if self.data is not None else 0
        need = min(self._limit, len(self.index) + more)
        if need <= have:
            return
        size = min(self._limit, max(FIRST_ROWS, 2 * have, need))
        grown = features.new_empty((size, *features.shape[1:]))
        if self.data is not None:
            grown[:have] = self.data
        self.data = grown
