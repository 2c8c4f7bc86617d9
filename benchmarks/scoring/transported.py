"""The scoring core in a process of its own: through the ring, through HTTP."""

import multiprocessing
from contextlib import suppress
from functools import cached_property
from multiprocessing.connection import Connection

import torch
from ours import Ours, core_of
from trunk_zoo import Model, build

from embodied_reward.scoring import ScoringCore
from embodied_reward.scoring.transport.client import HttpClient
from embodied_reward.scoring.transport.http_config import HttpConfig
from embodied_reward.scoring.transport.listen import HttpServer
from embodied_reward.scoring.transport.ring_client import RingClient
from embodied_reward.scoring.transport.ring_server import RingServer

LARGEST = 128 << 20
"""Bytes of one request: hundreds of pictures of 224 px."""


class _Transported(Ours):
    """The core, with its cache, in a process of its own."""

    kind: str

    def __init__(self, model: Model) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=serve_core,
            args=(self.kind, model.name, str(model.trunk.device), theirs),
            daemon=True,
        )
        self._process.start()
        theirs.close()  # else a server that dies would be waited for for ever
        self._pipe = ours  # the server lives as long as this end is open

    @cached_property
    def client(self):  # noqa: ANN201
        """Connect when first asked, so that several servers start at the same time."""
        return self._connect(self._pipe.recv())

    def _connect(self, address: str):  # noqa: ANN202
        raise NotImplementedError

    def close(self) -> None:
        self.client.close()
        self._pipe.close()
        self._process.join(30)


class Ring(_Transported):
    """Through shared memory."""

    name, kind = "core, ring", "ring"

    def _connect(self, address: str) -> RingClient:
        return RingClient(address)


class Http(_Transported):
    """Through HTTP, raw bytes."""

    name, kind = "core, HTTP", "http"

    def _connect(self, address: str) -> HttpClient:
        return HttpClient(address)


def serve_core(kind: str, model_name: str, device: str, pipe: Connection) -> None:
    """Serve a core on one thread until the pipe is closed; send the address through it."""
    torch.set_num_threads(1)
    with core_of(build(model_name, device), cached=True) as core, server_of(kind, core) as server:
        pipe.send(server.address if isinstance(server, RingServer) else server.url)
        with suppress(EOFError):
            pipe.recv()


def server_of(kind: str, core: ScoringCore) -> RingServer | HttpServer:
    if kind == "ring":
        return RingServer(core, slots=4, slot_bytes=LARGEST)
    return HttpServer(core, HttpConfig(port=0, max_body=LARGEST))
