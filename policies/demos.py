"""Demonstrations as transitions: what cloning and the replay buffer take."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from gymnasium import spaces

from embodied_reward.errors import DatasetError
from embodied_reward.types import Bool, Episode, Float32, Float64, Int64

EPISODE_KEYS = {"agent_pos": "state", "environment_state": "environment_state"}


@dataclass(frozen=True)
class Transitions:
    """n transitions (s, a, s').

    Attributes:
        obs: Float32["n o"], flattened as gymnasium's FlattenObservation does.
        next_obs: Float32["n o"].
        action: Float32["n a"] in [-1, 1], scaled from the environment's range.
        base_reward: Float32["n"], 1 where s' satisfies the task.
        potential: Float64["n"], Phi(s).
        next_potential: Float64["n"], Phi(s').
        done: Bool["n"], the episode ended at s'.
        timeout: Bool["n"], it ended without being terminal.
        episode: Int64["n"], position of its episode in the dataset.
        step: Int64["n"], position of s in its episode.
        variant: Int64["n"], which of several opened datasets it comes from.
    """

    obs: Float32
    next_obs: Float32
    action: Float32
    base_reward: Float32
    potential: Float64
    next_potential: Float64
    done: Bool
    timeout: Bool
    episode: Int64
    step: Int64
    variant: Int64

    def __len__(self) -> int:
        return len(self.obs)

    @property
    def terminated(self) -> Bool:
        """Bool["n"], s' is terminal: neither its value nor its potential counts."""
        return self.done & ~self.timeout


def transitions(
    episodes: Sequence[Episode],
    observation_space: spaces.Dict,
    action_space: spaces.Box,
    potential: Callable[[Episode], Float64] | None = None,
) -> Transitions:
    """Turn episodes into transitions that end at the first success.

    Row t holds the observation before action t, so row t and t + 1 make one transition. Its
    base reward is 1 and it is terminal where row t + 1 is the first success; later rows are
    dropped. An episode without success ends in a timeout, which is bootstrapped; one that is
    known to succeed but has no successful row succeeded by its last action.

    Args:
        episodes: at least one.
        observation_space: the environment's Dict space; its key order is the flattening order.
        action_space: the environment's box; its range becomes [-1, 1].
        potential: Phi of every row of an episode, Float64["t"]; None for zeros.

    Raises:
        DatasetError: no episodes, missing or non-finite columns, or unknown success.
    """
    if len(episodes) == 0:
        raise DatasetError("the demonstration dataset holds no episodes")
    given = (observation_space, action_space, potential)
    parts = [_one(index, episode, *given) for index, episode in enumerate(episodes)]
    parts = [part for part in parts if len(part)]
    if not parts:
        raise DatasetError("no demonstration has two rows before its first success")
    names = [field.name for field in fields(Transitions)]
    return Transitions(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})


def _one(
    index: int,
    episode: Episode,
    space: spaces.Dict,
    action_space: spaces.Box,
    potential: Callable[[Episode], Float64] | None,
) -> Transitions:
    obs = flat_observations(episode, space)
    action = scaled_actions(episode, action_space)
    success = success_rows(episode)
    last = int(np.argmax(success)) if success.any() else len(obs) - 1
    phi = np.zeros(len(obs)) if potential is None else np.asarray(potential(episode), np.float64)
    check_finite(episode, "potential", phi)
    if episode.success and not success.any():
        # Recorded up to the action that succeeded, without the observation after it. That
        # observation is terminal, so neither its value nor its potential is ever used.
        last = len(obs)
        obs, phi = np.concatenate([obs, obs[-1:]]), np.append(phi, phi[-1])
        success = np.append(success, True)
    done = np.arange(last) == last - 1
    return Transitions(
        obs=obs[:last],
        next_obs=obs[1 : last + 1],
        action=action[:last],
        base_reward=success[1 : last + 1].astype(np.float32),
        potential=phi[:last],
        next_potential=phi[1 : last + 1],
        done=done,
        timeout=done & ~success[last],
        episode=np.full(last, index),
        step=np.arange(last),
        variant=np.full(last, episode.variant),
    )


def flat_observations(episode: Episode, space: spaces.Dict) -> Float32:
    """Return Float32["t o"] in the order in which gymnasium flattens `space`."""
    columns = []
    for key, box in space.spaces.items():
        if key not in EPISODE_KEYS:
            raise DatasetError(
                f"the policy observes '{key}', which demonstrations do not hold; "
                f"accepted: {', '.join(EPISODE_KEYS)}"
            )
        column = getattr(episode, EPISODE_KEYS[key])
        width = int(np.prod(box.shape or (1,)))
        if column is None or column.reshape(len(episode), -1).shape[1] != width:
            got = "nothing" if column is None else f"shape {tuple(column.shape)}"
            raise DatasetError(
                f"{episode.source}: '{key}' should have {width} numbers per row, got {got}; were "
                "these demonstrations recorded in this environment?"
            )
        check_finite(episode, key, column)
        columns.append(column.reshape(len(episode), -1))
    return np.concatenate(columns, axis=1).astype(np.float32)


def scaled_actions(episode: Episode, space: spaces.Box) -> Float32:
    """Return Float32["t a"] in [-1, 1]; what lies outside the environment's range is clipped."""
    if episode.action.shape[1:] != space.shape:
        raise DatasetError(
            f"{episode.source}: actions have shape {episode.action.shape[1:]}, the environment "
            f"takes {space.shape}"
        )
    check_finite(episode, "action", episode.action)
    unit = 2 * (episode.action - space.low) / (space.high - space.low) - 1
    return unit.clip(-1, 1).astype(np.float32)


def success_rows(episode: Episode) -> Bool:
    """Return which rows satisfy the task, Bool["t"]. Raises DatasetError where that is unknown."""
    if episode.success_frames is not None:
        return np.asarray(episode.success_frames, bool)
    if episode.success is None:
        raise DatasetError(
            f"{episode.source}: neither 'next.success' nor an episode-level success is recorded; "
            "the base reward of these transitions is unknown"
        )
    return np.zeros(len(episode), bool)


def check_finite(episode: Episode, name: str, values: np.ndarray) -> None:
    """Raise DatasetError that names the first row of `values` with a NaN or an infinity."""
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
        raise DatasetError(f"{episode.source}: '{name}' is not finite in row {row}")
