"""The newest finished episodes, as a blend looks at them."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from embodied_reward.types import Float32, Float64


@dataclass(frozen=True)
class Decisions:
    """The decisions of one episode in order, or of several one after the other.

    Attributes:
        obs: Float32["t o"], what the action was taken in.
        action: Float32["t a"] in [-1, 1], as executed.
        base: Float64["t"], the environment's own reward.
        learned: Float64["t"], what the learned reward added, with weight 1.
        potential: Float64["t"], Phi of the state that the action was taken in.
    """

    obs: Float32
    action: Float32
    base: Float64
    learned: Float64
    potential: Float64

    def __len__(self) -> int:
        return len(self.base)


type Decision = tuple[Float32, Float32, float, float, float]
"""One row of `Decisions`."""


class EpisodeWindow:
    """Collect the decisions of b environments and keep the newest finished episodes.

    Args:
        count: environments b.
        size: episodes kept.
    """

    def __init__(self, count: int, size: int) -> None:
        self.episodes: deque[Decisions] = deque(maxlen=size)
        self._open: list[list[Decision]] = [[] for _ in range(count)]

    def add(self, row: int, decision: Decision, *, ended: bool) -> None:
        """Book one decision of environment `row`."""
        self._open[row].append(decision)
        if ended:
            obs, action, *numbers = zip(*self._open[row], strict=True)
            self._open[row] = []
            seen, done = (np.array(x, np.float32) for x in (obs, action))
            self.episodes.append(Decisions(seen, done, *np.array(numbers, np.float64)))

    def abandon(self) -> None:
        """Forget the episodes under way: the environments were reset."""
        self._open = [[] for _ in self._open]

    def together(self) -> Decisions:
        """Return all decisions of the window, oldest first."""
        names = [f.name for f in fields(Decisions)]
        return Decisions(*(np.concatenate([getattr(e, n) for e in self.episodes]) for n in names))

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the finished episodes for a checkpoint; those under way will be begun anew."""
        if not self.episodes:
            return {}
        lengths = np.array([len(e) for e in self.episodes], np.int64)
        return {"lengths": lengths, **vars(self.together())}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take `arrays()` back; what else is in `arrays` is not looked at."""
        self.episodes.clear()
        self.abandon()
        if "lengths" not in arrays:
            return
        cuts = np.cumsum(arrays["lengths"])[:-1]
        columns = [np.split(arrays[f.name], cuts) for f in fields(Decisions)]
        self.episodes.extend(Decisions(*parts) for parts in zip(*columns, strict=True))


def returns(rewards: Float64, gamma: float) -> Float64:
    """Return sum_k gamma^k r_{t+k} of every decision of one episode, Float64["t"]."""
    total, out = 0.0, np.empty(len(rewards))
    for t in reversed(range(len(rewards))):
        total = rewards[t] + gamma * total
        out[t] = total
    return out
