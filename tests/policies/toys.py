"""A one-state task with one number as action, whose diffusion policy is known in closed form."""

from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import torch

SPREAD = 0.05
LEVELS = np.cos(np.linspace(0.96, 0.0, 11) * np.pi / 2) ** 2  # signal kept, noisiest first


class TwoModes:
    """DDIM (eta = 0) with the exact denoiser of half N(-1, SPREAD), half N(+1, SPREAD)."""

    noise_shape = (1, 1)
    width = 1

    def __init__(self):
        self.spec = SimpleNamespace(
            low=np.array([-2.0], np.float32),
            high=np.array([2.0], np.float32),
            observation={"agent_pos": (1,)},
            meta={},
            views=(),
            config=SimpleNamespace(n_action_steps=1, n_obs_steps=1),
        )

    def flat(self, obs):
        return obs["observation.state"].ravel().numpy()

    def plan(self, obs, noise):
        x = noise.numpy().astype(float)
        for kept, next_kept in zip(LEVELS[:-1], LEVELS[1:], strict=True):
            clean = self._clean(x, kept)
            eps = (x - np.sqrt(kept) * clean) / np.sqrt(1 - kept)
            x = np.sqrt(next_kept) * clean + np.sqrt(1 - next_kept) * eps
        return x.astype(np.float32)

    def _clean(self, x, kept):
        """E[action | x], the mean of the posterior over both modes."""
        root, variance = np.sqrt(kept), kept * SPREAD**2 + 1 - kept
        mode = np.tanh(x * root / variance)  # posterior mean of the sign
        gain = root * SPREAD**2 / variance
        return mode + gain * (x - root * mode)


class OneStep(gym.Env):
    """Every episode is one action; `good` says whether it pays 1."""

    metadata = {"render_fps": 1.0}  # noqa: RUF012
    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-1, 1, (1,), np.float32)})
    action_space = gym.spaces.Box(-2.0, 2.0, (1,), np.float32)

    def __init__(self, good):
        self.good, self.actions = good, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return {"agent_pos": np.zeros(1, np.float32)}, {"is_success": False}

    def step(self, action):
        won = bool(self.good(float(action[0])))
        self.actions.append(float(action[0]))
        return {"agent_pos": np.zeros(1, np.float32)}, float(won), True, False, {"is_success": won}


def base_actions(count, seed=0):
    noise = torch.randn((count, 1, 1), generator=torch.Generator().manual_seed(seed))
    return TwoModes().plan({}, noise)[:, 0, 0]
