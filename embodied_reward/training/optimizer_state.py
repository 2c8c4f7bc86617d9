"""Optimizer state as safetensors + JSON: no pickle, bit-exact."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from embodied_reward.errors import CheckpointError


def save_optimizer(optimizer: Optimizer, folder: Path, name: str = "optimizer") -> None:
    """Write `<name>.safetensors` (tensors) and `<name>.json` (hyper-parameters)."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": torch.as_tensor(value).contiguous()
        for index, entry in state["state"].items()
        for key, value in entry.items()
    }
    save_file(tensors, folder / f"{name}.safetensors")
    (folder / f"{name}.json").write_text(json.dumps(state["param_groups"]))


def load_optimizer(optimizer: Optimizer, folder: Path, name: str = "optimizer") -> None:
    """Restore what `save_optimizer` wrote. Raises CheckpointError if the parameters differ."""
    groups: list[dict[str, Any]] = json.loads((folder / f"{name}.json").read_text())
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in load_file(folder / f"{name}.safetensors").items():
        index, field = key.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    try:
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as error:
        raise CheckpointError(
            f"'{folder}' holds the optimizer of another model ({error}); "
            "resume with the configuration that the run was started with"
        ) from error
