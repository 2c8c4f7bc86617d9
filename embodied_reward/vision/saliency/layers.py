"""Layers of a network by name: which there are, what they put out, where it lies in the picture."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError

LISTED = 60
FINE = 8
"""Cells along a side from which on a plane tells things from what is around them."""


def layer_names(network: nn.Module) -> tuple[str, ...]:
    """Return the names of all modules inside, in the order in which they are defined."""
    return tuple(name for name, _ in network.named_modules() if name)


def find_layers(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """Return the modules of these names. Raises ConfigError listing the layers there are."""
    known = dict(network.named_modules())
    for name in names:
        if name not in known or not name:
            listed = [*layer_names(network)]
            more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
            raise ConfigError(
                f"the encoder has no layer '{name}'; it has {', '.join(listed[:LISTED])}{more}"
            )
    return {name: known[name] for name in names}


@contextlib.contextmanager
def recording(modules: dict[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Record what modules put out while the context lasts; outputs without graph are skipped.

    The network goes on with a copy, so that an operation in place spoils nothing.
    """
    found: dict[str, Tensor] = {}

    def listen(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            first = output[0] if isinstance(output, tuple) else output
            if not isinstance(first, Tensor) or not first.requires_grad:
                return None
            found[name] = first
            copy = first.clone()
            return (copy, *output[1:]) if isinstance(output, tuple) else copy

        return hook

    handles = [module.register_forward_hook(listen(name)) for name, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def stages(network: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Return the last layer with a picture plane at each resolution, finest first.

    A plane is an output Tensor["n c h w"]; those of fewer than `FINE` cells a side are left out
    where there are finer ones. Of a residual network these are the ends of its stages, of our
    small one the ReLUs of all resolutions down to 8 x 8, of a vision transformer its patch
    embedding.
    """
    last: dict[tuple[int, int], str] = {}
    leaves = {n: m for n, m in network.named_modules() if n and not any(m.children())}

    def listen(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[-2:]) > 1:
                last[(int(output.shape[-2]), int(output.shape[-1]))] = name

        return hook

    handles = [module.register_forward_hook(listen(name)) for name, module in leaves.items()]
    try:
        with torch.no_grad():
            network(images[:1])
    finally:
        for handle in handles:
            handle.remove()
    fine = {cells: name for cells, name in last.items() if min(cells) >= FINE}
    return tuple(name for _, name in sorted((fine or last).items(), reverse=True))


def as_plane(name: str, output: Tensor, grid: tuple[int, int] | None) -> Tensor:
    """Return an output as Tensor["n c h w"].

    Args:
        name: of the layer, for the error.
        output: Tensor["n c h w"], or tokens Tensor["n t d"] that end with the patches' own.
        grid: patches in height and width, of a vision transformer.

    Raises:
        ConfigError: the output has no place in the picture.
    """
    if output.ndim == 4:
        return output
    if output.ndim == 3 and grid is not None and output.shape[1] >= grid[0] * grid[1]:
        patches = output[:, output.shape[1] - grid[0] * grid[1] :]
        return patches.unflatten(1, grid).movedim(-1, 1)
    shape = " x ".join(map(str, output.shape[1:]))
    raise ConfigError(
        f"layer '{name}' puts out {shape} numbers a picture, which lie nowhere in the picture; "
        "choose a convolution, its activation, or a layer of a vision transformer"
    )
