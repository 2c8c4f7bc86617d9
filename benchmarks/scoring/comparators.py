"""How rewards are served today, written by us from descriptions of public systems.

(a) JPEG, pickle and HTTP to a serial server, as flow_grpo's remote rewards do
(b) PNG in base64 in JSON to a serial server, as reward APIs with JSON bodies do
(c) the CPU image processor (PIL) and a loop of single pictures, as offline scorers do
(d) a batcher that waits 10 ms or for 64 pictures, as TorchRL's inference server does
(e) a plain loop over batches of 64, in process

Pickle is used here and nowhere else in this project: it is what (a) is made of. Unpickling what
a stranger sends runs the stranger's code.
"""

import base64
import http.client
import io
import json
import multiprocessing
import pickle
import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from servers import serve
from sides import Side
from transformers import ViTImageProcessorPil
from trunk_zoo import BATCH, Model

from embodied_reward.types import Float32, UInt8

MAX_DELAY = 0.010
"""Seconds that (d) waits for more pictures [s]."""


def processor_of(size: int) -> ViTImageProcessorPil:
    """The CPU processor: PIL's antialiased resize, then [0, 1]; our trunks normalise themselves."""
    return ViTImageProcessorPil(size={"height": size, "width": size}, do_normalize=False)


def uploaded(model: Model, frames: UInt8) -> torch.Tensor:
    """Bytes on the model's device, as everybody brings them there."""
    return torch.from_numpy(frames).to(model.trunk.device)


class Bare(Side):
    """(e) Nothing but the model, in batches."""

    name = "(e) bare loop"

    def __init__(self, model: Model) -> None:
        self.model = model

    def _batches(self, frames: UInt8, texts: list[str] | None, head: int) -> Float32:
        scores = []
        for at in range(0, len(frames), BATCH):
            inputs = self.model.trunk.preprocess(uploaded(self.model, frames[at : at + BATCH]))
            chosen = None if texts is None else texts[at : at + BATCH]
            scores.append(self.model.forward(inputs, chosen, head))
        return torch.cat(scores).cpu().numpy()

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        return self._batches(frames, texts, 0)

    def heads(self, frames: UInt8) -> list[Float32]:
        return [self._batches(frames, None, head) for head in range(3)]


class SinglePictures(Side):
    """(c) PIL, processor, one picture per call."""

    name, slow = "(c) PIL + batch 1", True

    def __init__(self, model: Model) -> None:
        self.model, self.processor = model, processor_of(model.size)

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        return self._with(frames, texts, 0)

    def heads(self, frames: UInt8) -> list[Float32]:
        return [self._with(frames, None, head) for head in range(3)]

    def _with(self, frames: UInt8, texts: list[str] | None, head: int) -> Float32:
        scores = []
        for k, frame in enumerate(frames):
            image = Image.fromarray(frame)
            inputs = self.processor(images=image, return_tensors="pt")["pixel_values"]
            text = None if texts is None else [texts[k]]
            scores.append(self.model.forward(inputs, text, head).item())
        return np.array(scores, np.float32)


class TimeoutBatcher(Side):
    """(d) A thread that collects single pictures until there are 64 or 10 ms have passed."""

    name = "(d) timeout batcher"

    def __init__(self, model: Model) -> None:
        self.model = model
        self._queue: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, frame: UInt8, text: str | None = None, head: int = 0) -> Future:
        future: Future = Future()
        self._queue.put((frame, text, head, future))
        return future

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        chosen = texts or [None] * len(frames)
        futures = [self.submit(f, t) for f, t in zip(frames, chosen, strict=True)]
        return np.array([f.result() for f in futures], np.float32)

    def heads(self, frames: UInt8) -> list[Float32]:
        scores = []
        for head in range(3):
            futures = [self.submit(frame, None, head) for frame in frames]
            scores.append(np.array([f.result() for f in futures], np.float32))
        return scores

    def _collect(self) -> list:
        batch = [self._queue.get()]
        deadline = time.monotonic() + MAX_DELAY
        while len(batch) < BATCH and batch[-1] is not None:
            try:
                batch.append(self._queue.get(timeout=max(0.0, deadline - time.monotonic())))
            except queue.Empty:
                break
        return batch

    def _run(self) -> None:
        while True:
            batch = self._collect()
            items = [item for item in batch if item is not None]
            if items:
                frames, texts, heads, futures = zip(*items, strict=True)
                inputs = self.model.trunk.preprocess(uploaded(self.model, np.stack(frames)))
                chosen = None if texts[0] is None else list(texts)
                scores = self.model.forward(inputs, chosen, heads[0]).tolist()
                for future, score in zip(futures, scores, strict=True):
                    future.set_result(score)
            if len(items) < len(batch):
                return

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join(5)


class Fifo(Bare):
    """(e) for clients that send single pictures: a queue, one picture at a time, no batches."""

    name = "(e) bare, first come first served"

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self._pool = ThreadPoolExecutor(1)

    def submit(self, frame: UInt8) -> Future:
        return self._pool.submit(self.score, frame[None])

    def close(self) -> None:
        self._pool.shutdown()


class _Remote(Side):
    """A client of a server in a process of its own, with one thread; 64 pictures per request."""

    kind: str
    slow = True

    def __init__(self, model: Model) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(
            target=serve, args=(self.kind, model.name, str(model.trunk.device), theirs), daemon=True
        )
        self._process.start()
        theirs.close()  # else a server that dies would be waited for for ever
        self._pipe = ours

    @cached_property
    def _connection(self) -> http.client.HTTPConnection:
        """Connect when first asked, so that several servers start at the same time."""
        return http.client.HTTPConnection("127.0.0.1", self._pipe.recv(), timeout=120)

    def _post(self, body: bytes) -> bytes:
        self._connection.request("POST", "/", body)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{self.name}: {answer.status} {data[:200]!r}")
        return data

    def _exchange(self, images: list[bytes], texts: list[str] | None, head: int) -> list[float]:
        raise NotImplementedError

    def _encode(self, frame: UInt8) -> bytes:
        raise NotImplementedError

    def _with(self, frames: UInt8, texts: list[str] | None, head: int) -> Float32:
        scores: list[float] = []
        for at in range(0, len(frames), BATCH):
            images = [self._encode(frame) for frame in frames[at : at + BATCH]]
            chosen = None if texts is None else texts[at : at + BATCH]
            scores += self._exchange(images, chosen, head)
        return np.array(scores, np.float32)

    def score(self, frames: UInt8, texts: list[str] | None = None) -> Float32:
        return self._with(frames, texts, 0)

    def heads(self, frames: UInt8) -> list[Float32]:
        return [self._with(frames, None, head) for head in range(3)]

    def close(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join(5)


class JpegPickle(_Remote):
    """(a) JPEG at PIL's default quality, pickled both ways."""

    name, kind = "(a) JPEG + pickle + HTTP", "pickle"

    def _encode(self, frame: UInt8) -> bytes:
        return encoded(frame, "JPEG")

    def _exchange(self, images: list[bytes], texts: list[str] | None, head: int) -> list[float]:
        body = pickle.dumps({"images": images, "prompts": texts, "head": head})
        return pickle.loads(self._post(body))["scores"]


class PngJson(_Remote):
    """(b) PNG, base64, JSON."""

    name, kind = "(b) PNG + base64 + JSON", "json"

    def _encode(self, frame: UInt8) -> bytes:
        return encoded(frame, "PNG")

    def _exchange(self, images: list[bytes], texts: list[str] | None, head: int) -> list[float]:
        coded = [base64.b64encode(image).decode() for image in images]
        body = json.dumps({"images": coded, "prompts": texts, "head": head}).encode()
        return json.loads(self._post(body))["scores"]


def encoded(frame: UInt8, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format=form)
    return buffer.getvalue()


COMPARATORS: tuple[type[Side], ...] = (JpegPickle, PngJson, SinglePictures, TimeoutBatcher, Bare)
