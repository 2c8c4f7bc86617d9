"""A worker's end of the ring; needs neither torch nor the server's process to be trusted."""

import json
import os
import socket
import threading
import time
from typing import Any, Self

from embodied_reward.errors import (
    EmbodiedRewardError,
    RequestError,
    ScoringError,
    did_you_mean,
)
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport import ring
from embodied_reward.scoring.transport.envelope import PREFIX, Kind
from embodied_reward.scoring.transport.wire import (
    decode_error,
    decode_reply,
    error_from,
    request_parts,
)

GRACE = 5.0
"""Seconds that a reply may take beyond the request's own timeout."""
SILENCE = 10.0
"""Seconds without a heartbeat after which the server counts as dead although its socket is open."""
MAX_GREETING = 16 << 20


class RingClient:
    """Ask a `RingServer` on this machine through shared memory.

    One request is under way at a time; calls from several threads wait for each other. A process
    that is forked must open a client of its own.

    Args:
        address: `RingServer.address`.
        timeout: seconds that a request without a timeout of its own may take, and that opening
            may take [s].

    Raises:
        QueueFullError: all slots are taken. ScoringError: no server answers.
    """

    def __init__(self, address: str, *, timeout: float = 60.0) -> None:
        self.address, self.timeout = address, timeout
        self._lock, self._pid = threading.Lock(), os.getpid()
        self._sequence, self._answered = 0, 0
        self._slot: ring.Slot | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._open(time.monotonic() + timeout)
        except BaseException:
            self._socket.close()
            raise
        ring.close_in_children(self)

    def _open(self, deadline: float) -> None:
        self._socket.settimeout(self.timeout)
        try:
            self._socket.connect(self.address)
            data, handles, _, _ = socket.recv_fds(self._socket, ring.GREETING.size, 1)
        except OSError as error:
            raise ScoringError(
                f"no scoring server answers at '{self.address}': {error}. Start it, or mend the "
                "address"
            ) from error
        try:
            data += self._receive(ring.GREETING.size - len(data), deadline)
            tree = self._greeting(data, deadline)
            if not handles:
                raise ScoringError(f"'{self.address}' handed over no memory")
            self._generation = int(tree["generation"])
            self._slot = ring.Slot(handles[0], int(tree["capacity"]))
            self._cards = {c["name"]: ScorerCard.from_dict(c) for c in tree["cards"]}
        except (KeyError, TypeError, ValueError, OSError) as error:
            raise ScoringError(f"'{self.address}' is no scoring server: {error!r}") from error
        finally:
            for handle in handles:
                os.close(handle)

    def _greeting(self, data: bytes, deadline: float) -> dict[str, Any]:
        magic, version, refused, length = ring.GREETING.unpack(data)
        if magic != ring.BELL or version != ring.VERSION or length > MAX_GREETING:
            raise ScoringError(f"'{self.address}' is no scoring server of this version")
        tree = json.loads(self._receive(length, deadline))
        if refused:
            raise error_from(tree)
        return tree

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the scorers that the server had when this client was opened."""
        return tuple(self._cards)

    def card(self, name: str) -> ScorerCard:
        """Return a scorer's card. Raises RequestError for an unknown name."""
        if name not in self._cards:
            raise RequestError(f"no scorer '{name}'; {did_you_mean(name, self._cards)}")
        return self._cards[name]

    def score(self, request: ScoreRequest) -> dict[str, ScoreBatch]:
        """Score and wait; one `ScoreBatch` per scorer.

        Raises:
            RequestError: malformed, over a limit, or larger than a slot.
            QueueFullError: too much is queued; try again after `retry_after`.
            ScoringError: the server died, or did not answer in time.
        """
        seconds = self.timeout if request.timeout is None else request.timeout
        deadline = time.monotonic() + seconds + GRACE
        with self._lock:
            slot = self._usable()
            # An earlier request that ran out of time may still be answered into the slot.
            while self._answered < self._sequence:
                self._await_doorbell(deadline)
            ticket = ring.Ticket(self._generation, self._sequence + 1)
            slot.write(ring.REQUEST, ticket, request_parts(request, self.timeout))
            self._sequence += 1
            self._send(ticket.doorbell())
            while self._answered < self._sequence:
                self._await_doorbell(deadline)
            return self._reply(slot, ticket)

    def close(self) -> None:
        """Give the slot back."""
        self.abandon()

    def abandon(self) -> None:
        """Close the socket and unmap the slot of this process."""
        self._socket.close()
        if self._slot is not None:
            self._slot.close()
            self._slot = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _usable(self) -> ring.Slot:
        if os.getpid() != self._pid:
            raise ScoringError("this RingClient was opened in another process: open one in each")
        if self._slot is None:
            raise ScoringError("this RingClient was closed, or lost its server: open a new one")
        return self._slot

    def _reply(self, slot: ring.Slot, ticket: ring.Ticket) -> dict[str, ScoreBatch]:
        try:
            message = slot.read(ring.REPLY, ticket)
            is_error = len(message) >= PREFIX.size and PREFIX.unpack_from(message)[2] == Kind.ERROR
            outcome: Any = decode_error(message) if is_error else decode_reply(message)
        except RequestError as error:
            raise ScoringError(f"the reply of '{self.address}' is damaged: {error}") from error
        if isinstance(outcome, EmbodiedRewardError):
            raise outcome
        return outcome

    def _await_doorbell(self, deadline: float) -> None:
        data = self._receive(ring.DOORBELL.size, deadline)
        try:
            ticket = ring.Ticket.of_doorbell(data)
        except RequestError as error:
            raise self._lost(str(error)) from error
        if ticket.generation == self._generation:
            self._answered = ticket.sequence

    def _receive(self, count: int, deadline: float) -> bytes:
        data = b""
        while len(data) < count:
            left = deadline - time.monotonic()
            self._socket.settimeout(max(0.001, min(left, 1.0)))
            try:
                more = self._socket.recv(count - len(data))
            except TimeoutError:
                self._still_waiting(left, data)
                continue
            except OSError as error:
                raise self._lost(str(error)) from error
            if not more:
                raise self._lost("it closed the connection")
            data += more
        return data

    def _still_waiting(self, left: float, data: bytes) -> None:
        if self._slot is not None and self._slot.silence() > SILENCE:
            raise self._lost(f"no sign of life for {SILENCE:g} s")
        if left <= 0 and data:
            raise self._lost("it stopped in the middle of a message")
        if left <= 0:
            raise ScoringError(f"'{self.address}' did not answer in time")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(str(error)) from error

    def _lost(self, why: str) -> ScoringError:
        self.abandon()
        return ScoringError(
            f"the scoring server at '{self.address}' is gone ({why}); nothing was scored. Start it "
            "again and open a new RingClient"
        )
