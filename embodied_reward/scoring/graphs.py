"""The CUDA path of a trunk: pinned double buffering, bf16 as the trunk says, one graph a bucket.

Written for CUDA and not exercised without it: the CPU path never comes here.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.scorer import Trunk
from embodied_reward.types import UInt8

WARMUP = 3


class GraphedTrunk:
    """Replay one captured graph per batch size; copies overlap with compute.

    Attributes:
        captures: graphs that were captured; it stops growing once every bucket was seen.
    """

    def __init__(self, trunk: Trunk) -> None:
        self.trunk, self.captures = trunk, 0
        self._graphs: dict[tuple[int, ...], tuple[Callable[[], None], Tensor, Tensor]] = {}
        self._copies = torch.cuda.Stream(trunk.device)
        self._pinned: list[Tensor | None] = [None, None]
        self._free: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    def upload(self, frames: Sequence[UInt8]) -> Tensor:
        """Copy frames UInt8["h w 3"] of one size to the device on a stream of its own."""
        shape, k = (len(frames), *frames[0].shape), self._turn
        self._turn = 1 - k
        free = self._free[k]
        if free is not None:
            free.synchronize()
        size = len(frames) * frames[0].nbytes
        buffer = self._pinned[k]
        if buffer is None or len(buffer) < size:
            buffer = self._pinned[k] = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        staged = buffer[:size].view(shape)
        np.stack(frames, out=staged.numpy())
        with torch.cuda.stream(self._copies):
            uploaded = staged.to(self.trunk.device, non_blocking=True)
            event = self._free[k] = torch.cuda.Event()
            event.record()
        compute = torch.cuda.current_stream(self.trunk.device)
        compute.wait_stream(self._copies)
        uploaded.record_stream(compute)
        return uploaded

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return features Tensor["n ..."]; they are overwritten by the next call of that size."""
        shape = tuple(inputs.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._capture(inputs)
        replay, given, result = self._graphs[shape]
        given.copy_(inputs)
        replay()
        return result

    def _capture(self, inputs: Tensor) -> tuple[Callable[[], None], Tensor, Tensor]:
        given = inputs.clone()
        side = torch.cuda.Stream(self.trunk.device)
        side.wait_stream(torch.cuda.current_stream(self.trunk.device))
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                self.trunk.forward(given)
        torch.cuda.current_stream(self.trunk.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self.trunk.forward(given)
        self.captures += 1
        return graph.replay, given, result
