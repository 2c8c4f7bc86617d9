"""The server's end of the ring: one thread that copies requests out and writes replies back."""

import contextlib
import json
import logging
import os
import queue
import selectors
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from embodied_reward.errors import (
    ConfigError,
    EmbodiedRewardError,
    QueueFullError,
    RequestError,
    ScoringError,
)
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.transport import ring
from embodied_reward.scoring.transport.core import Core, Reply
from embodied_reward.scoring.transport.wire import (
    decode_request,
    encode_error,
    error_tree,
    reply_parts,
)

log = logging.getLogger(__name__)
HEARTBEAT = 0.2
"""Seconds between two heartbeats."""
SMALLEST = 64 << 10
"""Bytes that any error message fits into."""


@dataclass(eq=False)
class Worker:
    """One connected worker and its slot."""

    connection: socket.socket
    slot: ring.Slot
    generation: int
    received: bytearray = field(default_factory=bytearray)
    sequence: int = 0
    busy: bool = False


class RingServer:
    """Serve workers of this machine through shared memory.

    A request is copied out of its slot before it is checked, so a worker that dies or misbehaves
    can neither tear a frame nor hold anything up: its slot is taken back, the others go on.

    Args:
        core: the scoring core; must outlive the server.
        path: of the unix socket; default in a fresh folder that only this user can enter.
        slots: most workers at a time; one more is refused with QueueFullError.
        slot_bytes: largest request, and largest reply, in bytes.
        limits: of a request, as the core's.

    Raises:
        ConfigError: no slot, or slots of less than 64 KiB. ScoringError: the socket cannot be made.
    """

    def __init__(
        self,
        core: Core,
        *,
        path: str | Path | None = None,
        slots: int = 64,
        slot_bytes: int = 16 << 20,
        limits: Limits | None = None,
    ) -> None:
        if slots < 1 or slot_bytes < SMALLEST:
            raise ConfigError(
                f"slots={slots}, slot_bytes={slot_bytes}: need at least 1 and {SMALLEST}"
            )
        self._core, self._limits = core, limits or Limits()
        self._slots, self._slot_bytes = slots, slot_bytes
        self._folder = None if path else tempfile.mkdtemp(prefix="er-ring-")
        self.address = str(path or Path(self._folder or "") / "ring.sock")
        self._workers: dict[int, Worker] = {}
        self._generation, self._counts = 0, Counter[str]()
        self._done: queue.SimpleQueue[tuple[Worker, ring.Ticket, Future[Reply]]]
        self._done = queue.SimpleQueue()
        self._open = True
        self._listener = self._listen()
        self._bell, self._wake = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        for sock in (self._listener, self._wake):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._bell.setblocking(False)
        ring.close_in_children(self)
        self._thread = threading.Thread(target=self._run, name="er-ring", daemon=True)
        self._thread.start()

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.address)
            os.chmod(self.address, 0o600)
            listener.listen(self._slots)
        except OSError as error:
            listener.close()
            raise ScoringError(
                f"cannot listen at '{self.address}': {error}. Give another path, of at most 100 "
                "characters, where nothing lies yet"
            ) from error
        return listener

    def stats(self) -> dict[str, int]:
        """Return counters: requests, replies, rejected, torn, refused, reclaimed; and workers."""
        keys = ("requests", "replies", "rejected", "torn", "refused", "reclaimed", "unread")
        return {**{key: self._counts[key] for key in keys}, "workers": len(self._workers)}

    def close(self) -> None:
        """Stop serving; workers that wait get an error."""
        if not self._open:
            return
        self._open = False
        self._ring_bell()
        self._thread.join()
        for worker in list(self._workers.values()):
            self._drop(worker)
        self.abandon()
        with contextlib.suppress(OSError):
            os.unlink(self.address)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def abandon(self) -> None:
        """Close this process's descriptors."""
        for sock in (self._listener, self._bell, self._wake):
            sock.close()
        self._selector.close()
        for worker in self._workers.values():
            worker.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread ---

    def _run(self) -> None:
        due = 0.0
        while self._open:
            for key, _ in self._selector.select(HEARTBEAT):
                try:
                    self._serve(key)
                except Exception:  # one worker must not end the service of the others
                    log.exception("the ring failed to serve a worker")
                    if isinstance(key.data, Worker):
                        self._drop(key.data)
            self._answer_all()
            if time.monotonic() >= due:
                due = time.monotonic() + HEARTBEAT
                for worker in self._workers.values():
                    worker.slot.beat(worker.generation)

    def _serve(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif key.fileobj is self._wake:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)
        elif key.data.connection.fileno() >= 0:
            self._read(key.data)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.settimeout(1.0)
        if len(self._workers) >= self._slots:
            self._counts["refused"] += 1
            full = QueueFullError(
                f"all {self._slots} slots of the ring are taken: close another worker, or start "
                "the ring with more slots",
                retry_after=1.0,
            )
            with contextlib.suppress(OSError), connection:
                connection.sendall(_greeting(error_tree(full), refused=True))
            return
        self._welcome(connection)

    def _welcome(self, connection: socket.socket) -> None:
        slot, handle = ring.Slot.create(self._slot_bytes)
        self._generation = self._generation % 0xFFFF_FFFF + 1
        worker = Worker(connection, slot, self._generation)
        slot.beat(worker.generation)
        tree = {
            "generation": worker.generation,
            "capacity": slot.capacity,
            "cards": [self._core.card(name).to_dict() for name in self._core.names],
        }
        self._workers[id(worker)] = worker
        self._selector.register(connection, selectors.EVENT_READ, worker)
        try:
            data = _greeting(tree)
            sent = socket.send_fds(connection, [data], [handle])
            connection.sendall(data[sent:])
            connection.setblocking(False)
        except OSError:
            self._drop(worker)
        finally:
            os.close(handle)

    def _read(self, worker: Worker) -> None:
        try:
            data = worker.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(worker)
            return
        worker.received += data
        while len(worker.received) >= ring.DOORBELL.size:
            bell = bytes(worker.received[: ring.DOORBELL.size])
            del worker.received[: ring.DOORBELL.size]
            try:
                ticket = ring.Ticket.of_doorbell(bell)
            except RequestError:
                ticket = ring.Ticket(0, 0)
            late = worker.busy or ticket.sequence <= worker.sequence
            if late or ticket.generation != worker.generation:
                log.warning("a worker broke the ring's protocol and was disconnected")
                self._counts["torn"] += 1
                self._drop(worker)
                return
            self._submit(worker, ticket)

    def _submit(self, worker: Worker, ticket: ring.Ticket) -> None:
        worker.busy, worker.sequence = True, ticket.sequence
        self._counts["requests"] += 1
        try:
            message = worker.slot.read(ring.REQUEST, ticket)
        except RequestError as error:
            self._counts["torn"] += 1
            self._answer(worker, ticket, error)
            return
        try:
            future = self._core.submit(decode_request(message, self._limits))
        except Exception as error:  # noqa: BLE001 (whatever it is, the worker gets an answer)
            self._counts["rejected"] += 1
            self._answer(worker, ticket, error)
            return
        future.add_done_callback(lambda done: self._finished(worker, ticket, done))

    def _finished(self, worker: Worker, ticket: ring.Ticket, future: "Future[Reply]") -> None:
        """Runs in a thread of the core, or in ours if the answer was there already."""
        self._done.put((worker, ticket, future))
        if threading.current_thread() is not self._thread:
            self._ring_bell()

    def _ring_bell(self) -> None:
        # A full pipe wakes the thread as well; a closed one has nobody to wake.
        with contextlib.suppress(OSError):
            self._bell.send(b"\0")

    def _answer_all(self) -> None:
        while True:
            try:
                worker, ticket, future = self._done.get_nowait()
            except queue.Empty:
                return
            try:
                self._answer(worker, ticket, _outcome(future))
            except Exception:  # a reply that cannot be written must not end the others' service
                log.exception("the ring failed to answer a worker")
                self._drop(worker)

    def _answer(
        self, worker: Worker, ticket: ring.Ticket, outcome: "Reply | BaseException"
    ) -> None:
        if self._workers.get(id(worker)) is not worker:
            self._counts["unread"] += 1  # died while its request was under way
            return
        if isinstance(outcome, BaseException):
            if not isinstance(outcome, EmbodiedRewardError):
                log.error("scoring failed", exc_info=outcome)
            self._write_error(worker, ticket, outcome)
        else:
            try:
                worker.slot.write(ring.REPLY, ticket, reply_parts(outcome))
            except RequestError as error:
                too_big = ScoringError(f"the reply does not fit into the slot: {error}")
                self._write_error(worker, ticket, too_big)
        worker.busy = False
        self._counts["replies"] += 1
        try:
            worker.connection.send(ticket.doorbell())
        except OSError:  # gone, or it does not read: either way it is of no more use
            self._drop(worker)

    def _write_error(self, worker: Worker, ticket: ring.Ticket, error: BaseException) -> None:
        worker.slot.write(ring.REPLY, ticket, [encode_error(error)])

    def _drop(self, worker: Worker) -> None:
        """Take a slot back, whatever state its worker left it in."""
        if self._workers.pop(id(worker), None) is None:
            return
        self._counts["reclaimed"] += 1
        with contextlib.suppress(KeyError, ValueError, OSError):
            self._selector.unregister(worker.connection)
        worker.connection.close()
        worker.slot.close()


def _outcome(future: "Future[Reply]") -> Reply | BaseException:
    if future.cancelled():
        return ScoringError("the request was cancelled")
    return future.exception() or future.result()


def _greeting(tree: dict, *, refused: bool = False) -> bytes:
    text = json.dumps(tree).encode()
    return ring.GREETING.pack(ring.BELL, ring.VERSION, refused, len(text)) + text
