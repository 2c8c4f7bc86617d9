"""The CUDA path of a trunk: pinned double buffering, a stream of its own, one graph a batch size.

Three streams share the work. Copies run on one, the trunk on another, and whatever becomes of the
features (cache, heads, replies) on the caller's: the caller never waits for a batch that was
launched after the one it asks for.
"""

import contextlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from embodied_reward.scoring.scorer import Trunk
from embodied_reward.types import UInt8

WARMUP = 3
"""Calls before a capture: libraries choose their algorithms and reserve memory in the first."""

_CAPTURING = threading.Lock()  # torch allows one capture at a time in a process


class GraphedTrunk:
    """Replay one captured graph per batch size; copies overlap with compute.

    A trunk whose `forward` looks at values on the host cannot be captured; it runs call by call.

    Args:
        trunk: on a CUDA device.
        graphs: whether to capture at all.

    Attributes:
        captures: graphs that were captured; it stops growing once every bucket was seen.
        graphs: whether calls are still captured.
    """

    def __init__(self, trunk: Trunk, *, graphs: bool = True) -> None:
        self.trunk, self.graphs, self.captures = trunk, graphs, 0
        self._graphs: dict[tuple[int, ...], tuple[Callable[[], None], Tensor, Tensor]] = {}
        self._pool: Any = None
        self._copies, self._compute, self._captured_on = (
            torch.cuda.Stream(trunk.device) for _ in range(3)
        )
        self._pinned: list[Tensor | None] = [None, None]
        self._free: list[torch.cuda.Event | None] = [None, None]
        self._turn = 0

    @contextlib.contextmanager
    def stream(self) -> Iterator[torch.cuda.Stream]:
        """Work on the trunk's stream, after what the caller's stream holds at this moment."""
        self._compute.wait_stream(torch.cuda.current_stream(self.trunk.device))
        with torch.cuda.stream(self._compute):
            yield self._compute

    def upload(self, frames: Sequence[UInt8]) -> Tensor:
        """Copy frames UInt8["h w 3"] of one size to the device, for the trunk's stream."""
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
            event.record(self._copies)
        self._compute.wait_event(event)
        uploaded.record_stream(self._compute)
        return uploaded

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return features Tensor["n ..."]; they are overwritten by the next call of any size."""
        shape = tuple(inputs.shape)
        if self.graphs and shape not in self._graphs:
            self._capture(inputs)
        if shape not in self._graphs:
            return self.trunk.forward(inputs)
        replay, given, result = self._graphs[shape]
        given.copy_(inputs)
        replay()
        return result

    def _capture(self, inputs: Tensor) -> None:
        given = inputs.clone()
        expected, why = self._warm_up(given)
        if why:
            self._give_up(why)
            return
        # Graphs are replayed one at a time and their results copied, so they may share memory.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        here = torch.cuda.current_stream(self.trunk.device)
        try:
            # The outer context restores the stream even where ending the capture raises. Other
            # threads may go on allocating (`thread_local`), but torch refuses them random numbers.
            with (
                _CAPTURING,
                _as_if_called(),
                torch.cuda.stream(here),
                torch.cuda.graph(
                    graph, self._pool, self._captured_on, capture_error_mode="thread_local"
                ),
            ):
                result = self.trunk.forward(given)
        except torch.OutOfMemoryError:
            self._abandon()
            raise
        except Exception as error:  # noqa: BLE001 (what cannot be captured can still be run)
            self._abandon()
            self._give_up(f"{type(error).__name__}: {error}")
            return
        graph.replay()
        if not _alike(result, expected):
            self._give_up("its graph gives other numbers")
            return
        self._graphs[tuple(inputs.shape)] = graph.replay, given, result
        self.captures += 1

    def _warm_up(self, given: Tensor) -> tuple[Tensor, str]:
        """Run the trunk outside of any graph; returns features, and what forbids to capture it."""
        for _ in range(WARMUP):
            with HostContacts(self.trunk.device) as seen:
                result = self.trunk.forward(given)
        return result, seen.first

    def _give_up(self, why: str) -> None:
        self.graphs = False
        warnings.warn(
            f"{type(self.trunk).__name__} cannot be captured in a CUDA graph and runs without: "
            f"{why}",
            stacklevel=2,
        )

    def _abandon(self) -> None:
        """Tell the allocator that a capture is over which did not end properly.

        Else it waits for that end with all memory that more than one stream has used.
        """
        end = getattr(torch._C, "_cuda_endAllocateToPool", None)
        if end is not None:
            with contextlib.suppress(RuntimeError):
                end(self.trunk.device.index or 0, self._pool)


def _alike(result: Tensor, expected: Tensor) -> bool:
    """Whether a graph does what the call does, but for rounding."""
    both = torch.isfinite(result) & torch.isfinite(expected)
    apart = torch.where(both, result - expected, 0.0).norm()
    return bool(apart <= 0.01 * torch.where(both, expected, 0.0).norm() + 1e-6)


@contextlib.contextmanager
def _as_if_called() -> Iterator[None]:
    """Let `transformers` take the path of a plain call while it is captured.

    It asks whether a graph is being captured, and then hands attention a full mask, with which the
    kernels are several times slower. The plain path was seen to be free of host contacts.
    """
    module: Any = sys.modules.get("transformers.utils.import_utils")
    asked = getattr(module, "is_cuda_stream_capturing", None)
    if asked is None:
        yield
        return
    module.is_cuda_stream_capturing = lambda: False
    try:
        yield
    finally:
        module.is_cuda_stream_capturing = asked


class HostContacts(TorchDispatchMode):
    """Watch for operations that wait for the device, which no graph can hold.

    A capture that fails leaves the allocator in disorder, so it is better not to begin it.

    Attributes:
        first: name of the first such operation, empty if there was none.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._device, self.first = device, ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See the base class."""
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in tree_leaves((args, kwargs, result)) if isinstance(t, Tensor)]
        if not self.first and self._waits(func, tensors):
            self.first = str(func)
        return result

    def _waits(self, func: Any, tensors: list[Tensor]) -> bool:
        here = [t for t in tensors if t.device.type == self._device.type]
        away = [t for t in tensors if t.device.type != self._device.type]
        if not here:
            return False
        if func.overloadpacket in _INDEXING:  # by numbers it has a fixed shape, by a mask not
            return bool(away) or any(t.dtype in (torch.bool, torch.uint8) for t in here[1:-1])
        if (
            torch.Tag.data_dependent_output in func.tags
            or torch.Tag.dynamic_output_shape in func.tags
        ):
            return True
        copies = func.overloadpacket in _COPIES
        return any(copies or t.ndim for t in away)


_INDEXING = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.copy_)
