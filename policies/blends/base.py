"""What all blends share: a weight for the learned reward, a bonus, and when both change.

    r' = r + w F + b(s, a, s')

with r the base reward, F what the reward mode adds (kappa included), w `Blend.weight` and b
`Blend.bonus`. SAC computes the sum when it draws a batch, so stored rewards never age; PPO is paid
it by `BlendedVecEnv`, and w and b stand still during a rollout.

Whether the optimal policy is kept depends on the mode too: where F is potential-based, w F is
shaping by the potential w Phi, and every w >= 0 keeps it. Each blend's docstring says the rest.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import safetensors.numpy
from stable_baselines3.common.policies import BasePolicy

from embodied_reward.errors import CheckpointError
from embodied_reward.types import Bool, Float32, Float64

from .config import BlendConfig
from .episodes import EpisodeWindow


class Blend(ABC):
    """Weight and bonus of one run.

    Args:
        config: see `BlendConfig`.
        count: environments.
        gamma: the learner's discount.
        seed: of whatever the blend draws.

    Attributes:
        weight: w >= 0.
        bonuses: whether there is a bonus beside it.
        maps: whether F is made of another potential than the reward model's (`potential`).
        window: the newest finished episodes.
    """

    about: ClassVar[str]
    """One line for the log: what the blend does to the optimal policy."""
    bonuses: ClassVar[bool] = False
    maps: ClassVar[bool] = False

    def __init__(self, config: BlendConfig, *, count: int, gamma: float, seed: int = 0) -> None:
        config.check()
        self.config, self.gamma = config, gamma
        self.weight: float = 1.0
        self.window = EpisodeWindow(count, config.window)
        self.generator = np.random.default_rng(seed)
        self._finished: int = 0

    def bonus(self, obs: Float32, action: Float32, next_obs: Float32, terminated: Bool) -> Float64:
        """Return b Float64["n"] of n transitions; `terminated` is True where no value follows."""
        return np.zeros(len(obs))

    def potential(self, phi: Any) -> Any:
        """Return the potential that F is made of, where the reward model says `phi` (any shape)."""
        return phi

    def saw(self, next_obs: Float32) -> None:  # noqa: B027 (most blends count nothing)
        """Take note of states Float32["n o"] that were entered."""

    def ended(self) -> None:
        """Take note that an episode was added to the window."""
        self._finished += 1

    def improve(self, policy: BasePolicy) -> dict[str, float]:
        """Update the blend where it is due; returns what to log."""
        rounds, self._finished = divmod(self._finished, self.config.every)
        return self._update(policy, rounds) if rounds else {}

    @abstractmethod
    def _update(self, policy: BasePolicy, rounds: int) -> dict[str, float]:
        """Learn from `window`; returns what to log.

        Args:
            policy: the learner's.
            rounds: how many times `every` episodes have ended since; several in a PPO rollout.
        """

    # --- checkpoints ---

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is remembered, for a checkpoint."""
        return self.window.arrays()

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take `arrays()` back."""
        self.window.restore(arrays)

    def save(self, folder: Path) -> None:
        """Write `blend.json` and `blend.safetensors` into `folder`."""
        arrays = {k: np.ascontiguousarray(v) for k, v in self.arrays().items()}
        safetensors.numpy.save_file(arrays, folder / "blend.safetensors")
        state: dict[str, Any] = {
            "type": type(self).__name__,
            "weight": self.weight,
            "finished": self._finished,
            "generator": self.generator.bit_generator.state,
        }
        (folder / "blend.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """Take `save` back. Raises CheckpointError: another blend, or none, was saved."""
        source = folder / "blend.json"
        state: dict[str, Any] = {"type": "no blend"}
        if source.is_file():
            state = json.loads(source.read_text())
        if state["type"] != type(self).__name__:
            raise CheckpointError(
                f"'{folder}' was saved with {state['type']}, this run has {type(self).__name__}; "
                "resume with the same --reward.blend"
            )
        self.weight, self._finished = state["weight"], state["finished"]
        self.generator.bit_generator.state = state["generator"]
        self.restore(safetensors.numpy.load_file(folder / "blend.safetensors"))
