"""Rows of the replay buffer's table, and what is worked out from them."""

from collections.abc import Callable

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim, get_obs_shape

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.types import Bool, Float64, Int64

from .demos import Transitions

# episode -> Phi of every state it entered, Float64["t + 1"] for t transitions.
Trajectory = Callable[[int], Float64]


def row_type(observation: spaces.Space, action: spaces.Space) -> np.dtype:
    """Return one transition's record; whatever a network reads is float32."""
    o, a = get_obs_shape(observation), (get_action_dim(action),)
    return np.dtype(
        [
            ("potentials", "f8"),
            ("next_potentials", "f8"),
            ("episode_ids", "i8"),
            ("episode_steps", "i8"),
            ("variants", "i8"),
            ("shown", "?"),
            ("observations", "f4", o),
            ("next_observations", "f4", o),
            ("actions", "f4", a),
            ("rewards", "f4"),
            ("dones", "f4"),
            ("timeouts", "f4"),
        ],
        align=True,
    )


def pack(demos: Transitions, rows: np.ndarray) -> None:
    """Write demonstrations into records."""
    given = {
        "observations": demos.obs,
        "next_observations": demos.next_obs,
        "actions": demos.action,
        "rewards": demos.base_reward,
        "dones": demos.terminated,
        "potentials": demos.potential,
        "next_potentials": demos.next_potential,
        "episode_ids": demos.episode,
        "episode_steps": demos.step,
        "variants": demos.variant,
    }
    for name, values in given.items():
        rows[name] = values


def terminations(rows: np.ndarray) -> Bool:
    """Return which rows end in a terminal state; a timeout is none."""
    return (rows["dones"] > 0) & ~(rows["timeouts"] > 0)


def relabelled(
    trajectory: Trajectory, episode: Int64, step: Int64, terminated: Bool
) -> tuple[Float64, Float64]:
    """Return Phi(s) and Phi(s') of transitions (episode, step) of any shape."""
    phi, after = np.zeros(step.shape), np.zeros(step.shape)
    for one in np.unique(episode):
        values, rows = np.asarray(trajectory(int(one)), np.float64), episode == one
        # A recording may lack the observation after its last action; a terminal Phi is never used.
        end = step[rows] + np.where(terminated[rows], 0, 1)
        if len(values) <= end.max():
            raise ConfigError(
                f"episode {one} has {end.max() + 1} states, its new potential {len(values)} values"
            )
        if not np.isfinite(values).all():
            raise NonFiniteError(f"the new potential of episode {one} is not finite")
        phi[rows] = values[step[rows]]
        after[rows] = values[np.minimum(step[rows] + 1, len(values) - 1)]
    return phi, after
