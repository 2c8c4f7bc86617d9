"""Shared memory between a scoring server and the workers beside it: layout of a slot, doorbells.

A slot is a shared memory segment of its own, which the server makes for one worker and hands over
as a file descriptor through a unix socket. It has no name, so nothing is left behind by a process
that is killed, no worker can write into another's slot, and Python's resource tracker has nothing
to tidy up. The slot begins with three headers of 64 bytes, little endian:

    control (server)              request (worker), reply (server)
    0   4  magic b"ERSL"          0   4  magic b"ERSL"
    4   2  version                4   2  version
    6   2  zero                   6   2  state (`State`)
    8   8  bytes of the payload   8   4  generation
    16  4  generation             12  4  zero
    20  4  zero                   16  8  sequence number
    24  8  heartbeat [ns]         24  8  bytes used
                                  32  8  xxh3-64 of them, seeded with generation and sequence

The payload follows: a message of `wire`, which states shapes and dtypes. A writer marks its
header WRITING, writes the payload, completes the header, and rings. A reader copies the payload
before it checks the sum, so what it goes on with cannot change under it.

A doorbell is 24 bytes on the socket: magic b"ERDB", uint16 zero, uint16 zero, generation uint32,
zero uint32, sequence number uint64. The end of the socket tells either side that the other died.
"""

import contextlib
import enum
import fcntl
import mmap
import os
import struct
import tempfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import xxhash

from embodied_reward.errors import RequestError
from embodied_reward.scoring.transport.envelope import Buffer, size_of

MAGIC, VERSION = b"ERSL", 1
CONTROL = struct.Struct("<4sHHQIIQ")
HEADER = struct.Struct("<4sHHIIQQQ")
DOORBELL = struct.Struct("<4sHHIIQ")
GREETING = struct.Struct("<4sHHI")
"""First bytes from the server: magic b"ERDB", version, 1 if refused, bytes of JSON that follow."""
BELL = b"ERDB"
REQUEST, REPLY, PAYLOAD = 64, 128, 192


class State(enum.IntEnum):
    """What became of the payload of a slot."""

    FREE = 0
    WRITING = 1
    READY = 2


@dataclass(frozen=True)
class Ticket:
    """Which exchange of which slot a header or a doorbell belongs to."""

    generation: int
    sequence: int

    @property
    def seed(self) -> int:
        """Seed of the sum, so that a payload of another exchange never fits."""
        return (self.generation << 32 ^ self.sequence) & 0xFFFF_FFFF_FFFF_FFFF

    def doorbell(self) -> bytes:
        """Return the bytes that announce this exchange on the socket."""
        return DOORBELL.pack(BELL, 0, 0, self.generation, 0, self.sequence)

    @classmethod
    def of_doorbell(cls, data: bytes) -> "Ticket":
        """Read a doorbell. Raises RequestError."""
        magic, zero, too, generation, three, sequence = DOORBELL.unpack(data)
        if magic != BELL or zero or too or three:
            raise RequestError("what came through the socket is no doorbell")
        return cls(generation, sequence)


class Slot:
    """One mapped segment."""

    def __init__(self, handle: int, capacity: int) -> None:
        self.capacity = capacity
        self._map = mmap.mmap(handle, PAYLOAD + capacity)
        self._view = memoryview(self._map)

    @classmethod
    def create(cls, capacity: int) -> tuple["Slot", int]:
        """Make a segment. Returns the slot and a file descriptor, which the caller closes."""
        handle = _segment(PAYLOAD + capacity)
        return cls(handle, capacity), handle

    def close(self) -> None:
        """Unmap the segment."""
        self._view.release()
        self._map.close()

    def beat(self, generation: int) -> None:
        """Say that the server is alive, and whose turn the slot is."""
        now = time.monotonic_ns()
        CONTROL.pack_into(self._view, 0, MAGIC, VERSION, 0, self.capacity, generation, 0, now)

    def silence(self) -> float:
        """Return how long ago the server said that it is alive [s]."""
        return (time.monotonic_ns() - CONTROL.unpack_from(self._view)[6]) / 1e9

    def write(self, at: int, ticket: Ticket, parts: Sequence[Buffer]) -> None:
        """Write a message and complete the header at `at`. Raises RequestError if it is too big."""
        size = size_of(parts)
        if size > self.capacity:
            raise RequestError(
                f"the message has {size} bytes, a slot of the ring holds {self.capacity}: split "
                "the request, or start the ring with larger slots (slot_bytes)"
            )
        self._mark(at, State.WRITING, ticket)
        end = PAYLOAD
        for part in parts:
            self._view[end : end + len(part)] = part
            end += len(part)
        total = xxhash.xxh3_64_intdigest(self._view[PAYLOAD:end], seed=ticket.seed)
        self._mark(at, State.READY, ticket, size, total)

    def read(self, at: int, ticket: Ticket) -> bytearray:
        """Copy the message of one exchange out.

        Raises:
            RequestError: it is not that exchange's, not complete, or altered.
        """
        magic, version, state, generation, _, sequence, size, total = HEADER.unpack_from(
            self._view, at
        )
        if magic != MAGIC or version != VERSION or state != State.READY:
            raise RequestError("the slot's header is damaged or incomplete")
        if Ticket(generation, sequence) != ticket or size > self.capacity:
            raise RequestError("the slot holds another message than the doorbell announces")
        payload = bytearray(self._view[PAYLOAD : PAYLOAD + size])
        if xxhash.xxh3_64_intdigest(payload, seed=ticket.seed) != total:
            raise RequestError("the slot's payload is torn: its sum does not fit")
        return payload

    def _mark(self, at: int, state: State, ticket: Ticket, size: int = 0, total: int = 0) -> None:
        fields = (ticket.generation, 0, ticket.sequence, size, total)
        HEADER.pack_into(self._view, at, MAGIC, VERSION, state, *fields)


def _segment(size: int) -> int:
    """Return the descriptor of nameless shared memory that nobody can shrink under a reader."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    handle = os.memfd_create("embodied-reward", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(handle, fcntl.F_ADD_SEALS, seals)
    return handle


class Forkable(Protocol):
    """What has descriptors that a forked child must not keep."""

    def abandon(self) -> None:
        """Close the descriptors of this process without telling the other side anything."""


_FORKABLE: "weakref.WeakSet[Forkable]" = weakref.WeakSet()


def close_in_children(owner: Forkable) -> None:
    """Call `owner.abandon()` in every forked child.

    A child that kept a copy of a socket would keep the other side from seeing its end.
    """
    _FORKABLE.add(owner)


def _abandon_all() -> None:
    for owner in list(_FORKABLE):
        with contextlib.suppress(OSError):
            owner.abandon()


os.register_at_fork(after_in_child=_abandon_all)
