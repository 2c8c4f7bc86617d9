"""`er serve`: tiny scorers over both transports, signals, tokens, missing packages."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from embodied_reward.cli import main, serve
from embodied_reward.errors import RequestError
from embodied_reward.scoring import Head, Output, Scorer, ScorerCard, ScoreRequest
from embodied_reward.scoring.transport.client import HttpClient
from embodied_reward.scoring.transport.ring_client import RingClient
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder


class MeanHead(Head):
    def forward(self, items):
        return Output(score=items.mean_features().mean(1))


def tiny(path, device):
    """Stands where trained scorers are read from their folders."""
    torch.manual_seed(0)
    trunk = EncoderTrunk(ConvEncoder("conv64", 8, 32))
    return Scorer(ScorerCard(name=path, type="mean"), trunk, MeanHead())


def request_of(name):
    return ScoreRequest(scorers=(name,), frames=np.full((2, 16, 16, 3), 90, np.uint8))


def serve_while(monkeypatch, capsys, number, client, *argv):
    """Run `er serve` here; `client(url)` runs beside it, then the signal comes."""
    monkeypatch.setattr(serve, "load", tiny)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []

    def beside():
        try:
            end = time.monotonic() + 30
            while urllib_status(f"http://127.0.0.1:{port}/readyz") != 200:
                assert time.monotonic() < end
                time.sleep(0.05)
            found.append(client(f"http://127.0.0.1:{port}"))
        finally:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=beside)
    before = signal.getsignal(number)
    thread.start()
    status = main(["serve", f"--port={port}", *argv])
    thread.join()
    assert signal.getsignal(number) is before
    assert found, "the client failed"
    return status, capsys.readouterr(), found[0]


def urllib_status(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def test_serves_two_scorers_over_http_and_shared_memory(monkeypatch, capsys, tmp_path):
    ring = str(tmp_path / "ring.sock")

    def client(url):
        with HttpClient(url) as client, RingClient(ring) as worker:
            names, scores = client.names, client.score(request_of("two"))
            return names, scores["two"].require_ok(), worker.score(request_of("two")) == scores

    argv = ("--scorer.path=one,two", f"--ring.path={ring}")
    status, (out, err), found = serve_while(monkeypatch, capsys, signal.SIGTERM, client, *argv)
    names, scores, equal = found
    assert (status, err) == (0, "")
    assert names == ("one", "two")
    assert np.isfinite(scores).all()
    assert equal
    assert "  one  mean, weights unknown" in out
    assert "look: curl http://127.0.0.1:" in out
    # Warming up goes on beside the first requests, so that its line may come before or after.
    assert "ready: every scorer has scored its canary" in out.splitlines()
    assert out.splitlines()[-1] == "stopping: finishing what is under way"
    assert not os.path.exists(ring)


def test_an_open_address_takes_its_token_from_the_environment(monkeypatch, capsys):
    token = "a long and secret word"
    monkeypatch.setenv("ER_SERVE_TOKEN", token)

    def client(url):
        with HttpClient(url) as stranger, pytest.raises(RequestError, match="token"):
            stranger.score(request_of("one"))
        with HttpClient(url, token) as client:
            return client.score(request_of("one"))["one"].ok.all()

    argv = ("--scorer.path=one", "--host=0.0.0.0")
    status, (out, err), scored = serve_while(monkeypatch, capsys, signal.SIGINT, client, *argv)
    assert (status, err, scored) == (0, "", True)
    assert token not in out
    assert "$ER_SERVE_TOKEN" in out


# What `er serve` is as a process of its own.
SERVER = """
import sys
from embodied_reward.cli import main, serve
sys.path.insert(0, sys.argv.pop(1))
from test_serve import tiny
serve.load = tiny
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_process_ends_cleanly_on_a_signal(number):
    folder = os.path.dirname(__file__)
    argv = [sys.executable, "-W", "error::ResourceWarning", "-c", SERVER, folder]
    server = subprocess.Popen(
        [*argv, "--port=0", "--scorer.path=one"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [""]
    while not lines[-1].startswith("ready"):
        lines.append(server.stdout.readline())
        assert lines[-1], server.stderr.read()
    server.send_signal(number)
    begin = time.monotonic()
    out, err = server.communicate(timeout=60)
    assert (server.returncode, err) == (0, "")
    assert out.startswith("stopping")
    assert time.monotonic() - begin < 20


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "--scorer.path"),
        (["--scorer.path=x", "--host=0.0.0.0"], "ER_SERVE_TOKEN"),
        (["--scorer.path=x", "--cache.hash=md5"], "md5"),
        (["--scorer.path=x", "--mode=fast"], "strict"),
        (["--scorer.path=x", "--host=256.1.1.1", "--token=0123456789abcdef"], "no address"),
    ],
)
def test_what_cannot_be_served_is_one_line(argv, message, capsys, monkeypatch):
    monkeypatch.delenv("ER_SERVE_TOKEN", raising=False)
    monkeypatch.setattr(serve, "load", tiny)
    assert main(["serve", *argv]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert out == ""


def test_without_the_extra_it_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    for module in [m for m in sys.modules if m.startswith("embodied_reward.scoring.transport.")]:
        monkeypatch.delitem(sys.modules, module)
    assert main(["serve", "--scorer.path=x"]) == 2
    assert "pip install 'embodied-reward[serve]'" in capsys.readouterr().err


def test_help_names_every_field(capsys):
    assert main(["serve", "--help"]) == 0
    out = capsys.readouterr().out
    for name in ("--scorer.path", "--host=127.0.0.1", "--ring.path", "--cache.hash=auto"):
        assert name in out
