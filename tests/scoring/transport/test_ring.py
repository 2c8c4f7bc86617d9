"""The shared-memory ring: equal scores, no torn frame, no lost slot, no silent loss."""

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from embodied_reward.errors import ConfigError, QueueFullError, RequestError, ScoringError
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport import ring, ring_client, wire
from embodied_reward.scoring.transport.ring_client import RingClient
from embodied_reward.scoring.transport.ring_server import RingServer


def request_of(value, size=8, seconds=20.0):
    frames = np.full((1, size, size, 3), value % 251, np.uint8)
    return ScoreRequest(scorers=("progress",), frames=frames, seed=value, timeout=seconds)


def start(code, *arguments):
    """Run a worker in a process of its own, as its user would."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def served(scripted):
    with RingServer(scripted, slots=4, slot_bytes=1 << 20, limits=scripted.limits) as server:
        yield server


def test_scores_are_bit_equal_to_those_in_process(core, full_request):
    direct = core.score(full_request)
    with RingServer(core, limits=core.limits) as server, RingClient(server.address) as client:
        assert client.score(full_request) == direct
        assert list(client.score(full_request)) == ["success", "progress"]
        assert client.names == core.names
        assert client.card("progress") == core.card("progress")
        with pytest.raises(RequestError, match="did you mean 'progress'"):
            client.card("progres")


def test_errors_of_the_core_reach_the_worker_as_they_are(served, scripted):
    with RingClient(served.address) as client:
        for error in (RequestError("odd"), QueueFullError("full", 0.5), ScoringError("cold")):
            scripted.raises = error
            with pytest.raises(type(error), match=str(error)):
                client.score(request_of(1))
        scripted.raises = ZeroDivisionError("secret")
        with pytest.raises(ScoringError, match="its log says why"):
            client.score(request_of(1))
        scripted.raises = None
        assert client.score(request_of(7))["progress"].score.tolist() == [7.0]


def test_a_request_larger_than_a_slot_is_refused_and_the_slot_stays_usable(served):
    with RingClient(served.address) as client:
        with pytest.raises(RequestError, match="larger slots"):
            client.score(request_of(1, size=1000))
        assert client.score(request_of(3))["progress"].score.tolist() == [3.0]


def test_one_worker_too_many_is_told_so(served, until):
    clients = [RingClient(served.address) for _ in range(4)]
    with pytest.raises(QueueFullError, match="all 4 slots") as raised:
        RingClient(served.address)
    assert raised.value.retry_after > 0
    clients.pop().close()
    until(lambda: served.stats()["workers"] == 3)
    clients.append(RingClient(served.address))
    assert clients[-1].score(request_of(5))["progress"].score.tolist() == [5.0]
    for client in clients:
        client.close()


def test_producers_at_twice_the_capacity_lose_nothing(scripted, until):
    scripted.places = 4
    scripted.hold.set()
    outcomes, sent = [], 8 * 20

    def produce(address, number):
        with RingClient(address) as client:
            for k in range(20):
                try:
                    batch = client.score(request_of(number * 20 + k))["progress"]
                    outcomes.append(("accepted", batch.score[0] == (number * 20 + k) % 251))
                except QueueFullError:
                    outcomes.append(("rejected", True))

    with RingServer(scripted, slots=8, limits=scripted.limits) as server:
        threads = [threading.Thread(target=produce, args=(server.address, n)) for n in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            scripted.finish(1)
            time.sleep(0.001)
    assert len(outcomes) == sent
    assert all(right for _, right in outcomes), "nobody gets another's score"
    accepted = sum(kind == "accepted" for kind, _ in outcomes)
    assert (accepted, sent - accepted) == (scripted.accepted, scripted.rejected)
    assert scripted.rejected > 0
    assert scripted.deepest <= 4


def test_a_worker_needs_no_torch_and_leaves_no_trace(served):
    code = """
import sys
import numpy as np
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.ring_client import RingClient
request = ScoreRequest(scorers=("progress",), frames=np.full((1, 8, 8, 3), 9, np.uint8), seed=9)
with RingClient(sys.argv[1]) as client:
    print(client.score(request)["progress"].require_ok()[0], "torch" in sys.modules)
"""
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    out, err = start(code, served.address).communicate(timeout=60)
    assert (out.strip(), err) == ("9.0 False", "")
    with RingClient(served.address) as client:
        client.score(request_of(1))
        if before:
            assert set(os.listdir("/dev/shm")) <= before


# A small process that forks workers and kills them at a random moment of their work.
KILLER = """
import os, random, signal, sys, time
import numpy as np
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.ring_client import RingClient

def work(address, seed):
    client = RingClient(address)
    while True:
        seed += 1
        frames = np.full((4, 160, 160, 3), seed % 251, np.uint8)
        client.score(ScoreRequest(scorers=("progress",), frames=frames, seed=seed))

address, rounds = sys.argv[1], int(sys.argv[2])
rng = random.Random(0)
for k in range(rounds):
    child = os.fork()
    if child == 0:
        try:
            work(address, 1000 * k)
        finally:
            os._exit(1)
    time.sleep(rng.uniform(0.001, 0.04))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
print("killed", rounds)
"""


@pytest.mark.slow
def test_workers_that_are_killed_at_any_moment_tear_nothing_and_lose_no_slot(
    served, scripted, until
):
    rounds, steady = 150, 0
    killer = start(KILLER, served.address, rounds)
    with RingClient(served.address) as client:
        while killer.poll() is None:
            steady += 1
            assert client.score(request_of(steady))["progress"].score[0] == steady % 251
        out, err = killer.communicate()
        assert (out.strip(), err) == (f"killed {rounds}", "")
        until(lambda: served.stats()["workers"] == 1)
    stats = served.stats()
    assert scripted.torn == 0
    assert scripted.accepted > steady > 100, "the killed ones scored as well"
    assert stats["refused"] == 0, "every slot came back in time"
    clients = [RingClient(served.address) for _ in range(4)]
    for client in clients:
        assert client.score(request_of(2))["progress"].score.tolist() == [2.0]
        client.close()


DYING = """
import os, signal, sys
import numpy as np
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport import ring
from embodied_reward.scoring.transport.ring_client import RingClient
moment, mark, size_of = sys.argv[2], ring.Slot._mark, ring.size_of
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
def dying_mark(slot, at, state, *rest):
    mark(slot, at, state, *rest)
    if moment == state.name:
        die()
def dying_parts(parts):
    size = size_of(parts)
    half = parts[:4]
    if moment == "HALF":
        parts.clear()
        parts.extend(half + [Dying()])
    return size
class Dying:
    def __len__(self):
        die()
ring.Slot._mark, ring.size_of = dying_mark, dying_parts
request = ScoreRequest(scorers=("progress",), frames=np.ones((1, 64, 64, 3), np.uint8))
RingClient(sys.argv[1]).score(request)
"""


@pytest.mark.parametrize("moment", ["WRITING", "HALF", "READY"])
def test_a_worker_that_dies_while_it_writes_frees_its_slot(served, scripted, until, moment):
    worker = start(DYING, served.address, moment)
    worker.communicate(timeout=60)
    assert worker.returncode == -signal.SIGKILL
    until(lambda: served.stats()["reclaimed"] == 1)
    assert served.stats()["workers"] == 0
    assert scripted.accepted == 0


def test_a_reply_for_a_dead_worker_goes_nowhere(served, scripted, until):
    scripted.hold.set()
    client = RingClient(served.address)
    thread = threading.Thread(
        target=lambda: pytest.raises(ScoringError, client.score, request_of(1))
    )
    thread.start()
    until(lambda: scripted.accepted == 1)
    client._socket.shutdown(socket.SHUT_RDWR)
    thread.join()
    until(lambda: served.stats()["workers"] == 0)
    scripted.finish()
    until(lambda: served.stats()["unread"] == 1)
    scripted.hold.clear()
    with RingClient(served.address) as other:
        assert other.score(request_of(4))["progress"].score.tolist() == [4.0]


@pytest.mark.parametrize("field", ["payload", "generation", "sequence", "size", "state", "magic"])
def test_a_slot_that_is_not_what_was_announced_is_never_scored(served, scripted, field):
    with RingClient(served.address) as client:
        slot, ticket = client._slot, ring.Ticket(client._generation, 1)
        slot.write(ring.REQUEST, ticket, wire.request_parts(request_of(1)))
        at = {"magic": 0, "state": 6, "generation": 8, "sequence": 16, "size": 30}.get(field)
        at = ring.PAYLOAD + 700 if at is None else ring.REQUEST + at
        slot._view[at] ^= 1
        client._sequence = 1
        client._send(ticket.doorbell())
        client._await_doorbell(time.monotonic() + 20)
        with pytest.raises(RequestError, match="damaged|another|torn"):
            client._reply(slot, ticket)
        assert scripted.accepted == 0
        assert served.stats()["torn"] == 1
        assert client.score(request_of(6))["progress"].score.tolist() == [6.0]


def test_noise_on_the_socket_and_in_the_slot_hurts_nobody_else(served, scripted, until):
    rng = np.random.default_rng(3)
    steady = RingClient(served.address)
    for round_ in range(200):
        client = RingClient(served.address)
        client._slot._view[ring.REQUEST :][: 256 + round_] = rng.bytes(256 + round_)
        kind = round_ % 4
        ticket = ring.Ticket(client._generation, 1 + round_ % 3)
        if kind == 0:
            client._send(rng.bytes(int(rng.integers(1, 200))))
        elif kind == 1:
            client._send(ticket.doorbell())
        elif kind == 2:
            client._send(ticket.doorbell() * 3)
        else:
            client._slot.write(ring.REQUEST, ticket, [rng.bytes(300)])
            client._send(ticket.doorbell())
            client._await_doorbell(time.monotonic() + 20)
        client.close()
        assert steady.score(request_of(round_))["progress"].score[0] == round_ % 251
        until(lambda: served.stats()["workers"] == 1)
    steady.close()
    assert scripted.accepted == 200


def test_a_server_that_dies_is_noticed_at_once(scripted):
    server = RingServer(scripted, limits=scripted.limits)
    scripted.hold.set()
    client = RingClient(server.address, timeout=30)
    errors = []

    def ask():
        try:
            client.score(request_of(1))
        except ScoringError as error:
            errors.append(str(error))

    thread = threading.Thread(target=ask)
    thread.start()
    while not scripted.waiting:
        time.sleep(0.005)
    begin = time.monotonic()
    server.close()
    thread.join(20)
    assert time.monotonic() - begin < 5
    assert "is gone" in errors[0]
    with pytest.raises(ScoringError, match="open a new one"):
        client.score(request_of(1))
    with pytest.raises(ScoringError, match="no scoring server answers"):
        RingClient(server.address)


def test_a_server_that_is_killed_or_hangs_is_noticed(monkeypatch, tmp_path):
    code = """
import sys, time
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.transport.ring_server import RingServer
from concurrent.futures import Future
class Core:
    names = ("progress",)
    def card(self, name): return ScorerCard(name=name, type="t")
    def submit(self, request): return Future()
server = RingServer(Core(), path=sys.argv[1])
print("up", flush=True)
time.sleep(60)
"""
    monkeypatch.setattr(ring_client, "SILENCE", 1.0)
    for name, number in (("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)):
        server = start(code, tmp_path / name)
        assert server.stdout.readline() == "up\n"
        client = RingClient(str(tmp_path / name))
        threading.Timer(0.3, server.send_signal, [number]).start()
        begin = time.monotonic()
        with pytest.raises(ScoringError, match="is gone"):
            client.score(request_of(1))
        assert time.monotonic() - begin < 8
        server.kill()
        server.communicate()


def test_a_late_reply_is_never_taken_for_the_next_one(served, scripted, monkeypatch):
    monkeypatch.setattr(ring_client, "GRACE", 0.1)
    scripted.hold.set()
    with RingClient(served.address) as client:
        with pytest.raises(ScoringError, match="did not answer in time"):
            client.score(request_of(1, seconds=0.1))
        scripted.hold.clear()
        scripted.finish()
        assert client.score(request_of(2))["progress"].score.tolist() == [2.0]


def test_a_forked_child_does_not_share_its_parents_slot(served):
    code = """
import os, sys
import numpy as np
from embodied_reward.errors import ScoringError
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.ring_client import RingClient
request = ScoreRequest(scorers=("progress",), frames=np.full((1, 8, 8, 3), 9, np.uint8), seed=9)
client = RingClient(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        client.score(request)
    except ScoringError as error:
        print(error, flush=True)
        with RingClient(sys.argv[1]) as own:
            print(own.score(request)["progress"].score[0], flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(client.score(request)["progress"].score[0])
client.close()
"""
    out, err = start(code, served.address).communicate(timeout=60)
    assert err == ""
    assert out.splitlines()[0].endswith("open one in each")
    assert out.splitlines()[1:] == ["9.0", "9.0"]


def test_slots_too_small_for_an_error_are_refused(scripted):
    with pytest.raises(ConfigError, match="slot_bytes=100"):
        RingServer(scripted, slot_bytes=100)


def test_the_layout_is_as_documented():
    assert ring.CONTROL.size <= 64
    assert ring.HEADER.size <= 64
    assert ring.DOORBELL.size == 24
    assert struct.calcsize("<4sHHIIQQQ") == ring.HEADER.size
