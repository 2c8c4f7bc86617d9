"""The queue in front of one trunk: pictures of all requests and scorers, each computed once."""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.cache import FeatureCache
from embodied_reward.scoring.job import Gather, Key
from embodied_reward.scoring.runner import Runner, Ticket
from embodied_reward.scoring.stats import Stats
from embodied_reward.types import UInt8


class Lane:
    """Batches of one trunk; used by the dispatcher thread only.

    Args:
        name: cache lane.
        runner: runs the trunk.
        cache: features seen before, or None.
        stats: counters.
    """

    def __init__(self, name: str, runner: Runner, cache: FeatureCache | None, stats: Stats) -> None:
        self.name, self.runner = name, runner
        self._cache, self._stats = cache, stats
        self._waiters: dict[Key, list[tuple[Gather, int]]] = {}
        self._heap: list[tuple[float, int, Gather, deque[int]]] = []
        self._order = itertools.count()
        self._flying: deque[tuple[list[Key], list[UInt8], Ticket | str]] = deque()

    def admit(self, gather: Gather) -> bool:
        """Take what the cache has, queue the rest; returns whether nothing is missing."""
        missing: Sequence[int] = range(len(gather.keys))
        if self._cache is not None and len(gather.keys):
            found, rows = self._cache.lookup(self.name, gather.keys)  # type: ignore[arg-type]
            if rows is not None:
                gather.fill(found, rows)
                gather.hit[found] = True
                missing = np.flatnonzero(~gather.hit).tolist()
            self._stats.add(cache_hits=len(found), cache_misses=len(missing))
        if not missing:
            return True
        for row in missing:
            self._waiters.setdefault(gather.keys[row], []).append((gather, row))
        entry = (gather.job.rank, next(self._order), gather, deque(missing))
        heapq.heappush(self._heap, entry)
        return False

    @property
    def rank(self) -> float | None:
        """The rank of the most urgent picture, None when nothing is left to launch."""
        while self._heap and self._heap[0][2].job.done:
            self._forget(heapq.heappop(self._heap))
        return self._heap[0][0] if self._heap else None

    @property
    def flying(self) -> int:
        """Batches that were launched and not collected."""
        return len(self._flying)

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a picture."""
        return not self._waiters and not self._flying

    def launch(self) -> None:
        """Start the most urgent batch."""
        keys, frames = self._pop()
        if not keys:
            return
        start = time.monotonic()
        ticket: Ticket | str
        try:
            ticket = self.runner.launch(frames)
        except Exception as error:  # noqa: BLE001 (a scorer may raise anything)
            ticket = f"{type(error).__name__}: {error}"
        bucket = self.runner.bucket(len(keys))
        seconds = time.monotonic() - start
        self._stats.add(
            trunk_batches=1, trunk_images=len(keys), trunk_slots=bucket, trunk_seconds=seconds
        )
        self._flying.append((keys, frames, ticket))

    def collect(self) -> list[Gather]:
        """Wait for the oldest batch and hand its features out; returns completed gathers."""
        keys, frames, ticket = self._flying.popleft()
        try:
            if isinstance(ticket, str):
                raise RuntimeError(ticket)
            start = time.monotonic()
            features = ticket.wait()
            self._stats.add(trunk_seconds=time.monotonic() - start)
            return self._deliver(keys, self._current(features))
        except Exception as error:  # noqa: BLE001
            if len(keys) == 1:
                return self._fail(keys[0], str(error))
            return self._one_by_one(keys, frames)

    def _one_by_one(self, keys: list[Key], frames: list[UInt8]) -> list[Gather]:
        """Find the picture that the trunk cannot take; the others must not suffer."""
        completed = []
        for key, frame in zip(keys, frames, strict=True):
            try:
                completed += self._deliver([key], self._current(self.runner.launch([frame]).wait()))
            except Exception as error:  # noqa: BLE001
                completed += self._fail(key, f"{type(error).__name__}: {error}")
        return completed

    def _current(self, features: Tensor) -> Tensor:
        if self.runner.trunk.stale:
            raise RuntimeError("the trunk's weights were changed while its pictures were encoded")
        return features

    def _pop(self) -> tuple[list[Key], list[UInt8]]:
        frames: dict[Key, UInt8] = {}
        launched = {key for keys, *_ in self._flying for key in keys}
        while len(frames) < self.runner.max_batch and self.rank is not None:
            _, _, gather, rows = self._heap[0]
            while rows and len(frames) < self.runner.max_batch:
                row = rows.popleft()
                key = gather.keys[row]
                if key in self._waiters and key not in launched:
                    frames[key] = gather.frame(row)
            if not rows:
                heapq.heappop(self._heap)
        return list(frames), list(frames.values())

    def _deliver(self, keys: list[Key], features: Tensor) -> list[Gather]:
        # A sum is finite where all its terms are; one operation and one number a picture.
        good = np.isfinite(features.flatten(1).sum(1).cpu().numpy())
        completed: list[Gather] = []
        if not good.all():
            for k in np.flatnonzero(~good):
                completed += self._fail(keys[k], "the trunk returned a non-finite feature")
            kept = np.flatnonzero(good)
            keys = [keys[k] for k in kept]
            features = features[torch.from_numpy(kept).to(features.device)]
        if self._cache is not None and keys:
            self._cache.put(self.name, keys, features)  # type: ignore[arg-type]
        shares: dict[int, tuple[Gather, list[int], list[int]]] = {}
        for k, key in enumerate(keys):
            for gather, row in self._waiters.pop(key, ()):
                share = shares.get(id(gather))
                if share is None:
                    share = shares[id(gather)] = (gather, [], [])
                share[1].append(row)
                share[2].append(k)
        for gather, rows, sources in shares.values():
            whole = sources == list(range(len(keys)))
            part = features if whole else features[torch.tensor(sources, device=features.device)]
            gather.fill(np.array(rows, np.int64), part)
        return completed + [g for g, *_ in shares.values() if not g.waiting]

    def _fail(self, key: Key, why: str) -> list[Gather]:
        waiting = self._waiters.pop(key, ())
        for gather, row in waiting:
            gather.fail(row, why)
        return list({id(g): g for g, _ in waiting if not g.waiting}.values())

    def _forget(self, entry: tuple[float, int, Gather, deque[int]]) -> None:
        """Drop what an expired request still waits for, without computing it."""
        gather = entry[2]
        for row in range(len(gather.keys)):
            waiting = self._waiters.get(gather.keys[row])
            if waiting is not None:
                waiting[:] = [w for w in waiting if w[0] is not gather]
                if not waiting:
                    del self._waiters[gather.keys[row]]
