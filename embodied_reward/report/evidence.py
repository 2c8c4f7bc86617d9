"""Everything a report is written from; gathered once, then only read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from embodied_reward.metrics.judge import Judged
from embodied_reward.metrics.probes import ProbeResult
from embodied_reward.report.sprites import Film
from embodied_reward.rewards import Card
from embodied_reward.types import UInt8

MODEL = "model"
"""The reward model's name in the tables; every other name is a baseline."""


@dataclass(frozen=True)
class Origin:
    """Where the numbers come from.

    Attributes:
        command: what was typed, to type it again.
        facts: label -> value, shown as they are.
        episodes: which episodes were measured, in one sentence.
        caution: what makes the numbers flatter than they should be; empty where nothing does.
        reference: where the goal pictures of the baselines and probes come from.
    """

    command: str
    facts: Mapping[str, str]
    episodes: str
    caution: str
    reference: str


@dataclass(frozen=True)
class Evidence:
    """What was measured.

    Attributes:
        origin: see there.
        card: of the model.
        judged: name -> one row per episode; `MODEL` first.
        table: name -> metric -> {"value", "low", "high"}.
        films: episode index -> pictures; episodes without are listed, not shown.
        robustness: `Robustness.summary()` of the model.
        probes: results, in the order they were run.
        threshold: success counts as claimed from here on.
        training: rows of the run's metrics.jsonl; empty without a run folder.
        steps: UInt8["h w 3"], the run's picture of the steps that a method discovered; None: none.
        seed: of the bootstrap, the random baseline and the probes.
    """

    origin: Origin
    card: Card
    judged: Mapping[str, Sequence[Judged]]
    table: Mapping[str, Mapping[str, Mapping[str, float]]]
    films: Mapping[int, Film]
    robustness: Mapping[str, Any]
    probes: Sequence[ProbeResult]
    threshold: float
    training: Sequence[Mapping[str, Any]] = field(default=())
    steps: UInt8 | None = None
    seed: int = 0

    @property
    def model(self) -> Sequence[Judged]:
        """The model's own rows."""
        return self.judged[MODEL]
