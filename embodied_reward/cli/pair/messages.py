"""What actor and learner tell each other besides episodes: the body, the terms, the policy.

POST /v1/body     JSON: what the robot observes and moves, once per run
GET  /v1/terms    JSON: the policy's shape and what it is paid for; 429 until the learner is up
POST /v1/episode  safetensors (`policies/experience.py`); an answer means: on the learner's disk
GET  /v1/policy   safetensors, the policy's parameters; empty where `?known=` is the newest
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from embodied_reward.errors import ConfigError, RequestError
from embodied_reward.policies.checkpoint import PolicySpec
from embodied_reward.policies.experience import metadata

VERSION = 1
SLACK = 1 << 20
"""Bytes of a policy's message beyond its parameters."""


@dataclass(frozen=True)
class Body:
    """What a learner must know of a robot.

    Attributes:
        robot: LeRobot's type.
        task: in words.
        rate: decisions per second [Hz].
        horizon: decisions until an episode is cut off.
        observation: key -> how many numbers.
        motors: those that an action moves.
        reward: digest of the reward model's weights, empty without one.
    """

    robot: str
    task: str
    rate: float
    horizon: int
    observation: dict[str, int]
    motors: tuple[str, ...]
    reward: str
    version: int = VERSION

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers are observed and commanded."""
        return {"observation": sum(self.observation.values()), "action": len(self.motors)}

    def encode(self) -> bytes:
        """Return JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def decode(data: bytes | bytearray) -> "Body":
        """Read `encode`. Raises RequestError, whatever the bytes."""
        tree = json_object(data)
        if tree.get("version") != VERSION:
            raise RequestError(
                f"the learner speaks version {VERSION}; use one release on both sides"
            )
        if tree.keys() != Body.__dataclass_fields__.keys():
            raise RequestError(f"a robot is described by {sorted(Body.__dataclass_fields__)}")
        texts = (tree["robot"], tree["task"], tree["reward"])
        seen, motors, rate = tree["observation"], tree["motors"], tree["rate"]
        good = all(isinstance(text, str) and len(text) <= 2000 for text in texts)
        good = good and isinstance(seen, dict) and all(_count(n, 65_536) for n in seen.values())
        good = good and isinstance(motors, list) and all(isinstance(m, str) for m in motors)
        good = good and 1 <= len(motors) <= 256 and 1 <= len(seen) <= 64
        good = good and type(rate) in (int, float) and 0 < rate <= 10_000
        if not (good and _count(tree["horizon"], 10**6)):
            raise RequestError("the robot's description holds a value that cannot be")
        return Body(**{**tree, "motors": tuple(motors)})


@dataclass(frozen=True)
class Terms:
    """What an actor must know of its learner.

    Attributes:
        spec: of the policy.
        gamma: the learner's discount per decision.
        mode: reward mode; it says which base reward and which potential are wanted.
        kappa: scale of the potential.
        tiers: steps of the potential; 0 leaves it continuous.
        hysteresis: of the tiers.
        steps: decisions of the whole run.
        decisions: those that the learner already has.
        episodes: the same in episodes.
    """

    spec: PolicySpec
    gamma: float
    mode: str
    kappa: float
    tiers: int
    hysteresis: float
    steps: int
    decisions: int
    episodes: int

    def encode(self) -> dict[str, Any]:
        """Return JSON types."""
        return {**vars(self), "spec": self.spec.to_dict()}

    @staticmethod
    def decode(data: bytes | bytearray) -> "Terms":
        """Read `encode`. Raises RequestError, whatever the bytes."""
        tree = json_object(data)
        try:
            spec = PolicySpec.from_dict(tree.pop("spec"))
            terms = Terms(spec=spec, **tree)
            numbers = (terms.gamma, terms.kappa, terms.hysteresis)
            good = all(math.isfinite(float(x)) for x in numbers) and isinstance(terms.mode, str)
            counts = (terms.tiers, terms.steps, terms.decisions, terms.episodes)
            good = good and all(type(x) is int and x >= 0 for x in counts)
        # AttributeError: a list in place of an object.
        except (KeyError, TypeError, ValueError, AttributeError, ConfigError) as error:
            raise RequestError(f"the learner's terms cannot be read ({error!r:.200})") from None
        if not good:
            raise RequestError("the learner's terms hold a value that cannot be")
        return terms


@dataclass(frozen=True)
class Weights:
    """A policy's parameters.

    Attributes:
        tensors: by name.
        version: another one with every change.
        decisions: from which it was learned.
        episodes: the same in episodes.
        final: the learner has made all its updates.
    """

    tensors: Mapping[str, torch.Tensor]
    version: str
    decisions: int
    episodes: int
    final: bool


def encode_policy(
    network: nn.Module, version: str, decisions: int, episodes: int, *, final: bool
) -> bytes:
    """Return a policy's parameters as the bytes of a safetensors file."""
    # Clones: tensors that share memory cannot be saved as they are.
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in network.state_dict().items()
    }
    facts = {"version": version, "decisions": decisions, "episodes": episodes, "final": final}
    return safetensors.torch.save(tensors, {"policy": json.dumps(facts)})


def decode_policy(data: bytes | bytearray, like: nn.Module) -> Weights:
    """Read parameters of a network built as `like`, without changing it.

    Raises:
        RequestError: no safetensors, other names, shapes or types, or a number that is not finite;
            no other exception, whatever the bytes.
    """
    data = bytes(data)
    try:
        tensors = safetensors.torch.load(data)
        facts = json.loads(metadata(data)["policy"])
        counts = facts["decisions"], facts["episodes"]
        good = isinstance(facts["version"], str) and all(_count(n, 2**53, least=0) for n in counts)
        good = good and type(facts["final"]) is bool
    except (
        SafetensorError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise RequestError(f"the policy is no safetensors file of ours: {error!s:.120}") from None
    if not good:
        raise RequestError("the policy's metadata must hold version, decisions, episodes and final")
    _check(tensors, like.state_dict())
    return Weights(tensors, facts["version"], *counts, facts["final"])


def largest(network: nn.Module) -> int:
    """Return the bytes that a message with the parameters of `network` can have at most."""
    return sum(value.nbytes for value in network.state_dict().values()) + SLACK


def _check(tensors: Mapping[str, torch.Tensor], known: Mapping[str, torch.Tensor]) -> None:
    if missing := sorted(known.keys() ^ tensors.keys()):
        raise RequestError(f"the policy's parameters are not this robot's: {missing[:5]}")
    for name, value in tensors.items():
        ours = known[name]
        if value.shape != ours.shape or value.dtype != ours.dtype:
            raise RequestError(
                f"parameter '{name}' must be {ours.dtype} {tuple(ours.shape)}, got {value.dtype} "
                f"{tuple(value.shape)}"
            )
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RequestError(f"parameter '{name}' holds a NaN or an infinity")


def json_object(data: bytes | bytearray) -> dict[str, Any]:
    """Read a JSON object. Raises RequestError."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the message is no JSON: {error!s:.120}") from None
    if not isinstance(tree, dict):
        raise RequestError(f"the message must be a JSON object, got {type(tree).__name__}")
    return tree


def _count(value: Any, most: int, least: int = 1) -> bool:
    return type(value) is int and least <= value <= most
