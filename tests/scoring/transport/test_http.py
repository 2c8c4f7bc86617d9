"""The core over HTTP: equal scores, and a server that no client can break."""

import contextlib
import gc
import http.client
import json
import pickle
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embodied_reward.errors import ConfigError, QueueFullError, RequestError, ScoringError
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.status import Role, Status
from embodied_reward.scoring.transport import listen, wire
from embodied_reward.scoring.transport.canary import Canary, canary_request
from embodied_reward.scoring.transport.client import HttpClient
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.listen import HttpServer

TOKEN = "correct horse battery"


@pytest.fixture(autouse=True)
def short_lingering(monkeypatch):
    monkeypatch.setattr(listen, "LINGER", 0.3)


def request_of(value, size=8, seconds=20.0):
    frames = np.full((1, size, size, 3), value % 251, np.uint8)
    return ScoreRequest(scorers=("progress",), frames=frames, seed=value, timeout=seconds)


def serve(core, **settings):
    settings = {"port": 0, "read_timeout": 5.0} | settings
    return HttpServer(core, HttpConfig(**settings), limits=core.limits)


def get(server, path, **headers):
    """Return status code and body, whatever the code."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def post(server, body, *, path="/v1/score", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    headers = {"Content-Type": "application/octet-stream"} | headers
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    out = response.read()
    connection.close()
    return response, out


def test_scores_are_bit_equal_to_those_in_process(core, full_request):
    direct = core.score(full_request)
    with serve(core) as server, HttpClient(server.url) as client:
        assert client.score(full_request) == direct
        assert list(client.score(full_request)) == ["success", "progress"]
        assert client.names == core.names
        assert client.card("success") == core.card("success")
        with pytest.raises(RequestError, match="did you mean 'success'"):
            client.card("succes")
        with pytest.raises(RequestError, match="no scorer 'nobody'"):
            client.score(ScoreRequest(scorers=("nobody",), frames=full_request.frames))


def test_errors_of_the_core_reach_the_client_as_they_are(scripted):
    with serve(scripted) as server, HttpClient(server.url) as client:
        for error in (RequestError("odd"), ScoringError("cold")):
            scripted.raises = error
            with pytest.raises(type(error), match=str(error)):
                client.score(request_of(1))
        scripted.raises = QueueFullError("full", retry_after=1e3)
        with pytest.raises(QueueFullError, match="full") as raised:
            client.score(request_of(1))
        assert raised.value.retry_after == 1e3
        scripted.raises = ZeroDivisionError("secret")
        with pytest.raises(ScoringError, match="its log says why"):
            client.score(request_of(1))
        scripted.raises = None
        assert client.score(request_of(7))["progress"].score.tolist() == [7.0]


def test_a_client_waits_as_it_is_asked_and_sends_again_while_its_time_lasts(scripted):
    with serve(scripted) as server, HttpClient(server.url) as client:
        scripted.raises = QueueFullError("full", retry_after=0.2)
        threading.Timer(0.5, setattr, [scripted, "raises", None]).start()
        begin = time.monotonic()
        assert client.score(request_of(7))["progress"].score.tolist() == [7.0]
        assert 0.4 < time.monotonic() - begin < 5
        scripted.raises = QueueFullError("full", retry_after=0.3)
        begin = time.monotonic()
        with pytest.raises(QueueFullError):
            client.score(request_of(7, seconds=0.5))
        assert time.monotonic() - begin < 3


def test_the_client_needs_no_torch(scripted):
    code = """
import sys
import numpy as np
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.client import HttpClient
request = ScoreRequest(scorers=("progress",), frames=np.full((1, 8, 8, 3), 9, np.uint8), seed=9)
with HttpClient(sys.argv[1]) as client:
    print(client.names, client.score(request)["progress"].require_ok()[0])
print([m for m in ("torch", "aiohttp", "prometheus_client", "lerobot") if m in sys.modules])
"""
    with serve(scripted) as server:
        run = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, server.url],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (run.stderr, run.stdout) == ("", "('progress',) 9.0\n[]\n")


def test_a_connection_is_kept_and_opened_anew_when_the_server_closed_it(scripted, until):
    with serve(scripted, read_timeout=0.3) as server, HttpClient(server.url) as client:
        client.score(request_of(1))
        first = client._local.connection.sock.getsockname()
        client.score(request_of(2))
        assert client._local.connection.sock.getsockname() == first
        time.sleep(0.8)  # the server closes what is silent
        assert client.score(request_of(3))["progress"].score.tolist() == [3.0]


def test_a_forked_child_opens_a_connection_of_its_own(scripted):
    code = """
import os, sys
import numpy as np
from embodied_reward.scoring import ScoreRequest
from embodied_reward.scoring.transport.client import HttpClient
def ask(client, value):
    frames = np.full((1, 8, 8, 3), value, np.uint8)
    return client.score(ScoreRequest(scorers=("progress",), frames=frames))["progress"].score[0]
with HttpClient(sys.argv[1]) as client:
    ask(client, 0)
    child = os.fork()
    right = all(ask(client, value % 250) == value % 250 for value in range(100))
    if child == 0:
        os._exit(0 if right else 1)
    print(right, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    with serve(scripted) as server:
        argv = [sys.executable, "-c", code, server.url]
        run = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("True 0\n", "")


def test_no_server_is_one_clear_error():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ScoringError, match="er serve"):
        HttpClient(url).score(request_of(1))
    with pytest.raises(ConfigError, match="http://host:port"):
        HttpClient("localhost:80")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + pickle.dumps({"score": 1}),
        b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n[]",
        b"220 smtp\r\n",
    ],
)
def test_a_server_that_talks_nonsense_is_one_clear_error(answer):
    listener = socket.create_server(("127.0.0.1", 0))

    def talk():
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(answer)

    thread = threading.Thread(target=talk)
    thread.start()
    client = HttpClient(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with client, pytest.raises(ScoringError):
        client.score(request_of(1))
    thread.join()
    listener.close()


def test_a_server_that_never_answers_is_left_in_time(monkeypatch):
    monkeypatch.setattr("embodied_reward.scoring.transport.client.GRACE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        client = HttpClient(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with client, pytest.raises(ScoringError, match="timed out"):
            client.score(request_of(1, seconds=0.3))
        assert time.monotonic() - begin < 3


# --- who may come in ---


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("token", ["", "short"])
def test_an_open_address_without_a_token_is_refused(host, token):
    with pytest.raises(ConfigError, match="ER_SERVE_TOKEN"):
        HttpConfig(host=host, token=token)
    HttpConfig(host=host, token=TOKEN)


def test_the_token_is_asked_for(scripted):
    with serve(scripted, token=TOKEN) as server:
        server.wait_ready(20)
        for wrong in (None, "wrong", TOKEN + "x", TOKEN[:-1]):
            client = HttpClient(server.url, wrong)
            with client, pytest.raises(RequestError, match="token"):
                client.score(request_of(1))
        for header in ("", "Bearer", "Basic " + TOKEN, "Bearer \xff"):
            assert get(server, "/v1/scorers", Authorization=header)[0] == 401
        assert get(server, "/metrics")[0] == 401
        assert get(server, "/healthz")[0] == 200
        assert json.loads(get(server, "/readyz")[1])["problems"] == {}
        with HttpClient(server.url, TOKEN) as client:
            assert client.score(request_of(3))["progress"].score.tolist() == [3.0]
    assert scripted.accepted == 1 + 1, "the canary and the one with the token"


def test_a_name_that_points_here_by_rebinding_is_refused(scripted):
    with serve(scripted) as server:
        assert get(server, "/v1/scorers", Host="evil.example")[0] == 403
        assert get(server, "/v1/scorers", Host="localhost:1")[0] == 200
        assert get(server, "/v1/scorers", Host="[::1]:1")[0] == 200


def test_what_is_not_a_request_gets_its_status(scripted):
    body = wire.encode_request(request_of(1))
    with serve(scripted) as server:
        assert get(server, "/")[0] == 404
        assert get(server, "/v1/score")[0] == 405
        assert post(server, body, **{"Content-Type": "application/json"})[0].status == 415
        assert post(server, body, **{"Content-Encoding": "gzip"})[0].status == 415
        response, out = post(server, b"x")
        assert response.status == 400
        assert json.loads(out)["type"] == "RequestError"
        assert post(server, body)[0].status == 200


# --- sizes and slowness ---


def test_a_body_that_is_too_large_is_refused_by_its_length(scripted):
    with serve(scripted, max_body=100_000) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(
                b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/octet-stream\r\nContent-Length: 99999999999\r\n\r\n"
            )
            assert raw.recv(1000).startswith(b"HTTP/1.1 413")
        with HttpClient(server.url) as client:
            with pytest.raises(RequestError, match="max_body=100000"):
                client.score(request_of(1, size=3000))
            assert client.score(request_of(3))["progress"].score.tolist() == [3.0]


def test_a_chunked_body_that_grows_too_large_is_cut_off(scripted):
    def forever():
        while True:
            yield bytes(50_000)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serve(scripted, max_body=1 << 20) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        headers = {"Content-Type": "application/octet-stream"}
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", "/v1/score", forever(), headers, encode_chunked=True)
        assert connection.getresponse().status == 413
        connection.close()
        with HttpClient(server.url) as client:
            assert client.score(request_of(3))["progress"].score.tolist() == [3.0]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 64 << 10, f"{grown} KiB"


def test_the_bytes_of_all_bodies_together_are_bounded(scripted, until):
    scripted.hold.set()
    big = wire.encode_request(request_of(1, size=250))
    with serve(scripted, max_pending=2 * len(big)) as server:
        outcomes = []
        threads = [
            threading.Thread(target=lambda: outcomes.append(post(server, big)[0].status))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: scripted.accepted == 3)  # and the canary
        response, out = post(server, big)
        assert response.status == 429
        assert response.headers["Retry-After"] == "1"
        assert json.loads(out)["retry_after"] == 0.5
        scripted.hold.clear()
        scripted.finish()
        for thread in threads:
            thread.join()
        assert outcomes == [200, 200]
        assert post(server, big)[0].status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /v1/sc", b"head", b"body"])
def test_a_slow_client_is_cut_off_and_holds_nobody_up(scripted, sent):
    head = (
        b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: 5000\r\n\r\n"
    )
    data = {b"head": head, b"body": head + bytes(100)}.get(sent, sent)
    with serve(scripted, read_timeout=0.5) as server, HttpClient(server.url) as client:
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
            slow.sendall(data)
            assert client.score(request_of(3))["progress"].score.tolist() == [3.0]
            out = b""
            while more := slow.recv(1000):
                out += more
        assert time.monotonic() - begin < 5
        if sent in (b"head", b"body"):
            assert out.startswith(b"HTTP/1.1 408")


def test_a_core_that_never_answers_is_given_up_in_time(scripted):
    with serve(scripted, deadline=0.3) as server, HttpClient(server.url) as client:
        server.wait_ready(20)
        scripted.hold.set()
        begin = time.monotonic()
        with pytest.raises(ScoringError, match="did not answer in time"):
            client.score(request_of(1, seconds=0.2))
        assert 0.4 < time.monotonic() - begin < 4
        scripted.hold.clear()
        scripted.finish()
        assert client.score(request_of(3))["progress"].score.tolist() == [3.0]


def test_the_timeout_of_a_request_reaches_the_core(core):
    late = ScoreRequest(
        scorers=("progress",), frames=np.zeros((400, 64, 64, 3), np.uint8), timeout=1e-4
    )
    with serve(core) as server, HttpClient(server.url) as client:
        batch = client.score(late)["progress"]
    assert (batch.status == Status.TIMEOUT).all()
    assert np.isnan(batch.score).all()


def test_connections_are_bounded(scripted, until):
    with serve(scripted, max_connections=4) as server:
        held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as fifth:
            out = b""
            while more := fifth.recv(1000):
                out += more
        assert out.startswith(b"HTTP/1.1 503")
        json.loads(out.partition(b"\r\n\r\n")[2])
        for connection in held:
            connection.close()
        until(lambda: get(server, "/healthz")[0] == 200)


def test_a_client_that_leaves_breaks_nothing(scripted, until):
    scripted.hold.set()
    body = wire.encode_request(request_of(1))
    head = (
        b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    with serve(scripted) as server:
        for data in (head, head + body[:100], head + body):
            with socket.create_connection(("127.0.0.1", server.port)) as raw:
                raw.sendall(data)
                time.sleep(0.05)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        until(lambda: scripted.accepted >= 2)
        scripted.hold.clear()
        scripted.finish()
        with HttpClient(server.url) as client:
            assert client.score(request_of(3))["progress"].score.tolist() == [3.0]


def test_producers_at_twice_the_capacity_lose_nothing(scripted):
    with serve(scripted) as server:
        server.wait_ready(20)
        scripted.places, scripted.accepted = 4, 0
        scripted.hold.set()
        outcomes, waits = [], []

        def produce(number):
            for k in range(20):
                value, begin = number * 20 + k, time.monotonic()
                response, out = post(server, wire.encode_request(request_of(value)))
                right = True
                if response.status == 200:
                    right = wire.decode_reply(out)["progress"].score[0] == value % 251
                outcomes.append((response.status, right))
                waits.append(time.monotonic() - begin)

        threads = [threading.Thread(target=produce, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            scripted.finish(1)
            time.sleep(0.002)
        metrics = get(server, "/metrics")[1]
    codes = [code for code, _ in outcomes]
    assert len(codes) == 160
    assert all(right for _, right in outcomes), "nobody gets another's score"
    assert (codes.count(200), codes.count(429)) == (scripted.accepted, scripted.rejected)
    assert codes.count(200) + codes.count(429) == 160
    assert scripted.rejected > 0
    assert scripted.deepest <= 4
    assert np.percentile(waits, 99) < 2, "nobody waits behind what was refused"
    line = f'er_requests_total{{code="429",route="/v1/score"}} {float(scripted.rejected)}'
    assert line in metrics


class Bomb:
    def __reduce__(self):
        return (exec, ("import sys; sys.transport_bomb = True",))


def test_no_bytes_break_the_server(core, full_request):
    rng = random.Random(6)
    whole = wire.encode_request(full_request)
    direct = core.score(full_request)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with serve(core, read_timeout=2.0) as server, HttpClient(server.url) as client:
        codes = set()
        for k in range(300):
            message = bytearray(whole)
            if k % 3 == 0:
                for _ in range(3):
                    message[rng.randrange(1200)] = rng.randrange(256)
            elif k % 3 == 1:
                message = message[: rng.randrange(len(message))]
            else:
                message = rng.choice([pickle.dumps(Bomb()), b"PK\3\4" + bytes(500), b"{}", b""])
            response, _ = post(server, bytes(message))
            codes.add(response.status)
        for junk in (b"\0" * 100, b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01" * 50):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as raw:
                raw.sendall(junk)
                raw.shutdown(socket.SHUT_WR)
                while raw.recv(1000):
                    pass
        assert codes <= {200, 400}
        assert 400 in codes
        assert client.score(full_request) == direct
    gc.collect()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 128 << 10, f"{grown} KiB"
    assert not hasattr(sys, "transport_bomb")


def test_the_client_in_the_documentation_works(core, full_request):
    """Whoever writes a client in another language starts from it."""
    page = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
    code = page.split("```python\n# A client without this package\n")[1].split("```")[0]
    names = {}
    exec(code, names)
    frames = full_request.frames[0]
    direct = core.score(ScoreRequest(scorers=("progress",), frames=frames))["progress"]
    with serve(core) as server:
        arguments = ("127.0.0.1", server.port, "progress", frames.tobytes(), frames.shape)
        scores, status = names["score"](*arguments)
        assert np.array(scores, np.float32).tobytes() == direct.score.tobytes()
        assert set(status) == {Status.OK}
        with pytest.raises(RuntimeError, match="no scorer 'x'"):
            names["score"](*arguments[:2], "x", *arguments[3:])


# --- operations ---


def test_ready_only_when_every_scorer_answers(scripted):
    scripted.hold.set()
    with serve(scripted) as server:
        assert get(server, "/readyz") == (
            503,
            '{"ready": false, "problems": {"progress": "warming up"}}',
        )
        assert get(server, "/healthz")[0] == 200
        scripted.hold.clear()
        scripted.finish()
        assert server.wait_ready(20) == {}
        assert get(server, "/readyz")[0] == 200
        scripted.warm = False
        assert get(server, "/readyz")[0] == 503


def test_the_canary_compares_with_the_card(core):
    canary = Canary(core)
    assert set(canary.problems()) == {"progress", "success"}
    assert canary.check() == {}
    score = core.score(canary_request(core.card("progress")))["progress"].score[0]

    class Altered:
        def __init__(self, expected):
            self.expected, self.names = expected, core.names
            self.submit, self.ready = core.submit, core.ready

        def card(self, name):
            card = core.card(name)
            return type(card)(name, "t", extra={"canary": self.expected})

    assert "progress" not in Canary(Altered(float(score) * (1 + 1e-5))).check()
    problems = Canary(Altered(float(score) + 0.1)).check()
    assert "its card says" in problems["progress"]


def test_the_canary_shows_every_role_in_every_view(core):
    card = core.card("progress")
    request = canary_request(type(card)("a", "t", extra={"views": ["corner", "wrist"]}))
    seen = {(int(v), int(r)) for v, r in zip(request.view, request.role, strict=True)}
    assert seen == {(v, r) for v in range(2) for r in Role}
    assert len({frame.tobytes() for frame in request.frames[0]}) == request.frame_count


def test_metrics_tell_what_happened(core, full_request):
    with serve(core) as server, HttpClient(server.url) as client:
        server.wait_ready(60)
        client.score(full_request)
        scores = client.score(full_request)["progress"].score
        code, page = get(server, "/metrics")
    assert code == 200
    lines = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    assert float(lines['er_requests_total{code="200",route="/v1/score"}']) == 2
    assert float(lines['er_items_total{scorer="progress",status="BAD_INPUT"}']) == 2
    assert float(lines["er_core_cache_hits_total"]) >= 5
    assert 0 < float(lines["er_batch_fill"]) <= 1
    mean = float(lines['er_score_mean{scorer="progress"}'])
    assert mean == pytest.approx(np.nanmean(scores), rel=1e-6)
    assert float(lines['er_score_std{scorer="progress"}']) == pytest.approx(np.nanstd(scores))
    assert float(lines["er_queued"]) == 0
    assert 'er_stage_seconds_count{scorer="progress",stage="queue"}' in lines
    assert float(lines["er_received_bytes_total"]) == 2 * len(wire.encode_request(full_request))


def test_stopping_finishes_what_is_under_way_and_refuses_the_rest(scripted, until):
    scripted.hold.set()
    server = serve(scripted)
    results = []

    def ask():
        with HttpClient(server.url) as client:
            results.append(client.score(request_of(5))["progress"].score.tolist())

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: scripted.accepted == 2)
    closing = threading.Thread(target=server.close)
    closing.start()
    until(lambda: post(server, wire.encode_request(request_of(1)))[0].status == 503)
    scripted.hold.clear()
    scripted.finish()
    asking.join(20)
    closing.join(20)
    assert results == [[5.0]]
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", server.port), timeout=1)


def test_a_port_that_is_taken_is_one_clear_error(scripted):
    with serve(scripted) as server, pytest.raises(ScoringError, match="another port"):
        HttpServer(scripted, HttpConfig(port=server.port))
