r"""`ensemble`: k members of any trainable method, and their disagreement as uncertainty.

Members differ by initial weights, by the order of their batches and by a bootstrap of the
training episodes. With member potentials Phi_j and their own standard deviations sigma_j

    mean  = mean_j Phi_j           min = min_j Phi_j          lower = mean - penalty * std_j Phi_j
    uncertainty = sqrt(var_j Phi_j + mean_j sigma_j^2)        (law of total variance)

`min` is the worst case, `lower` the pessimistic mean, of the literature on reward
over-optimisation (Coste et al., arXiv:2310.02743; `AddSTDRewardWrapper` of `imitation`). All three
are reported as inference modes. Members see the same pictures: what misleads all of them alike
does not show in their disagreement.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward import config as configs
from embodied_reward.data.preferences import Preference
from embodied_reward.errors import CheckpointError, ConfigError, did_you_mean
from embodied_reward.files import replacing
from embodied_reward.rewards.base import (
    Card,
    Carry,
    FittedModel,
    RewardModel,
    RewardModelConfig,
)
from embodied_reward.rewards.dopamine_config import DopamineConfig
from embodied_reward.rewards.embedder import Embedder
from embodied_reward.scoring.status import Priority
from embodied_reward.types import Episode, EpisodeScores, Float64, Scores, UInt8

AGGREGATES = ("mean", "min", "lower")


@RewardModelConfig.register_subclass("ensemble")
@dataclass(frozen=True)
class EnsembleConfig(RewardModelConfig):
    """Configuration of `ensemble`."""

    member: RewardModelConfig = field(default_factory=DopamineConfig)
    """the method of the members"""
    count: int = 3
    """members k"""
    aggregate: str = "mean"
    """potential to report: mean, min or lower (mean - penalty * std)"""
    penalty: float = 1.0
    """standard deviations that `lower` subtracts"""
    bootstrap: bool = True
    """train every member on its own resample of the episodes"""
    bootstrap_seed: int = 0
    """seed of the resamples"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        if self.aggregate not in AGGREGATES:
            raise ConfigError(
                f"unknown --reward_model.aggregate={self.aggregate}; "
                f"{did_you_mean(self.aggregate, AGGREGATES)}"
            )
        if self.count < 2 or self.penalty < 0:
            raise ConfigError("need reward_model.count >= 2 and reward_model.penalty >= 0")
        if isinstance(self.member, EnsembleConfig):
            raise ConfigError("--reward_model.member.type=ensemble: members must be single models")


@dataclass(frozen=True)
class MemberBatches:
    """One source of batches per member; a batch is a function of (seed, step)."""

    members: list[Any]

    def batch(self, episodes: int, seed: int, step: int) -> list[Any]:
        """Return one batch per member, each from a seed of its own."""
        return [
            member.batch(episodes, _member_seed(seed, k), step)
            for k, member in enumerate(self.members)
        ]


class EnsembleModel(RewardModel):
    """Several reward models as one; see the module docstring."""

    name: ClassVar[str] = "ensemble"
    config: EnsembleConfig

    def __init__(self, config: EnsembleConfig, members: Sequence[RewardModel]) -> None:
        """Wrap members; use `create` for untrained, `load` for saved ones."""
        super().__init__()
        self.config, self._digest, self._preferred = config, "", False
        self.members = nn.ModuleList(members)

    @classmethod
    def create(cls, config: EnsembleConfig, *, task: str = "") -> "EnsembleModel":
        """Build untrained members, one after the other from torch's global seed."""
        member = dataclasses.replace(config.member, views=config.views)
        config = dataclasses.replace(config, member=member)
        kind: Any = _method(type(member).get_choice_name(type(member)))
        if issubclass(kind, FittedModel):
            raise ConfigError(
                f"--reward_model.member.type={kind.name}: members must be trained by gradient "
                "steps, and this one is fitted; choose another method"
            )
        return cls(config, [kind.create(member, task=task) for _ in range(config.count)])

    @property
    def card(self) -> Card:
        """See the base class."""
        card = self._models[0].card
        extra = {"member": card.type, "count": self.config.count, **card.extra}
        extra["aggregate"] = self.config.aggregate
        return dataclasses.replace(card, type=self.name, weights_sha256=self._digest, extra=extra)

    @property
    def _models(self) -> list[RewardModel]:
        return list(self.members)  # type: ignore[arg-type]

    # --- training ---

    def dataset(self, episodes: list[Episode]) -> MemberBatches:
        """Decode every member's resample of the episodes. Raises DatasetError."""
        chosen = [self._resample(episodes, k) for k in range(self.config.count)]
        members: list[Any] = self._models
        return MemberBatches([m.dataset(e) for m, e in zip(members, chosen, strict=True)])

    def learn_from(self, preferences: Sequence[Preference]) -> None:
        """See the base class; every member learns from those about its resample."""
        for member in self._models:
            member.learn_from(preferences)
        self._preferred = True

    def validation_data(self, training: list[Episode], validation: list[Episode]) -> Any:
        """See the base class; members that learn from preferences are held against the same."""
        if not self._preferred:
            return super().validation_data(training, validation)
        parts = [m.validation_data(training, validation) for m in self._models]
        return None if None in parts else MemberBatches(parts)

    def set_references(self, data: MemberBatches) -> None:
        """Keep every member's references."""
        for member, own in zip(self._models, data.members, strict=True):
            member.set_references(own)  # type: ignore[attr-defined]

    def loss(self, batch: list[Any]) -> tuple[Tensor, dict[str, float]]:
        """Return the mean of the members' losses and of their logs."""
        members: list[Any] = self._models
        parts = [m.loss(own) for m, own in zip(members, batch, strict=True)]
        logs = {key: float(np.mean([entry[key] for _, entry in parts])) for key in parts[0][1]}
        return torch.stack([loss for loss, _ in parts]).mean(), logs

    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """See the base class."""
        for member in self._models:
            member.calibrate(episodes)

    def _resample(self, episodes: list[Episode], k: int) -> list[Episode]:
        """Draw as many episodes with replacement, with a success among them if there is one."""
        if not self.config.bootstrap:
            return episodes
        rng = np.random.default_rng((self.config.bootstrap_seed, k))
        picks = rng.integers(len(episodes), size=len(episodes))
        solved = [i for i, e in enumerate(episodes) if e.success is not False]
        if solved and not set(solved) & set(picks.tolist()):
            picks[0] = rng.choice(solved)
        return [episodes[i] for i in picks]

    # --- inference ---

    @property
    def frozen(self) -> bool:
        """See the base class."""
        return all(m.frozen for m in self._models)

    def use(self, embedder: Embedder | None) -> None:
        """See the base class; members with one frozen encoder share its features."""
        for member in self._models:
            member.use(embedder)

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """See the base class."""
        for member in self._models:
            member.prefetch(frames)

    def encode(
        self, frames: Mapping[str, UInt8], *, priority: Priority = Priority.TRAINER
    ) -> Tensor:
        """See the base class; the members' features lie side by side, [b k*v d]."""
        return torch.cat([m.encode(frames, priority=priority) for m in self._models], 1)

    def start(self, features: Tensor) -> Carry:
        """See the base class; `<k>.<name>` is the carry of member k."""
        carries = [m.start(f) for m, f in zip(self._models, self._split(features), strict=True)]
        return _join(carries)

    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class; a row is good only if it is good for every member."""
        results = [
            m.score(f, _part(carry, k))
            for k, (m, f) in enumerate(zip(self._models, self._split(features), strict=True))
        ]
        scores = [s for s, _ in results]
        modes, spread = self._combine(scores)
        ok = np.all([s.ok for s in scores], axis=0)
        success = np.mean([s.success for s in scores], axis=0)
        potential, success, spread = (
            np.where(ok, values, np.nan)
            for values in (modes[self.config.aggregate], success, spread)
        )
        return Scores(potential, success, spread, ok), _join([c for _, c in results])

    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; every aggregate is a mode."""
        scores = [m.score_episode(episode) for m in self._models]
        modes, spread = self._combine(scores)
        per_view = {
            view: self._aggregates(np.stack([s.per_view[view] for s in scores]))[
                self.config.aggregate
            ]
            for view in scores[0].per_view
        }
        return EpisodeScores(
            potential=modes[self.config.aggregate],
            success=np.mean([s.success for s in scores], axis=0),
            uncertainty=spread,
            modes=modes,
            per_view=per_view,
        )

    def disagreement(self, episode: Episode) -> Float64:
        """Return the standard deviation of the members' potentials, Float64["t"]."""
        return np.std([m.score_episode(episode).potential for m in self._models], axis=0)

    def _combine(self, scores: Sequence[Any]) -> tuple[dict[str, Float64], Float64]:
        potentials = np.stack([s.potential for s in scores])
        own = np.mean([np.square(s.uncertainty) for s in scores], axis=0)
        return self._aggregates(potentials), np.sqrt(potentials.var(axis=0) + own)

    def _aggregates(self, potentials: Float64) -> dict[str, Float64]:
        mean, std = potentials.mean(axis=0), potentials.std(axis=0)
        lower = np.clip(mean - self.config.penalty * std, 0.0, 1.0)
        return {"mean": mean, "min": potentials.min(axis=0), "lower": lower}

    def _split(self, features: Tensor) -> tuple[Tensor, ...]:
        return features.chunk(self.config.count, dim=1)

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """Write `config.json` and one folder per member, `members/<k>`."""
        for k, member in enumerate(self._models):
            member.save(folder / "members" / str(k))
        tree = {
            "type": self.name,
            "config": configs.encode(self.config),
            "weights_sha256": _digest(folder, self.config.count),
        }
        with replacing(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(tree, indent=2))

    @classmethod
    def load(cls, folder: Path) -> "EnsembleModel":
        """Load every member. Raises CheckpointError: one is missing, altered or foreign."""
        tree = json.loads((folder / "config.json").read_text())
        fields = {k: v for k, v in tree["config"].items() if k != "type"}
        config = configs.decode(EnsembleConfig, fields)
        digest = _digest(folder, config.count)
        if digest != tree.get("weights_sha256"):
            raise CheckpointError(
                f"'{folder}' holds members that do not belong to its config.json; restore the "
                "folder or train again"
            )
        kind: Any = _method(fields["member"]["type"])
        members = [kind.load(_member(folder, k)) for k in range(config.count)]
        model = cls(config, members)
        model._digest = digest
        return model.eval()


def _member_seed(seed: int, k: int) -> int:
    return int(np.random.SeedSequence((seed, k)).generate_state(1)[0])


def _method(name: str) -> type[RewardModel]:
    # The registry imports this module.
    from embodied_reward.rewards import registry

    return registry()[name]


def _member(folder: Path, k: int) -> Path:
    return folder / "members" / str(k)


def _digest(folder: Path, count: int) -> str:
    """Return one digest over the members' own. Raises CheckpointError: a member is missing."""
    digests = []
    for k in range(count):
        file = _member(folder, k) / "config.json"
        if not file.is_file():
            raise CheckpointError(f"'{file}' is missing; copy the whole folder of the checkpoint")
        digests.append(str(json.loads(file.read_text()).get("weights_sha256")))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _join(carries: Sequence[Carry]) -> Carry:
    return {f"{k}.{name}": v for k, carry in enumerate(carries) for name, v in carry.items()}


def _part(carry: Carry, k: int) -> Carry:
    prefix = f"{k}."
    return {n.removeprefix(prefix): v for n, v in carry.items() if n.startswith(prefix)}
