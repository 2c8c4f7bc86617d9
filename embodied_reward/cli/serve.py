"""Serve scorers to other processes and machines: batched, cached, observable.

er serve --scorer.path=FOLDER[,FOLDER2] [--port=8765] [--ring.path=/run/user/1000/ring.sock]

Listens at 127.0.0.1; for any other address set ER_SERVE_TOKEN (or --token) and give clients the
same. Clients: `embodied_reward.scoring.transport.client.HttpClient(url)`, or any program that
writes the bytes of docs/serving.md. Simulators on this machine are faster through --ring.path and
`RingClient`. Ctrl-C or SIGTERM finishes what is under way and stops.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from embodied_reward.scoring import ItemScorer, Scorer, ScoringCore
    from embodied_reward.scoring.transport.http_config import HttpConfig
    from embodied_reward.scoring.transport.listen import HttpServer

TOKEN_VARIABLE = "ER_SERVE_TOKEN"  # noqa: S105 (the name of a variable)
LOADING = 600.0
"""Seconds that the scorers may take to warm up before their state is printed."""


@dataclass(frozen=True)
class ScorerPath:
    """Which scorers."""

    path: tuple[str, ...] = ()
    """scorers, one or several: runs of er train-scorer, YAML files of engines, hub ids"""
    device: str = "cpu"
    """where they compute: cpu, cuda, cuda:1, mps"""


@dataclass(frozen=True)
class ServerCacheConfig(CacheConfig):
    """Features of pictures that were seen before."""

    memory: int = 1024
    """memory for the features of one image encoder [MB]; 0 keeps nothing"""
    hash: str = "auto"
    """xxh3 (fast), blake2b (clients do not trust each other), auto: blake2b off loopback"""


@dataclass(frozen=True)
class RingConfig:
    """Shared memory for workers on this machine."""

    path: str | None = None
    """unix socket to make; default: no ring"""
    slots: int = 64
    """most workers"""
    slot_mb: int = 16
    """largest request of a worker [MiB]"""


@dataclass(frozen=True)
class ServeConfig:
    """Everything `er serve` can be told."""

    scorer: ScorerPath = field(default_factory=ScorerPath)
    host: str = "127.0.0.1"
    """address to listen at; any but loopback needs a token"""
    port: int = 8765
    """0 takes a free one"""
    token: str = ""
    """clients must send it; better set ER_SERVE_TOKEN, since a command line is no secret"""
    mode: str = "tolerance"
    """tolerance (fast), or strict: a score never depends on what else is asked for"""
    max_batch: int = 64
    """pictures of one trunk call"""
    max_queued: int = 131_072
    """frames and items that may wait; what comes beyond is refused with 429"""
    max_body_mb: int = 64
    """largest request [MiB]"""
    max_connections: int = 256
    """open connections"""
    read_timeout: float = 30.0
    """seconds for a request to arrive whole"""
    cache: ServerCacheConfig = field(default_factory=ServerCacheConfig)
    ring: RingConfig = field(default_factory=RingConfig)


def main(argv: list[str]) -> int:
    """Entry point of `er serve`."""
    return run_verb("serve", ServeConfig, run, argv, __doc__)


def run(config: ServeConfig) -> int:
    """Serve until a signal comes."""
    if not config.scorer.path:
        raise ConfigError("give at least one scorer: --scorer.path=FOLDER[,FOLDER2]")
    server_class = _server_class()
    http = _http(config)
    scorers = [load(path, config.scorer.device) for path in config.scorer.path]
    stop = threading.Event()
    with (
        _core(config, scorers, secret=not http.is_loopback) as core,
        _ring(config, core) as ring,
        _on_signals(stop),
        server_class(core, http, limits=core.limits) as server,
    ):
        _announce(server, core, ring, stop)
        stop.wait()
        print("stopping: finishing what is under way", flush=True)
    return 0


def load(path: str, device: str) -> "Scorer | ItemScorer":
    """Read one scorer: a folder, a file of an engine, or a hub id."""
    from embodied_reward.scoring.sources import open_scorer

    return open_scorer(path, device=device)


def _server_class() -> "type[HttpServer]":
    try:
        from embodied_reward.scoring.transport.listen import HttpServer
    except ImportError as error:
        raise MissingDependencyError(
            f"er serve needs the package '{error.name}': pip install 'embodied-reward[serve]'"
        ) from error
    return HttpServer


def _http(config: ServeConfig) -> "HttpConfig":
    from embodied_reward.scoring.transport.http_config import HttpConfig

    return HttpConfig(
        host=config.host,
        port=config.port,
        token=config.token or os.environ.get(TOKEN_VARIABLE, ""),
        max_body=config.max_body_mb << 20,
        max_pending=max(512, 2 * config.max_body_mb) << 20,
        max_connections=config.max_connections,
        read_timeout=config.read_timeout,
    )


def _core(
    config: ServeConfig, scorers: "list[Scorer | ItemScorer]", *, secret: bool
) -> "ScoringCore":
    from embodied_reward.scoring import FeatureCache, Limits, ScoringCore

    cache = None
    if config.cache.memory:
        automatic = "blake2b" if secret else "xxh3"
        cache = FeatureCache(
            capacity_bytes=config.cache.memory << 20,
            folder=config.cache.folder,
            hash=automatic if config.cache.hash == "auto" else config.cache.hash,
        )
    core = ScoringCore(
        cache=cache,
        mode=config.mode,  # type: ignore[arg-type]
        max_batch=config.max_batch,
        limits=Limits(max_queued=config.max_queued),
    )
    try:
        for scorer in scorers:
            core.register(scorer)
    except BaseException:
        core.close()
        raise
    return core


@contextlib.contextmanager
def _ring(config: ServeConfig, core: "ScoringCore") -> Iterator[str]:
    """Yield the ring's address, or nothing."""
    if not config.ring.path:
        yield ""
        return
    from embodied_reward.scoring.transport.ring_server import RingServer

    with RingServer(
        core,
        path=config.ring.path,
        slots=config.ring.slots,
        slot_bytes=config.ring.slot_mb << 20,
        limits=core.limits,
    ) as ring:
        yield ring.address


@contextlib.contextmanager
def _on_signals(stop: threading.Event) -> Iterator[None]:
    """Set `stop` on SIGINT or SIGTERM; a second one ends the process as usual."""
    before = {}

    def handle(*_: object) -> None:
        stop.set()
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(server: "HttpServer", core: "ScoringCore", ring: str, stop: threading.Event) -> None:
    print(f"serving at {server.url}" + (f" and through {ring}" if ring else ""), flush=True)
    width = max(map(len, core.names))
    for name in core.names:
        card = core.card(name)
        print(f"  {name:<{width}}  {card.type}, weights {card.weights_sha256[:12] or 'unknown'}")
    secret = f" -H 'Authorization: Bearer '${TOKEN_VARIABLE}" if server.config.token else ""
    print(f"look: curl{secret} {server.url}/v1/scorers", flush=True)
    problems = server.wait_ready(LOADING, stop)
    if problems and stop.is_set():
        return
    for name, why in problems.items():
        print(f"not ready: {name}: {why}", flush=True)
    if not problems:
        print("ready: every scorer has scored its canary", flush=True)
