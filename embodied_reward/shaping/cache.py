"""Phi of every state that was entered: worked out once, by one version of the potential.

If Phi(s) as "next" and Phi(s) as "current" differ (dropout, sampled decoding, a newer model), the
shaping no longer telescopes: noise of 0.05 between the two costs more than leaving gamma away.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.types import Float64


@dataclass(frozen=True)
class Renewal:
    """What `PotentialCache.renew` changed.

    Attributes:
        before: version that was replaced.
        after: version in force.
        states: number of (episode, t) rescored.
        jump: max |Phi_after - Phi_before| over them; the learner's targets jump by as much.
    """

    before: str
    after: str
    states: int
    jump: float


class PotentialCache:
    """Trajectories of potentials, keyed by (episode, t), all of one version.

    Args:
        version: name of the potential, e.g. a checkpoint's hash and step.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self._phi: dict[int, list[float]] = {}

    def __len__(self) -> int:
        return sum(len(phi) for phi in self._phi.values())

    def append(self, episode: int, value: float, version: str) -> None:
        """Store Phi of the state that `episode` has just entered.

        Raises:
            ConfigError: `version` is not the one in force. NonFiniteError: NaN or infinity.
        """
        self._accept(version)
        self._phi.setdefault(episode, []).extend(_finite(episode, np.array([value])))

    def put(self, episode: int, potential: Float64, version: str) -> None:
        """Store Phi of all states Float64["t"] that `episode` has entered; raises as `append`."""
        self._accept(version)
        self._phi[episode] = _finite(episode, potential)

    def _accept(self, version: str) -> None:
        if version != self.version:
            raise ConfigError(
                f"a potential of version '{version}' cannot join those of version "
                f"'{self.version}': mixed potentials do not telescope; renew the whole cache"
            )

    def __contains__(self, episode: int) -> bool:
        return episode in self._phi

    def trajectory(self, episode: int) -> Float64:
        """Return Phi of every state of an episode, Float64["t"]. Raises KeyError."""
        return np.array(self._phi[episode])

    def drop(self, episode: int) -> None:
        """Forget an episode that no buffer holds any more."""
        self._phi.pop(episode, None)

    def renew(self, version: str, score: Callable[[int], Float64]) -> Renewal:
        """Rescore every episode with another potential, all of them or none.

        Args:
            version: name of the new potential.
            score: episode -> its Phi of every state of that episode, Float64["t"].

        Raises:
            ConfigError: the version is the old one, or a trajectory has another length.
            NonFiniteError: a NaN in a trajectory. The old version stays in force in both cases.
        """
        if version == self.version:
            raise ConfigError(f"version '{version}' is in force already: name the new potential")
        fresh = {episode: _finite(episode, score(episode)) for episode in self._phi}
        jump = 0.0
        for episode, old in self._phi.items():
            if len(fresh[episode]) != len(old):
                raise ConfigError(
                    f"episode {episode} entered {len(old)} states, the new potential has "
                    f"{len(fresh[episode])}"
                )
            if old:
                jump = max(jump, float(np.abs(np.subtract(fresh[episode], old)).max()))
        before, self._phi, self.version = self.version, fresh, version
        return Renewal(before, version, len(self), jump)


def _finite(episode: int, potential: Float64) -> list[float]:
    values = np.asarray(potential, np.float64)
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise NonFiniteError(f"the potential of episode {episode} is {values[row]} at state {row}")
    return values.tolist()
