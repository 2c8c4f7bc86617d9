"""Which scorers a core hosts, in which version, and whether they still answer."""

import itertools
import threading
from collections.abc import Callable
from dataclasses import replace

from embodied_reward.errors import ConfigError, RequestError, did_you_mean
from embodied_reward.scoring.batch import ScoreBatch
from embodied_reward.scoring.evaluate import Version
from embodied_reward.scoring.item_lane import ItemLane
from embodied_reward.scoring.scorer import (
    Head,
    ItemScorer,
    Scorer,
    ScorerCard,
    Trunk,
    digest_of,
    joint_digest,
)

BROKEN_AFTER = 3
"""Replies without a single score after which a scorer is not ready."""


class Hosted:
    """The scorers of one core, by name; safe to use from any thread.

    Attributes:
        item_lanes: scorers without a trunk.
    """

    def __init__(self, open_lane: Callable[[ItemScorer], ItemLane]) -> None:
        self._open_lane = open_lane
        self._scorers: dict[str, tuple[Trunk, Version]] = {}
        self.item_lanes: dict[str, ItemLane] = {}
        self._silent: dict[str, int] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of registration, scorers with a trunk first."""
        return (*self._scorers, *self.item_lanes)

    def add(self, scorer: Scorer | ItemScorer) -> None:
        """Host a scorer. Raises ConfigError for a name that is taken, or pieces apart."""
        name = scorer.card.name
        with self._lock:
            if name in self.names:
                raise ConfigError(f"a scorer '{name}' is registered already; rename the other one")
            if isinstance(scorer, ItemScorer):
                self.item_lanes[name] = self._open_lane(scorer)
            else:
                _check_device(name, scorer.trunk, scorer.head)
                self._scorers[name] = scorer.trunk, Version(scorer.card, scorer.head.eval(), 0)

    def check(self, name: str) -> None:
        """Raise RequestError for an unknown name."""
        if name not in self._scorers and name not in self.item_lanes:
            raise RequestError(f"no scorer '{name}'; {did_you_mean(name, self.names)}")

    def card(self, name: str) -> ScorerCard:
        """Return a scorer's card of this moment."""
        self.check(name)
        if name in self._scorers:
            return self.version(name).card
        return self.item_lanes[name].scorer.card

    def trunk(self, name: str) -> Trunk:
        """Return a scorer's trunk. Raises ConfigError where there is none."""
        self.check(name)
        if name not in self._scorers:
            raise ConfigError(f"'{name}' reads pictures and text in one piece: no trunk, no head")
        return self._scorers[name][0]

    def version(self, name: str) -> Version:
        """Return the head of this moment."""
        return self._scorers[name][1]

    def swap(self, name: str, head: Head, digest: str) -> int:
        """Exchange a head; returns its number. See `ScoringCore.swap_head`."""
        trunk = self.trunk(name)
        _check_device(name, trunk, head)
        digest = digest or digest_of(head)
        with self._lock:
            old = self.version(name)
            both = joint_digest(old.card.trunk_sha256, digest)
            card = replace(old.card, head_sha256=digest, weights_sha256=both)
            self._scorers[name] = trunk, Version(card, head.eval(), old.number + 1)
            return old.number + 1

    def note(self, name: str, batch: ScoreBatch) -> None:
        """Remember whether a reply held any score."""
        self._silent[name] = 0 if batch.ok.any() else self._silent.get(name, 0) + 1

    def answers(self, name: str) -> bool:
        """Return False for a scorer whose last replies held no score at all."""
        self.check(name)
        return self._silent.get(name, 0) < BROKEN_AFTER


def _check_device(name: str, trunk: Trunk, head: Head) -> None:
    held = itertools.chain(head.parameters(), head.buffers())
    wrong = next((t.device for t in held if t.device.type != trunk.device.type), None)
    if wrong is not None:
        raise ConfigError(
            f"'{name}': the head lies on {wrong} and the trunk on {trunk.device}; move the head "
            f"with head.to('{trunk.device}')"
        )
