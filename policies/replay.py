"""A replay buffer that mixes demonstrations in and computes shaping when it samples."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from embodied_reward.errors import CheckpointError
from embodied_reward.types import Float64, Int64

from .demos import Transitions

# (base reward, Phi(s), Phi(s'), terminated) -> the reward that the learner sees.
Relabel = Callable[[Any, Any, Any, Any], Any]
_ARRAYS = (
    "observations",
    "next_observations",
    "actions",
    "rewards",
    "dones",
    "timeouts",
    "potentials",
    "next_potentials",
)


class DemoReplayBuffer(ReplayBuffer):
    """SB3's replay buffer, half of whose batches are demonstrations.

    The buffer keeps the *base* reward, Phi(s) and Phi(s') apart and lets `relabel` combine them
    at sample time: a potential that is exchanged later never mixes with shaping from an older
    one (mixed potentials do not telescope). `rewards` holds base rewards only.

    The first rows of a sampled batch are the demonstrations (`demo_rows` of them).

    Args:
        demos: transitions with actions scaled to [-1, 1]; None for none.
        demo_fraction: share of each batch from `demos`; all of it while the buffer is empty.
        relabel: see `Relabel`; None returns the base reward.
        seed: of the buffer's own generator.
        kwargs: see `ReplayBuffer`.
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *args: Any,
        demos: Transitions | None = None,
        demo_fraction: float = 0.5,
        relabel: Relabel | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, *args, **kwargs)
        self.demos, self.relabel = demos, relabel
        self.demo_fraction = demo_fraction if demos is not None else 0.0
        self.generator = np.random.default_rng(seed)
        self.potentials: Float64 = np.zeros((self.buffer_size, self.n_envs))
        self.next_potentials: Float64 = np.zeros((self.buffer_size, self.n_envs))

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        """Store the base reward and the potentials that `LearnedRewardVecEnv` put in `infos`."""
        self.potentials[self.pos] = [info.get("previous_potential", 0.0) for info in infos]
        self.next_potentials[self.pos] = [info.get("potential", 0.0) for info in infos]
        pairs = zip(infos, reward, strict=True)
        base = np.array([info.get("base_reward", float(r)) for info, r in pairs])
        super().add(obs, next_obs, action, base, done, infos)

    def demo_rows(self, batch_size: int) -> int:
        """Return how many rows of a batch are demonstrations; they come first."""
        if self.demos is None:
            return 0
        return batch_size if self.size() == 0 else round(self.demo_fraction * batch_size)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Draw a batch; rewards are relabelled, `dones` are terminations only."""
        n = self.demo_rows(batch_size)
        parts = [self._demo_part(n)] if n else []
        if n < batch_size:
            parts.append(self._own_part(batch_size - n))
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        obs, action, next_obs, base, phi, phi_next, terminated = columns
        reward = base if self.relabel is None else self.relabel(base, phi, phi_next, terminated)
        data = (obs, action, next_obs, terminated[:, None], np.asarray(reward)[:, None])
        return ReplayBufferSamples(*(self._tensor(x) for x in data))

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def _demo_part(self, count: int) -> tuple[np.ndarray, ...]:
        demos = self.demos
        assert demos is not None
        rows = self.generator.integers(len(demos), size=count)
        terminated = demos.done[rows] & ~demos.timeout[rows]
        potentials = (demos.potential[rows], demos.next_potential[rows])
        head = (demos.obs[rows], demos.action[rows], demos.next_obs[rows])
        return (*head, demos.base_reward[rows].astype(np.float64), *potentials, terminated)

    def _own_part(self, count: int) -> tuple[np.ndarray, ...]:
        flat = self.generator.integers(self.size() * self.n_envs, size=count)
        rows: tuple[Int64, Int64] = np.divmod(flat, self.n_envs)
        terminated = (self.dones[rows] > 0) & ~(self.timeouts[rows] > 0)
        potentials = (self.potentials[rows], self.next_potentials[rows])
        head = (self.observations[rows], self.actions[rows], self.next_observations[rows])
        return (*head, self.rewards[rows].astype(np.float64), *potentials, terminated)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is stored, oldest layout kept, for a checkpoint."""
        return {name: getattr(self, name)[: self.size()] for name in _ARRAYS}

    def counters(self) -> dict[str, Any]:
        """Return position, fill and the generator's state as JSON types."""
        return {
            "pos": self.pos,
            "full": self.full,
            "generator": self.generator.bit_generator.state,
        }

    def restore(self, arrays: dict[str, np.ndarray], counters: dict[str, Any]) -> None:
        """Take `arrays()` and `counters()` of an earlier run back. Raises CheckpointError."""
        for name in _ARRAYS:
            target, stored = getattr(self, name), arrays[name]
            if stored.shape[1:] != target.shape[1:] or len(stored) > len(target):
                raise CheckpointError(
                    f"the saved replay buffer's '{name}' has shape {stored.shape}, this run's has "
                    f"{target.shape}; resume with the same environment, n_envs and buffer_size"
                )
            target[: len(stored)] = stored
        self.pos, self.full = counters["pos"], counters["full"]
        self.generator.bit_generator.state = counters["generator"]
