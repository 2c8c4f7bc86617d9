"""What one task of the suite consists of: a scene to build and the rules that judge it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from embodied_reward.types import Float32, Float64

UNFINISHED = 0.99  # progress of a scene that is not solved, at most


class Rules(ABC):
    """One task on one compiled MuJoCo model; holds what has to be remembered of an episode.

    Attributes:
        description: the task in words.
        cameras: every camera of the scene; the first ones are the default views.
        default_views: how many of them are rendered unless the caller names others.
        fps: decisions per second where `action_repeat` is 1 [Hz].
        actions: numbers in one action, each in [-1, 1].
        agent_bounds, state_bounds: (low, high) of `agent_pos` and `environment_state`.
    """

    description: str
    cameras: ClassVar[tuple[str, ...]]
    default_views: ClassVar[int] = 1
    fps: ClassVar[int]
    actions: int
    agent_bounds: tuple[Float64, Float64]
    state_bounds: tuple[Float64, Float64]

    @abstractmethod
    def xml(self) -> str:
        """Return the scene as MuJoCo XML."""

    @abstractmethod
    def place(self, model: Any, data: Any, rng: np.random.Generator) -> None:
        """Draw a scene into freshly reset `mujoco.MjData` and begin an episode."""

    @abstractmethod
    def act(self, model: Any, data: Any, action: Float32) -> None:
        """Simulate 1 / `fps` seconds of one action and note what must be remembered."""

    @abstractmethod
    def agent(self, data: Any) -> Float64:
        """Return `agent_pos`."""

    @abstractmethod
    def state(self, data: Any) -> Float64:
        """Return `environment_state`; with `agent` it is all that decides the future."""

    @abstractmethod
    def misread(self, seen: Mapping[str, Any], offset: Float64) -> dict[str, Any]:
        """Return an observation in which the objects' x and y are wrong by `offset` [m]."""

    @abstractmethod
    def success(self, data: Any) -> bool:
        """Return whether the task is done."""

    @abstractmethod
    def parts(self, data: Any) -> Float64:
        """Return progress of every part in [0, 1]: 0 at the first state, 1 when done."""

    def progress(self, data: Any) -> float:
        """Return the mean part in [0, 1]; 1.0 exactly where the task is done."""
        if self.success(data):
            return 1.0
        return float(np.clip(self.parts(data).mean(), 0.0, UNFINISHED))

    def disliked(self, data: Any) -> float:
        """Return what people dislike about this moment whatever it achieves, in [0, 1]."""
        return 0.0

    @classmethod
    def disliked_in(cls, states: Float32) -> Float64:
        """Return `disliked` of recorded states: Float32["t e"] -> Float64["t"]."""
        return np.zeros(len(states))

    def info(self, data: Any) -> Mapping[str, Any]:
        """Return what `info` holds besides `is_success`."""
        return {}


def share(now: Float64, first: Float64) -> Float64:
    """Return how much of the first distances is gone, in [0, 1]; 1 where there was none."""
    gone = 1.0 - np.asarray(now) / np.maximum(first, 1e-9)
    return np.clip(np.where(first > 1e-9, gone, 1.0), 0.0, 1.0)
