"""A replay buffer that mixes demonstrations in and computes shaping when it samples."""

import dataclasses
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from embodied_reward.errors import CheckpointError, ConfigError, EnvError
from embodied_reward.types import Bool, Float64, Int64

from .demos import Transitions
from .replay_rows import Trajectory, pack, relabelled, row_type, terminations

# (base reward, Phi(s), Phi(s'), terminated) -> the reward that the learner sees.
Relabel = Callable[[Any, Any, Any, Any], Any]
# (s, a, s', terminated) of n transitions -> what is paid besides, Float64["n"].
Bonus = Callable[[Any, Any, Any, Any], Any]
_ARRAYS = (
    "observations",
    "next_observations",
    "actions",
    "rewards",
    "dones",
    "timeouts",
    "potentials",
    "next_potentials",
    "episode_ids",
    "episode_steps",
    "variants",
    "shown",
)
_INPUTS = ("observations", "actions", "next_observations")


class DemoReplayBuffer(ReplayBuffer):
    """SB3's replay buffer, half of whose batches are demonstrations, with n-step returns.

    The buffer keeps the *base* reward, Phi(s) and Phi(s') apart and lets `relabel` combine them
    at sample time: a potential that is exchanged later (`exchange`) never mixes with shaping
    from an older one (mixed potentials do not telescope). `rewards` holds base rewards only.

    Transitions are rows of one table, the demonstrations last: one gather draws all batches of a
    decision. SB3's arrays are views of it.

    The first rows of a sampled batch are the demonstrations (`demo_rows` of them). `shown` marks
    experience that is a demonstration as well: what a person did during the run
    (`info["intervention"]`), as in HIL-SERL (Luo et al. 2024, arXiv 2410.21845, sec. III-C), and,
    with `replay_successes`, episodes that succeeded (self-imitation, Oh et al. 2018,
    arXiv 1806.05635, by whole episodes). `variants` holds `info["variant"]` of every transition, 0
    where the environment names none.

    Args:
        demos: transitions with actions scaled to [-1, 1]; None for none.
        demo_fraction: share of each batch from `demos`; all of it while the buffer is empty.
        relabel: see `Relabel`; None returns the base reward.
        n_steps: rewards summed per sample, as SB3's `NStepReplayBuffer` does: the sum stops at a
            termination, a truncation or the newest transition, `next_observations` and `dones`
            belong to its last step, and `discounts` holds gamma to the number of steps summed
            (None for 1 step). The reward of every step is relabelled first, so the shaping in the
            sum telescopes to gamma^n m Phi(s_n) - Phi(s_0).
        gamma: the learner's discount, used where n_steps > 1.
        replay_successes: whether an episode whose last decision was terminal and paid a positive
            base reward joins the demonstrations.
        seed: of the buffer's own generator.
        kwargs: see `ReplayBuffer`.

    Attributes:
        bonus: see `Bonus`; added when a batch is drawn. None pays none.
    """

    bonus: Bonus | None = None
    potentials: Float64
    next_potentials: Float64
    episode_ids: Int64
    episode_steps: Int64
    variants: Int64
    shown: Bool

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        *args: Any,
        demos: Transitions | None = None,
        demo_fraction: float = 0.5,
        relabel: Relabel | None = None,
        n_steps: int = 1,
        gamma: float = 0.99,
        replay_successes: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(buffer_size, observation_space, action_space, *args, **kwargs)
        if n_steps < 1:
            raise ConfigError(f"n_steps must be at least 1, got {n_steps}")
        if self.optimize_memory_usage:
            raise ConfigError("this replay buffer stores both observations of a transition")
        self.demos, self.relabel = demos, relabel
        self.n_steps, self.gamma, self.replay_successes = n_steps, gamma, replay_successes
        self.demo_fraction = demo_fraction
        self.generator = np.random.default_rng(seed)
        self._own = self.buffer_size * self.n_envs
        kind = row_type(observation_space, action_space)
        self._table = np.zeros(self._own + (0 if demos is None else len(demos)), kind)
        self._bind()
        self.episode_ids[:] = -1
        if demos is not None:
            pack(demos, self._table[self._own :])
        self._shown: Int64 = np.zeros(0, np.int64)
        self.version = ""
        self._next_id = 0
        self._begin(np.ones(self.n_envs, bool))

    def _bind(self) -> None:
        """Make SB3's arrays views of the table: [buffer_size n_envs ...]."""
        own = self._table[: self._own].reshape(self.buffer_size, self.n_envs)
        for name in _ARRAYS:
            setattr(self, name, own[name])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in _ARRAYS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bind()

    def add(self, obs: Any, next_obs: Any, action: Any, reward: Any, done: Any, infos: Any) -> None:
        """Store the base reward and the potentials that `LearnedRewardVecEnv` put in `infos`.

        What a person did (`info["executed_action"]`) takes the place of the policy's action.

        Within an episode Phi(s) is the number that was stored as Phi(s') when s was entered.

        Raises:
            EnvError: the environment still pays another version of the potential.
        """
        for info in infos:
            if info.get("potential_version", self.version) != self.version:
                raise EnvError(
                    f"the environment's potential is version '{info['potential_version']}', the "
                    f"replay buffer's is '{self.version}': exchange both between two decisions"
                )
        known = [info.get("previous_potential", 0.0) for info in infos]
        self.potentials[self.pos] = np.where(self._step == 0, known, self._entered)
        self._entered = np.array([info.get("potential", 0.0) for info in infos])
        self.next_potentials[self.pos] = self._entered
        self.episode_ids[self.pos], self.episode_steps[self.pos] = self._id, self._step
        self.variants[self.pos] = [info.get("variant", 0) for info in infos]
        guided = np.array([bool(info.get("intervention", False)) for info in infos])
        changed = bool((guided | self.shown[self.pos]).any())
        self.shown[self.pos] = guided
        self._step = self._step + 1
        pairs = zip(infos, reward, strict=True)
        base = np.array([info.get("base_reward", float(r)) for info, r in pairs])
        # Not what a robot's limits made of the policy's own action: they belong to its world, and
        # a critic that never saw what was asked for has nothing to say against asking for it.
        if guided.any():
            rows = zip(guided, infos, np.asarray(action), strict=True)
            action = np.stack([i.get("executed_action", a) if by else a for by, i, a in rows])
        at = self.pos
        super().add(obs, next_obs, action, base, done, infos)
        if self.replay_successes:
            changed |= self._show_successes(at)
        self._begin(np.asarray(done, bool))
        if changed:
            self._shown = np.flatnonzero(self._table["shown"][: self._own])

    def _show_successes(self, at: int) -> bool:
        """Make demonstrations of the episodes that row `at` ends with success."""
        won = (self.rewards[at] > 0) & (self.dones[at] > 0) & ~(self.timeouts[at] > 0)
        for episode in self.episode_ids[at][won]:
            self.shown[self.episode_ids == episode] = True
        return bool(won.any())

    def _begin(self, rows: Bool) -> None:
        if rows.all():
            self._id: Int64 = np.zeros(self.n_envs, np.int64)
            self._step: Int64 = np.zeros(self.n_envs, np.int64)
            self._entered: Float64 = np.zeros(self.n_envs)
        count = int(rows.sum())
        self._id[rows] = self._next_id + np.arange(count)
        self._step[rows] = 0
        self._next_id += count

    @property
    def running(self) -> Int64:
        """Int64["n_envs"], ids of the episodes to which the next `add` belongs."""
        return self._id.copy()

    def demo_rows(self, batch_size: int) -> int:
        """Return how many rows of a batch are demonstrations; they come first."""
        if self.demos is None and not len(self._shown):
            return 0
        return batch_size if self.size() == 0 else round(self.demo_fraction * batch_size)

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        """Draw a batch; rewards are relabelled, `dones` are terminations only."""
        return self.sample_many(1, batch_size)[0]

    def sample_many(self, count: int, batch_size: int) -> list[ReplayBufferSamples]:
        """Draw the batches that `count` calls of `sample` would, with one gather for all."""
        return self.sample_with_variants(count, batch_size)[0]

    def sample_with_variants(
        self, count: int, batch_size: int
    ) -> tuple[list[ReplayBufferSamples], Int64]:
        """Draw batches, and say which variant of the world each row is from: Int64["count*b"]."""
        if count == 0:
            return [], np.zeros(0, np.int64)
        n = self.demo_rows(batch_size)
        drawn = [part for _ in range(count) for part in self._draw(n, batch_size - n)]
        first = np.concatenate(drawn)
        samples = self._samples(first)
        columns = [() if x is None else x.split(batch_size) for x in samples]
        batches = [_batch(*batch) for batch in zip_longest(*columns)]
        return batches, self._table["variants"][first]

    def _draw(self, demos: int, own: int) -> tuple[Int64, Int64]:
        """Return rows of the table, Int64["b"]: demonstrations, then the agent's own."""
        draw, given = self.generator.integers, len(self._table) - self._own
        first = np.zeros(0, np.int64)
        if demos:
            first = draw(given + len(self._shown), size=demos)
            shown = first >= given
            first, mine = self._own + first, first[shown] - given
            first[shown] = self._shown[mine]
        return first, draw(self.size() * self.n_envs, size=own) if own else first[:0]

    def _samples(self, first: Int64) -> ReplayBufferSamples:
        if self.n_steps == 1:
            rows = self._table.take(first)
            words, terminated = self._words(rows), terminations(rows)[:, None]
            reward = self._reward(rows[:, None], terminated)
            inputs = (words[name] for name in _INPUTS)
            return _batch(*inputs, self._tensor(terminated), self._tensor(reward))
        windows, counted = self._windows(first)
        reward, terminated = self._window_rewards(windows)
        total = (reward * self.gamma ** np.arange(self.n_steps) * counted).sum(1, keepdims=True)
        ended = (terminated & counted).any(axis=1, keepdims=True)
        discounts = self.gamma ** counted.sum(axis=1, keepdims=True)
        last = windows[np.arange(len(first)), counted.sum(axis=1) - 1]
        head, tail = (self._words(self._table.take(at)) for at in (first, last))
        inputs = (head["observations"], head["actions"], tail["next_observations"])
        return _batch(*inputs, *map(self._tensor, (ended, total, discounts)))

    def _windows(self, first: Int64) -> tuple[Int64, Bool]:
        """Return the rows Int64["b n"] from each first one on, and which follow without a gap."""
        ahead, demos = np.arange(self.n_steps), (first >= self._own)[:, None]
        own = (first[:, None] + ahead * self.n_envs) % self._own
        last = len(self._table) - 1
        rows = np.where(demos, np.minimum(first[:, None] + ahead, last), own)
        episode, step = self._table["episode_ids"][rows], self._table["episode_steps"][rows]
        straight = (episode == episode[:, :1]) & (step == step[:, :1] + ahead)
        return rows, np.logical_and.accumulate(straight, axis=1)

    def _window_rewards(self, rows: Int64) -> tuple[Float64, Bool]:
        small = self._table[["rewards", "potentials", "next_potentials", "dones", "timeouts"]]
        at = (small if self.bonus is None else self._table)[rows]
        terminated = terminations(at)
        return self._reward(at, terminated), terminated

    def _reward(self, rows: np.ndarray, terminated: Bool) -> Float64:
        reward = rows["rewards"].astype(np.float64)
        if self.relabel is not None:
            phi, phi_next = rows["potentials"], rows["next_potentials"]
            reward = self.relabel(reward, phi, phi_next, terminated)
        if self.bonus is None:
            return reward
        flat, ends = rows.ravel(), terminated.ravel()
        obs, action, next_obs = (flat[name] for name in _INPUTS)
        return reward + self.bonus(obs, action, next_obs, ends).reshape(reward.shape)

    def _words(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        """Return observations and actions of rows as parts of one tensor, without copies."""
        words = torch.from_numpy(rows.view(np.float32).reshape(len(rows), -1)).to(self.device)
        kinds: Any = rows.dtype.fields
        found = {}
        for name in _INPUTS:
            kind, offset = kinds[name][:2]
            found[name] = words[:, offset // 4 : (offset + kind.itemsize) // 4]
        return found

    def _tensor(self, array: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self.device)

    def exchange(self, own: Trajectory, version: str, demo: Trajectory | None = None) -> float:
        """Replace every stored potential by another version's, all of them or none.

        Base rewards stay untouched. Both potentials of a transition come from one trajectory, so
        Phi(s') of a step and Phi(s) of the next remain the same number.

        Args:
            own: see `Trajectory`; takes ids of `episode_ids`.
            version: name of the new potential; later `add`s must carry the same one.
            demo: the same for the demonstrations, by their position in `transitions(episodes)`.

        Returns:
            max |Phi_new - Phi_old| over all that is stored: the height by which targets jump.

        Raises:
            ConfigError: demonstrations without `demo`, or a trajectory that is too short.
            NonFiniteError: a NaN in the new potential. Nothing was changed in either case.
        """
        if self.demos is not None and demo is None:
            raise ConfigError("the buffer holds demonstrations: their new potential is needed too")
        ids, steps = self.episode_ids[: self.size()], self.episode_steps[: self.size()]
        ended = (self.dones[: self.size()] > 0) & ~(self.timeouts[: self.size()] > 0)
        old = [self.potentials[: self.size()], self.next_potentials[: self.size()]]
        new = list(relabelled(own, ids, steps, ended))
        demos = self.demos
        if demos is not None and demo is not None:
            after = relabelled(demo, demos.episode, demos.step, demos.terminated)
            old, new = [*old, demos.potential, demos.next_potential], [*new, *after]
            demos = dataclasses.replace(demos, potential=after[0], next_potential=after[1])
        pairs = zip(old, new, strict=True)
        jump = max((float(np.abs(a - b).max()) for a, b in pairs if a.size), default=0.0)
        self.potentials[: self.size()], self.next_potentials[: self.size()] = new[:2]
        self.demos, self.version = demos, version
        if demos is not None:
            pack(demos, self._table[self._own :])
        if self.size():
            self._entered = self.next_potentials[self.pos - 1].copy()
        return jump

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what is stored, oldest layout kept, for a checkpoint."""
        return {n: np.ascontiguousarray(getattr(self, n)[: self.size()]) for n in _ARRAYS}

    def counters(self) -> dict[str, Any]:
        """Return position, fill and the generator's state as JSON types."""
        return {
            "pos": self.pos,
            "full": self.full,
            "generator": self.generator.bit_generator.state,
            "episodes": self._next_id,
            "version": self.version,
        }

    def restore(self, arrays: dict[str, np.ndarray], counters: dict[str, Any]) -> None:
        """Take `arrays()` and `counters()` of an earlier run back. Raises CheckpointError.

        Episodes that were under way stay unfinished; the next `add` begins new ones.
        """
        # Runs from before own successes were shown knew interventions, older ones not even those.
        none = np.zeros(arrays["rewards"].shape, bool) if "rewards" in arrays else None
        older = arrays.get("interventions", none)
        arrays = arrays if older is None else {"shown": older, **arrays}
        if missing := set(_ARRAYS) - set(arrays):
            raise CheckpointError(
                f"the saved replay buffer holds no {sorted(missing)}: an older version wrote it; "
                "resume with that version or start a new run"
            )
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
        self._next_id, self.version = counters["episodes"], counters["version"]
        self._shown = np.flatnonzero(self._table["shown"][: self._own])
        self._begin(np.ones(self.n_envs, bool))


def _batch(*columns: Any) -> ReplayBufferSamples:
    """Name columns in SB3's order; without the sixth there are no discounts."""
    return ReplayBufferSamples(*columns)
