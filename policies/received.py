"""A learner whose environment is what an actor elsewhere has done.

`ReceivedEpisodes` replays finished episodes to Stable-Baselines3's own loop, and `ReceivingSAC`
lets the actor's actions stand in place of its own. Buffer, updates, logs and checkpoints are those
of the learner that acts itself.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from embodied_reward.errors import EnvError
from embodied_reward.types import Float32

from .episodic import EpisodicSAC, between_episodes
from .experience import Experience
from .sac import DemoSAC


class ReceivedEpisodes(VecEnv):
    """One environment that does again what an actor did, `infos` included.

    It takes no time, so a run that is stopped stops between two episodes.

    Args:
        observation: numbers of the flat observation.
        action: numbers of the action.
        wait: returns the next episode; blocks until there is one.
    """

    replays = True  # see policies/callbacks.py

    def __init__(self, observation: int, action: int, wait: Callable[[], Experience]) -> None:
        seen = spaces.Box(-np.inf, np.inf, (observation,), np.float32)
        super().__init__(1, seen, spaces.Box(-1.0, 1.0, (action,), np.float32))
        self._wait, self._step = wait, 0
        self._episode: Experience | None = None

    @property
    def between(self) -> bool:
        """Whether no episode is being replayed."""
        return self._episode is None

    def begin(self) -> Float32:
        """Wait for the next episode; returns its first observation, Float32["1 o"]."""
        self._episode, self._step = self._wait(), 0
        return self._episode.observations[:1]

    @property
    def action(self) -> Float32:
        """What the actor wanted in the present state, Float32["1 a"]."""
        return self._known().actions[self._step][None]

    def reset(self) -> Float32:
        """Return nothing that was seen: episodes start with `begin`."""
        return np.zeros((1, *(self.observation_space.shape or ())), np.float32)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the action, which is the actor's."""

    def step_wait(self) -> VecEnvStepReturn:
        """Replay one decision."""
        episode, k = self._known(), self._step
        self._step = k + 1
        obs, done = episode.observations[k + 1][None], self._step == len(episode)
        info = _info(episode, k)
        if done:
            info |= {
                **episode.facts,
                "terminal_observation": obs[0],
                "TimeLimit.truncated": not episode.terminated,
                "episode": {"r": float(episode.rewards.sum()), "l": len(episode), "t": 0.0},
            }
            self._episode, obs = None, self.reset()
        rewards = np.array([episode.rewards[k]], np.float32)
        return obs, rewards, np.array([done]), [info]

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return None: there is no environment behind."""
        return [None]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Refuse: there is no environment behind."""
        raise EnvError(f"what an actor did has no '{attr_name}' to set")

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        """Refuse: there is no environment behind."""
        raise EnvError(f"what an actor did has no '{method_name}' to call")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Return True for SB3's Monitor, whose entry `infos` has."""
        return [True]

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Nothing here is drawn."""
        return [seed]

    def _known(self) -> Experience:
        if self._episode is None:
            raise EnvError("call begin() first")
        return self._episode


def _info(episode: Experience, k: int) -> dict[str, Any]:
    return {
        "base_reward": float(episode.rewards[k]),
        "previous_potential": float(episode.potentials[k]),
        "potential": float(episode.potentials[k + 1]),
        "shaping": float(episode.shaping[k]),
        "intervention": bool(episode.interventions[k]),
        "executed_action": episode.executed[k],
        "is_success": bool(episode.success[k]),
    }


class ReceivingSAC(EpisodicSAC):
    """SAC whose decisions are an actor's.

    Attributes:
        received: its environment.
        updated: called when all is done that an episode leads to: its updates, or none where too
            little was seen to begin with them.
    """

    received: ReceivedEpisodes
    updated: Callable[["ReceivingSAC"], None]
    _taken = False

    def _sample_action(
        self, learning_starts: int, action_noise: Any = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.received.between:
            # Not after `train`, which is not called before `learning_starts`: an actor that hears
            # nothing waits for its episodes to be learned from.
            if self._taken:
                self.updated(self)
            self._last_obs, self._taken = self.received.begin(), True
        action = self.received.action
        return action, action


def receiving(
    model: DemoSAC, received: ReceivedEpisodes, updated: Callable[[ReceivingSAC], None]
) -> ReceivingSAC:
    """Let a fresh model learn from an actor's episodes; returns the same object."""
    model = between_episodes(model)
    model.__class__ = ReceivingSAC
    assert isinstance(model, ReceivingSAC)
    model.received, model.updated = received, updated
    return model
