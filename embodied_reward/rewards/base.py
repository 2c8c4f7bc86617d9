"""The contract of a reward model, on one page.

A reward model estimates **progress** (a potential in [0, 1]) and, separately, the
probability of **success**. Evaluation is deterministic: eval mode, no sampling.

    card                         what the model is, for logs and checks
    score_episode(episode)       -> EpisodeScores, for labelling and metrics
    trunk                        the image encoder alone, which is nearly all the cost
    use(core)                    run the trunk through a scoring core: batched, cached
    encode(frames)               -> features of one frame of b environments
    start(features, rows)        begin a new episode in these environments
    score(features, rows)        -> Scores of the current frame

`start` and `score` work on an explicit `carry` so that the rows of a vector environment
reset independently. Methods that need whole episodes (optimal transport) implement
`score_episode` only and say so in their card (`streaming=False`).
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import draccus
import torch
from torch import Tensor, nn

from embodied_reward.data.preferences import Preference
from embodied_reward.errors import ConfigError
from embodied_reward.rewards.embedder import Embedder
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.scoring.status import Priority
from embodied_reward.types import Episode, EpisodeScores, Scores, UInt8

Carry = dict[str, Tensor]

# (features Tensor["n d"], variant int64 Tensor["n"]) -> weights Tensor["n"] with mean 1.
Weigh = Callable[[Tensor, Tensor], Tensor]

ARCHITECTURE = (
    "views", "encoder", "dim", "hidden", "embedding", "bins", "heads", "member", "count",
)  # fmt: skip
"""Settings that a loaded model cannot change, where its method has them."""


@dataclass(frozen=True)
class RewardModelConfig(draccus.ChoiceRegistry):
    """Base of every method's configuration; `--reward_model.type` chooses the method."""

    views: tuple[str, ...] = ()
    """camera views to use, in this order; empty takes all views of the dataset"""
    path: str | None = None
    """trained reward model to start from; its settings hold unless others are given"""


@dataclass(frozen=True)
class Card:
    """What a trained reward model is.

    Attributes:
        type: method name (`dopamine`).
        views: views in the order the model expects.
        image_size: side of the square input [px].
        potential_range: closed range of the potential.
        markov: whether the potential depends on the current frame and the episode's start only.
        streaming: whether `start`/`score` are implemented.
        progress: whether the potential means anything; a success detector's is NaN.
        task: task text of the training data.
        weights_sha256: digest of the weights, empty before saving.
    """

    type: str
    views: tuple[str, ...]
    image_size: int
    potential_range: tuple[float, float] = (0.0, 1.0)
    markov: bool = True
    streaming: bool = True
    progress: bool = True
    task: str = ""
    weights_sha256: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)


class RewardModel(nn.Module, abc.ABC):
    """Base of all reward models; see the module docstring for the contract."""

    name: ClassVar[str]
    weighable: ClassVar[bool] = False
    """whether `loss(batch, weigh=...)` is there: a mean over samples, which can be weighed"""
    config: RewardModelConfig
    task: str = ""

    @property
    @abc.abstractmethod
    def card(self) -> Card:
        """Describe the model."""

    @abc.abstractmethod
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """Score every frame of an episode. Raises DatasetError for missing views."""

    def adapt(self, config: RewardModelConfig, task: str) -> None:
        """Take over the settings of a further training; the weights stay.

        Raises:
            ConfigError: a setting that fixes the shape of the network differs.
        """
        for name in ARCHITECTURE:
            ours, theirs = getattr(self.config, name, None), getattr(config, name, None)
            if ours != theirs:
                raise ConfigError(
                    f"--reward_model.{name}={theirs} does not fit the model of "
                    f"--reward_model.path, which has {ours}; leave it out, or train from scratch"
                )
        self.config, self.task = config, task

    def learn_from(self, preferences: Sequence[Preference]) -> None:
        """Take preferences over episodes, by `Episode.index`, before the training data is built.

        Raises:
            ConfigError: the method does not learn from preferences.
            DatasetError: none of them is of a kind that it reads.
        """
        raise ConfigError(
            f"--reward_model.type={self.name} does not learn from preferences; leave --preferences "
            "out, or train rapl, rlhf, or an ensemble of them"
        )

    def validation_data(self, training: list[Episode], validation: list[Episode]) -> Any:
        """Return held-out batches of a trainable model, None where there is nothing to measure.

        Called after the references were set. Methods that learn from preferences need the
        training episodes as well, because these are compared with held-out ones.
        """
        solved = [e for e in validation if e.success is not False]
        return self.dataset(validation) if solved else None  # type: ignore[operator]

    def calibrate(self, episodes: Sequence[Episode]) -> None:
        """Fit what is fitted on held-out episodes: thresholds, weights of fusion.

        The trainer calls it in eval mode before it writes a checkpoint, with the validation
        episodes; where none are held out it is not called. What it fits belongs into `save`.
        Deterministic; methods without such numbers inherit this and do nothing.
        """

    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write `config.json` (with `"type"`) and `model.safetensors`."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path) -> "RewardModel":
        """Read what `save` wrote, in eval mode. Raises CheckpointError."""

    @property
    def trunk(self) -> Trunk | None:
        """The image encoder; None for a method without one, or with several."""
        return None

    @property
    def frozen(self) -> bool:
        """Whether training leaves the image encoder alone, so that its features can be kept."""
        return False

    def use(self, embedder: Embedder | None) -> None:
        """Run the trunk through a scoring core from now on; None runs it directly again.

        Scores are the same within float tolerance. A core outlives every call of the model.
        """

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """Tell the core which pictures `encode` will be asked for; does not wait."""

    def encode(
        self, frames: Mapping[str, UInt8], *, priority: Priority = Priority.TRAINER
    ) -> Tensor:
        """Encode one frame per environment, view -> UInt8["b h w 3"], to features [b v d]."""
        raise NotImplementedError(f"'{self.name}' scores whole episodes only")

    def start(self, features: Tensor) -> Carry:
        """Return the carry of b episodes that begin with these features [b v d]."""
        raise NotImplementedError(f"'{self.name}' scores whole episodes only")

    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """Score the current frame of b episodes; returns the next carry. No hidden state."""
        raise NotImplementedError(f"'{self.name}' scores whole episodes only")


class FittedModel(RewardModel):
    """A reward model that is fitted in closed form: no gradient step, no batches."""

    @abc.abstractmethod
    def fit(
        self, episodes: Sequence[Episode], *, progress: Callable[[int, int], None]
    ) -> dict[str, float]:
        """Fit to demonstrations; whatever was fitted before is replaced.

        Args:
            episodes: training episodes; failures among them are left out.
            progress: called with the units of work that are done and their number.

        Returns:
            Numbers for the log. Deterministic.

        Raises:
            DatasetError: demonstrations that cannot be used; the model is as it was.
        """

    def illustrate(self, episodes: Sequence[Episode], folder: Path) -> list[Path]:
        """Write pictures of what was fitted, where there are any, and return their paths."""
        return []


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the model's first parameter."""
    return next(model.parameters()).device
