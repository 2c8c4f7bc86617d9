"""Frames to features on a device, in batches of a few fixed shapes.

On a CPU shapes do not matter, so a batch holds what there is; in strict mode every batch has the
one canonical size, because a matrix product's rounding depends on its shape and on nothing else.
On CUDA batches are padded to a bucket, so that one captured graph per bucket serves them all.
A batch is launched without waiting for it, and the next one while the first is computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.graphs import GraphedTrunk
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.types import UInt8

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Sizes of a batch on CUDA: a large trunk pays for padding, and the graphs share their memory."""


@dataclass
class Ticket:
    """A batch that was launched; on CUDA its features are still being computed."""

    features: Tensor
    event: "torch.cuda.Event | None" = None

    def wait(self) -> Tensor:
        """Return the features Tensor["n ..."] once they are there, for the current stream."""
        if self.event is not None:
            self.event.synchronize()
            # Their memory belongs to the trunk's stream, which must not reuse it too early.
            self.features.record_stream(torch.cuda.current_stream(self.features.device))
        return self.features


class Runner:
    """Run one trunk.

    Args:
        trunk: what to run.
        max_batch: largest batch.
        canonical: the one size of strict mode, or None in tolerance mode.
        graphs: on CUDA, capture the trunk in graphs.

    Attributes:
        depth: batches that may be launched before the first is collected.
    """

    def __init__(
        self, trunk: Trunk, *, max_batch: int, canonical: int | None, graphs: bool = True
    ) -> None:
        self.trunk = trunk
        self.max_batch = canonical or max_batch
        on_gpu = trunk.device.type == "cuda"
        self.depth = 2 if on_gpu else 1
        self._canonical = canonical
        self._graphed = GraphedTrunk(trunk, graphs=graphs) if on_gpu else None

    def bucket(self, n: int) -> int:
        """Return the size that a batch of n pictures is padded to."""
        if self._canonical:
            return self._canonical
        if self._graphed is None:
            return n
        return min(next((b for b in BUCKETS if b >= n), self.max_batch), self.max_batch)

    @torch.no_grad()
    def launch(self, frames: Sequence[UInt8]) -> Ticket:
        """Start the batch of frames UInt8["h w 3"], which may differ in size."""
        n = len(frames)
        if self._graphed is None:
            return Ticket(self.trunk.forward(self._batch(frames))[:n])
        with self._graphed.stream() as stream:
            features = self._graphed(self._batch(frames))[:n].clone()
            event = torch.cuda.Event()
            event.record(stream)
        return Ticket(features, event)

    def _batch(self, frames: Sequence[UInt8]) -> Tensor:
        """Preprocess, pad to the bucket, and bring into the one layout."""
        n = len(frames)
        inputs = self._inputs(frames)
        bucket = self.bucket(n)
        if bucket > n:
            inputs = torch.cat([inputs, inputs.new_zeros((bucket - n, *inputs.shape[1:]))])
        if inputs.ndim == 4:
            # One layout for all batches: another one means another algorithm and other last bits.
            # Channels last is what bytes come in, and the faster one for convolutions.
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def _inputs(self, frames: Sequence[UInt8]) -> Tensor:
        """Preprocess on the device, size by size: each picture is resized as if it were alone."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for k, frame in enumerate(frames):
            by_shape.setdefault(frame.shape, []).append(k)
        inputs: Tensor | None = None
        for rows in by_shape.values():
            stacked = self._upload([frames[k] for k in rows])
            done = self.trunk.preprocess(stacked)
            if len(by_shape) == 1:
                return done
            if inputs is None:
                inputs = done.new_empty((len(frames), *done.shape[1:]))
            inputs[torch.tensor(rows, device=done.device)] = done
        assert inputs is not None
        return inputs

    def _upload(self, frames: Sequence[UInt8]) -> Tensor:
        """Return uint8 Tensor["k h w 3"] on the device; bytes travel, not floats."""
        if self._graphed is None:
            return torch.from_numpy(np.stack(frames))
        return self._graphed.upload(frames)
