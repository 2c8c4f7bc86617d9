"""Policies on disk, without pickle.

pretrained_model/{config.json, model.safetensors}   all that `load_policy` needs
pretrained_model/base/                              where this policy steers a diffusion policy
pretrained_model/embodied_reward.json               where it is one: see `diffusion/actor.py`
sb3_model.zip                                       for users of Stable-Baselines3's `load`
training_state/                                     see `resume.py`
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from gymnasium import spaces
from safetensors import SafetensorError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from torch import nn

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import CheckpointError
from embodied_reward.training.checkpoint import MANIFEST, verify
from embodied_reward.types import Float32

from . import ppo, sac
from .config import PolicyConfig, PPOConfig, SACConfig
from .diffusion.actor import CARD, DiffusionActor, load_actor
from .finetune.actor import BASE, SteeredActor, steered
from .finetune.agents import network_of
from .finetune.config import NoFinetuneConfig, finetune_of
from .finetune.steering import steering_of
from .finetune.tuned import DenoisingPolicy

FORMAT = 1


@dataclass(frozen=True)
class PolicySpec:
    """What a policy needs beside its weights.

    Attributes:
        config: the algorithm's configuration.
        observation: key -> shape, in the order in which they are flattened.
        low: lowest action, Float32["a"] in the environment's units.
        high: highest action.
        meta: environment, reward and dataset it was trained with, for messages and defaults.
    """

    config: PolicyConfig
    observation: Mapping[str, tuple[int, ...]]
    low: Float32
    high: Float32
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types, with the algorithm's name under "type"."""
        return {
            "type": self.config.type,
            "format": FORMAT,
            "policy": configs.encode(self.config),
            "observation": {k: list(v) for k, v in self.observation.items()},
            "action": {"low": self.low.tolist(), "high": self.high.tolist()},
            "meta": dict(self.meta),
        }

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> "PolicySpec":
        """Read `to_dict` back. Raises KeyError, ConfigError or TypeError."""
        algorithm = PolicyConfig.get_choice_class(tree["type"])
        fields = {k: v for k, v in tree["policy"].items() if k != "type"}
        return PolicySpec(
            config=configs.decode(algorithm, fields),
            observation={k: tuple(v) for k, v in tree["observation"].items()},
            low=np.array(tree["action"]["low"], np.float32),
            high=np.array(tree["action"]["high"], np.float32),
            meta=tree.get("meta", {}),
        )


def spec_of(
    config: PolicyConfig, env_spaces: tuple[spaces.Dict, spaces.Box], meta: Mapping[str, Any]
) -> PolicySpec:
    """Describe a policy for an environment with these (observation, action) spaces."""
    observation, action = env_spaces
    shapes = {key: tuple(box.shape or ()) for key, box in observation.spaces.items()}
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    return PolicySpec(config, shapes, low, high, meta)


class Policy:
    """A trained policy that takes the environment's own observations.

    Args:
        network: an SB3 policy on flat observations with actions in [-1, 1].
        spec: how observations are flattened and actions scaled.
    """

    def __init__(self, network: BasePolicy, spec: PolicySpec) -> None:
        self.network, self.spec = network, spec

    def predict(self, obs: Mapping[str, Float32] | Float32, deterministic: bool = True) -> Float32:
        """Return the action Float32["a"] for one observation, in the environment's units.

        Args:
            obs: the environment's dict, or Float32["o"] flattened.
            deterministic: the mean action instead of a sample.

        Raises:
            CheckpointError: a key that the policy was trained with is missing.
        """
        unit, _ = self.network.predict(self._flat(obs)[None], deterministic=deterministic)
        low, high = self.spec.low, self.spec.high
        return (low + (np.clip(unit[0], -1, 1) + 1) / 2 * (high - low)).astype(np.float32)

    def _flat(self, obs: Mapping[str, Float32] | Float32) -> Float32:
        if not isinstance(obs, Mapping):
            return obs
        missing = [key for key in self.spec.observation if key not in obs]
        if missing:
            raise CheckpointError(
                f"the policy observes {list(self.spec.observation)}, the environment gives no "
                f"{missing}: it was trained for {self.spec.meta.get('env', 'another environment')}"
            )
        parts = [np.ravel(obs[key]) for key in self.spec.observation]
        return np.concatenate(parts).astype(np.float32)


def save_policy(model: BaseAlgorithm, spec: PolicySpec, folder: Path) -> None:
    """Write `pretrained_model/` and, for SB3's own networks, `sb3_model.zip` into a checkpoint."""
    if isinstance(model.policy, DenoisingPolicy):
        target = folder / "pretrained_model"
        target.mkdir(parents=True)
        model.policy.tuned_actor(spec.meta).save(target)
        return
    save_network(model.policy, spec, folder)
    # Demonstrations, reward and what training remembers are no part of the policy, nor is where
    # a learner's episodes come from.
    ours = ["replay_buffer_kwargs", "rollout_buffer_kwargs", "sample_weights"]
    ours += ["received", "updated"]
    model.save(folder / "sb3_model.zip", exclude=ours)


def save_network(network: BasePolicy, spec: PolicySpec, folder: Path) -> None:
    """Write `pretrained_model/` alone: all that acting takes."""
    target = folder / "pretrained_model"
    target.mkdir(parents=True)
    (target / "config.json").write_text(json.dumps(spec.to_dict(), indent=1))
    safetensors.torch.save_model(network, str(target / "model.safetensors"))


def load_policy(path: Path | str, *, device: str = "cpu") -> Policy | DiffusionActor | SteeredActor:
    """Load a policy from a run folder (its best checkpoint), a checkpoint or `pretrained_model`.

    Raises:
        CheckpointError: nothing there, damaged or foreign files.
    """
    folder = pretrained_folder(Path(path))
    if (folder.parent / MANIFEST).is_file():
        verify(folder.parent)
    if (folder / CARD).is_file():
        return load_actor(folder, device=device)
    agent = _load_sb3(folder, device)
    if not (folder / BASE).is_dir():
        return agent
    method = finetune_of(agent.spec.meta)
    steering = steering_of(method, load_actor(folder / BASE, device=device))
    return steered(method, steering, agent.network, agent.spec)


def _load_sb3(folder: Path, device: str) -> Policy:
    try:
        spec = PolicySpec.from_dict(json.loads((folder / "config.json").read_text()))
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"'{folder / 'config.json'}' does not describe a policy ({error!r}); "
            "`er train-policy` writes such a file"
        ) from error
    network = build_network(spec).to(device)
    load_weights(network, folder)
    network.set_training_mode(False)
    return Policy(network, spec)


def load_weights(network: nn.Module, folder: Path) -> None:
    """Read `folder/model.safetensors` into `network`. Raises CheckpointError."""
    file = folder / "model.safetensors"
    try:
        safetensors.torch.load_model(network, str(file))
    except (SafetensorError, RuntimeError, FileNotFoundError) as error:
        first = str(error).strip().splitlines()[0]
        raise CheckpointError(f"'{file}' does not hold this policy's weights: {first}") from error


def build_network(spec: PolicySpec) -> BasePolicy:
    """Build the untrained SB3 policy that `spec` describes."""
    size = sum(math.prod(shape) for shape in spec.observation.values())
    observation = spaces.Box(-np.inf, np.inf, (size,), np.float32)
    action = spaces.Box(-1.0, 1.0, spec.low.shape, np.float32)
    if isinstance(spec.config, SACConfig):
        steered = finetune_of(spec.meta) if "finetune" in spec.meta else NoFinetuneConfig()
        network, more = network_of(steered, tuple(spec.meta.get("noise_shape", (0, 0))))
        kwargs = {**sac.policy_kwargs(spec.config), **more}
        return network(observation, action, lambda _: 0.0, **kwargs)
    assert isinstance(spec.config, PPOConfig)
    kwargs = ppo.policy_kwargs(spec.config)
    return ActorCriticPolicy(observation, action, lambda _: 0.0, **kwargs)


def pretrained_folder(path: Path) -> Path:
    """Find `pretrained_model`: a run's best checkpoint, else its last. Raises CheckpointError."""
    return weights.find(path, "policy", "er train-policy")
