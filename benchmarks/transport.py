"""What a request costs on its way: in process, shared-memory ring, HTTP, and base64 in JSON.

    uv run python benchmarks/transport.py [--core=instant|tiny] [--rounds=9] [--json=FILE]

The servers run in a process of their own, on the same machine. With `--core=instant` scores cost
nothing, so that only the way counts; with `--core=tiny` the scoring core encodes every frame with
the small convolutional trunk (conv64, no cache), so that the way is seen beside the work. The peer
is what reward servers of image generators commonly do, without the PNG: frames as base64 in a JSON
body, decoded by the server. Ways alternate within every round; medians over the rounds are printed.
`cpu` is processor time of client and server together per gigabyte of frames.
"""

import argparse
import base64
import http.client
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.card import ScorerCard
from embodied_reward.scoring.limits import Limits
from embodied_reward.scoring.request import ScoreRequest
from embodied_reward.scoring.transport.client import HttpClient
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.listen import HttpServer
from embodied_reward.scoring.transport.ring_client import RingClient
from embodied_reward.scoring.transport.ring_server import RingServer

NAME = "scorer"
LOADS = {"1 x 64^2": (1, 64, 64), "1 x 224^2": (1, 224, 224), "32 x 224^2": (32, 224, 224)}
LARGE = {"16 x 480x640": (16, 480, 640)}
DIFFERENT = 8
WAYS = ("in process", "ring", "HTTP", "base64-JSON")


class InstantCore:
    """Gives every item the same score, without looking at it."""

    names, limits = (NAME,), Limits()

    def card(self, name):
        return ScorerCard(name=name, type="instant")

    def ready(self, name):
        return True

    def stats(self):
        return {}

    def submit(self, request):
        n = len(request)
        future = Future()
        score = np.full(n, 0.5, np.float32)
        batch = ScoreBatch(score=score, status=np.zeros(n, np.uint8), scorer=NAME)
        future.set_result({NAME: batch})
        return future

    def score(self, request):
        return self.submit(request).result()


def make_core(kind):
    if kind == "instant":
        return InstantCore()
    import torch

    from embodied_reward.scoring import Head, Output, Scorer, ScoringCore
    from embodied_reward.scoring.trunks import EncoderTrunk
    from embodied_reward.vision.encoders import ConvEncoder

    class MeanHead(Head):
        def forward(self, items):
            return Output(score=items.mean_features().mean(1))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    core = ScoringCore()
    trunk = EncoderTrunk(ConvEncoder("conv64", 64))
    core.register(Scorer(ScorerCard(name=NAME, type="mean"), trunk, MeanHead()))
    return core


def json_server(core):
    """The peer: a JSON body with base64 frames, a JSON reply."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self):  # noqa: N802
            tree = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            data = bytearray(base64.b64decode(tree["frames"]))
            frames = np.frombuffer(data, np.uint8).reshape(tree["shape"])
            batch = core.score(ScoreRequest(scorers=(NAME,), frames=(frames,)))[NAME]
            body = json.dumps({"score": batch.score.tolist()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def serve(kind):
    """Run all servers until the parent closes our standard input."""
    core = make_core(kind)
    folder = tempfile.mkdtemp()
    config = HttpConfig(port=0, max_body=1 << 30, max_pending=2 << 30)
    path = Path(folder) / "ring.sock"
    with RingServer(core, path=path, slot_bytes=64 << 20) as ring, HttpServer(core, config) as web:
        tree = {"ring": ring.address, "http": web.url, "json": json_server(core)}
        print(json.dumps(tree), flush=True)
        sys.stdin.read()
    os.rmdir(folder)


class JsonClient:
    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port)

    def score(self, request):
        frames = request.frames[0]
        tree = {"shape": frames.shape, "frames": base64.b64encode(frames).decode()}
        self.connection.request("POST", "/", json.dumps(tree))
        return json.loads(self.connection.getresponse().read())["score"]


def server_cpu(pid):
    """Processor time of another process [s], in steps of the kernel's tick."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(score, requests, seconds):
    """Return seconds per request and their number, over about `seconds`."""
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds or count < 3:
        score(requests[count % len(requests)])
        count += 1
    return spent / count, count


def compare(core, clients, pid, shape, rounds, seconds):
    rng = np.random.default_rng(0)
    # Several, so that no way finds the frames of the last round in the processor's cache.
    requests = [
        ScoreRequest(scorers=(NAME,), frames=(rng.integers(0, 256, (*shape, 3), np.uint8),))
        for _ in range(DIFFERENT)
    ]
    ways = {"in process": core.score, **{way: c.score for way, c in clients.items()}}
    taken, cpu, bytes_ = ({way: [] for way in ways} for _ in range(3))
    for score in ways.values():
        score(requests[0])
    for _ in range(rounds):
        for way, score in ways.items():
            before = time.process_time() + server_cpu(pid)
            latency, count = measure(score, requests, seconds)
            cpu[way].append(time.process_time() + server_cpu(pid) - before)
            taken[way].append(latency)
            bytes_[way].append(count * requests[0].nbytes)
    return {
        way: {
            "ms": 1e3 * statistics.median(taken[way]),
            "cpu_s_per_gb": sum(cpu[way]) / sum(bytes_[way]) * 1e9,
        }
        for way in ways
    }


def show(label, result):
    peer, near = result["base64-JSON"], result["in process"]
    for way in WAYS:
        row = result[way]
        print(
            f"{label:<13} {way:<12} {row['ms']:9.3f} ms  {row['ms'] - near['ms']:9.3f} ms more  "
            f"{peer['ms'] / row['ms']:7.1f} x faster than base64-JSON   "
            f"{row['cpu_s_per_gb']:8.2f} cpu-s/GB"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", choices=["instant", "tiny"], default="instant")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.core)
        return
    command = [sys.executable, __file__, "--serve", f"--core={args.core}"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    where = json.loads(server.stdout.readline())
    core = make_core(args.core)
    loads = LOADS if args.core == "tiny" else {**LOADS, **LARGE}
    results = {}
    with RingClient(where["ring"]) as ring, HttpClient(where["http"]) as web:
        clients = {"ring": ring, "HTTP": web, "base64-JSON": JsonClient(where["json"])}
        for label, shape in loads.items():
            results[label] = compare(core, clients, server.pid, shape, args.rounds, args.seconds)
            show(label, results[label])
    server.communicate()
    if args.core == "tiny":
        core.close()
    if args.json:
        facts = {"core": args.core, "rounds": args.rounds, "machine": platform.processor()}
        args.json.write_text(json.dumps({**facts, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
