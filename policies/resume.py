"""Everything a stopped run needs to go on: `training_state/`, without pickle.

Restored bit by bit: parameters, optimiser states, entropy coefficient, replay buffer, counters,
windows of episode statistics, the generators of Python, NumPy and torch and the buffer's own,
and what sample weights remember.
Not restored, because Stable-Baselines3 and MuJoCo give no access to it: the episode that was
under way. A resumed run resets its environments with a seed made from (seed, decisions done),
so it is reproducible, but not the run that would have happened without the interruption.
"""

import json
import random
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.errors import CheckpointError
from embodied_reward.training.optimizer_state import load_optimizer, save_optimizer

from .checkpoint import load_weights
from .finetune.aliased import AliasedPolicy
from .finetune.tuned import DenoisingPolicy
from .finetune.weights import WeightPPO
from .sac import DemoSAC

CRITIC = "critic.safetensors"  # of a fine-tuned diffusion policy, whose own file LeRobot reads
KEPT = "kept.safetensors"  # decisions that it learns from again


def save_training_state(model: BaseAlgorithm, folder: Path, extra: dict[str, Any]) -> None:
    """Write `folder/training_state/`; `extra` holds JSON types of the caller."""
    target = folder / "training_state"
    target.mkdir(parents=True)
    state: dict[str, Any] = {
        "num_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "episodes": model._episode_num,
        "episode_returns": [[e["r"], e["l"]] for e in model.ep_info_buffer or ()],
        "episode_success": [float(s) for s in model.ep_success_buffer or ()],
        "python": _python_state(),
        "numpy": _numpy_state(),
        "extra": extra,
    }
    tensors = {"torch_rng": torch.get_rng_state()}
    if isinstance(model, DemoSAC):
        safetensors.numpy.save_file(model.replay_buffer.arrays(), target / "replay.safetensors")
        state["replay"] = model.replay_buffer.counters()
        if model.log_ent_coef is not None:
            tensors["log_ent_coef"] = model.log_ent_coef.detach().clone()
        if model.sample_weights is not None:
            model.sample_weights.save(target)
    if isinstance(model.policy, DenoisingPolicy):
        safetensors.torch.save_model(model.policy.critic, str(target / CRITIC))
    if isinstance(model, WeightPPO) and model.memory is not None:
        safetensors.torch.save_file(model.memory.arrays(), target / KEPT)
        state["kept"] = model.memory.version
    for name, optimizer in _optimizers(model).items():
        save_optimizer(optimizer, target, name)
    safetensors.torch.save_file(tensors, target / "tensors.safetensors")
    (target / "state.json").write_text(json.dumps(state))


def load_training_state(model: BaseAlgorithm, folder: Path) -> dict[str, Any]:
    """Restore a checkpoint folder into a freshly built `model`; returns the caller's `extra`.

    Raises:
        CheckpointError: the checkpoint belongs to another configuration.
    """
    source = folder / "training_state"
    if not (source / "state.json").is_file():
        raise CheckpointError(f"'{folder}' holds a policy but no training_state to resume from")
    state = json.loads((source / "state.json").read_text())
    _load_networks(model.policy, folder)
    for name, optimizer in _optimizers(model).items():
        load_optimizer(optimizer, source, name)
    tensors = safetensors.torch.load_file(source / "tensors.safetensors")
    if isinstance(model, DemoSAC):
        arrays = safetensors.numpy.load_file(source / "replay.safetensors")
        model.replay_buffer.restore(arrays, state["replay"])
        if model.log_ent_coef is not None:
            model.log_ent_coef.data.copy_(tensors["log_ent_coef"])
        if model.sample_weights is not None:
            model.sample_weights.load(source, model.device)
    if isinstance(model, WeightPPO) and model.memory is not None:
        model.memory.restore(safetensors.torch.load_file(source / KEPT), state["kept"])
    model.num_timesteps, model._n_updates = state["num_timesteps"], state["n_updates"]
    model._episode_num = state["episodes"]
    _restore_windows(model, state)
    _restore_generators(state, tensors["torch_rng"])
    return state["extra"]


def _load_networks(policy: BasePolicy, folder: Path) -> None:
    if not isinstance(policy, DenoisingPolicy):
        load_weights(policy, folder / "pretrained_model")
        return
    load_weights(policy.learner, folder / "pretrained_model")
    safetensors.torch.load_model(policy.critic, str(folder / "training_state" / CRITIC))


def _optimizers(model: BaseAlgorithm) -> dict[str, torch.optim.Optimizer]:
    if not isinstance(model, DemoSAC):
        return {"policy": model.policy.optimizer}
    found = {"actor": model.actor.optimizer, "critic": model.critic.optimizer}
    if isinstance(model.policy, AliasedPolicy):
        found["noise_critic"] = model.policy.noise_critic.optimizer
    if model.ent_coef_optimizer is not None:
        found["ent_coef"] = model.ent_coef_optimizer
    return found


def _restore_windows(model: BaseAlgorithm, state: dict[str, Any]) -> None:
    # SB3 makes these windows in learn() unless they exist; it fills them with Monitor's dicts.
    size = model._stats_window_size
    rows = [{"r": r, "l": length, "t": 0.0} for r, length in state["episode_returns"]]
    model.ep_info_buffer = deque(rows, maxlen=size)
    model.ep_success_buffer = deque(state["episode_success"], maxlen=size)


def _python_state() -> list[Any]:
    version, keys, gauss = random.getstate()
    return [version, list(keys), gauss]


def _numpy_state() -> dict[str, Any]:
    name, keys, pos, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 (SB3 draws from it)
    keys = [int(key) for key in keys]
    return {"name": name, "keys": keys, "pos": pos, "has_gauss": has_gauss, "gauss": gauss}


def _restore_generators(state: dict[str, Any], torch_state: torch.Tensor) -> None:
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    n = state["numpy"]
    keys = np.array(n["keys"], np.uint32)
    np.random.set_state((n["name"], keys, n["pos"], n["has_gauss"], n["gauss"]))  # noqa: NPY002
    torch.set_rng_state(torch_state)
