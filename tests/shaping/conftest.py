"""A tiny camera environment whose potential can be read off its pixels, and random MDPs."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from embodied_reward.types import Scores

GOAL = 5


class Corridor(gym.Env):
    """Walk from 0 to GOAL; the frame's brightness is the position. Success terminates."""

    metadata = {"render_fps": 10.0}  # noqa: RUF012
    render_mode = None

    def __init__(self, horizon=8, start=0, terminates=True):
        self.observation_space = gym.spaces.Box(-1, 100, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (1,), np.float32)
        self.horizon, self.start, self.terminates = horizon, start, terminates
        self.rendered = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.start, 0
        return self._obs(), {"is_success": False}

    def step(self, action):
        self.x = max(self.x + int(np.sign(action[0])), 0)
        self.t += 1
        won = self.x >= GOAL
        ended = won and self.terminates
        return self._obs(), float(won), ended, self.t >= self.horizon, {"is_success": won}

    def _obs(self):
        return np.array([self.x], np.float32)

    def frames(self):
        self.rendered += 1
        return {"eye": np.full((4, 4, 3), 40 * self.x, np.uint8)}

    def progress(self):
        return self.x / GOAL


class BrightnessScorer:
    """Phi = brightness / 200; remembers what it was given, can be told to fail."""

    views = ("eye",)

    def __init__(self, count):
        self.started, self.calls, self.fail_at = [], 0, None
        self.current = np.full(count, np.nan)

    def start(self, rows, frames):
        phi = self._phi(frames)
        self.started.append((list(rows), phi.tolist()))
        self.current[list(rows)] = phi
        return self._scores(phi)

    def step(self, frames):
        self.calls += 1
        phi = self._phi(frames)
        assert len(phi) == len(self.current)
        if self.fail_at is not None and self.calls == self.fail_at[0]:
            phi[self.fail_at[1]] = np.nan
        return self._scores(phi)

    @staticmethod
    def _phi(frames):
        return frames["eye"].mean(axis=(1, 2, 3)) / 200

    @staticmethod
    def _scores(phi):
        return Scores(phi, phi, np.zeros_like(phi), np.isfinite(phi))


@pytest.fixture
def corridor():
    return Corridor


@pytest.fixture
def brightness():
    return BrightnessScorer


def random_mdp(rng, states=8, actions=3, terminal=0):
    p = rng.dirichlet(np.ones(states), size=(states, actions))
    r = rng.normal(size=(states, actions, states))
    ends = np.zeros(states, bool)
    ends[:terminal] = True
    return p, r, ends


def iterate(p, r, ends, gamma, alpha=None, sweeps=2000):
    """Optimal (alpha None) or soft-optimal Q of an MDP; no value beyond terminal states."""
    q = np.zeros(p.shape[:2])
    for _ in range(sweeps):
        v = q.max(1) if alpha is None else alpha * np.log(np.exp(q / alpha).sum(1))
        new = (p * (r + gamma * np.where(ends, 0.0, v))).sum(2)
        if np.abs(new - q).max() < 1e-14:
            break
        q = new
    return q


def changed_policies(count, gamma, reward, *, seed=1, terminal=2):
    """How many of `count` MDPs have another greedy policy under reward(r, ends, rng)."""
    rng, changed = np.random.default_rng(seed), 0
    for _ in range(count):
        p, r, ends = random_mdp(rng, terminal=terminal)
        q = iterate(p, r, ends, gamma)
        after = iterate(p, reward(r, ends, rng), ends, gamma)
        changed += bool((q.argmax(1) != after.argmax(1))[~ends].any())
    return changed


@pytest.fixture
def mdps():
    return SimpleNamespace(random=random_mdp, iterate=iterate, changed=changed_policies)
