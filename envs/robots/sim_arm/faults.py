"""Faults of the simulated arm: what goes wrong by chance, by plan or on demand."""

from collections.abc import Sequence

import numpy as np

from embodied_reward.errors import ConfigError

FAULTS = ("encoder_nan", "stuck_motor", "protective_stop", "camera_freeze", "camera_crash")


class ActiveFaults:
    """Which faults are present.

    Args:
        plan: as `FaultsConfig.plan`.
        drop: share of lost packets.
        duplicate: share of repeated commands.
        seed: of the chance.
    """

    def __init__(self, plan: Sequence[str], drop: float, duplicate: float, seed: int) -> None:
        self._plan, self._drop, self._duplicate = sorted(parse_plan(plan)), drop, duplicate
        self._rng = np.random.default_rng(seed)
        self._now: dict[str, str] = {}

    def advance(self, time: float) -> None:
        """Let begin what is planned until `time` after connecting [s]."""
        while self._plan and self._plan[0][0] <= time:
            _, name, target = self._plan.pop(0)
            self.inject(name, target)

    def inject(self, name: str, target: str = "") -> None:
        """Let a fault begin."""
        self._now[name] = target

    def mend(self) -> None:
        """End all that was injected; chance goes on."""
        self._now.clear()

    def hits(self, name: str, target: str = "") -> bool:
        """Return whether a fault is present, and meets this motor or camera."""
        return name in self._now and self._now[name] in ("", target)

    def lost(self) -> bool:
        """Return whether this packet is lost."""
        return bool(self._drop and self._rng.random() < self._drop)

    def repeated(self) -> bool:
        """Return whether this command arrives twice."""
        return bool(self._duplicate and self._rng.random() < self._duplicate)


def parse_plan(plan: Sequence[str]) -> list[tuple[float, str, str]]:
    """Read `name[:target]@seconds` items as (seconds, name, target). Raises ConfigError."""
    out = []
    for item in plan:
        what, at, when = item.partition("@")
        name, _, target = what.partition(":")
        try:
            out.append((float(when), name, target))
        except ValueError as error:
            raise ConfigError(
                f"--robot.faults.plan: expected name@seconds or name:target@seconds, got '{item}'"
            ) from error
    return out
