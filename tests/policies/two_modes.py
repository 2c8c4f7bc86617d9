"""A diffusion policy whose answer is known: one state, one action, half at -1 and half at +1.

It is LeRobot's policy with another network: the exact denoiser of the two modes, plus a small
correction that is zero in the beginning and can learn.
"""

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.diffusion.actor import DiffusionSpec, create_actor

SPREAD = 0.05  # of each mode
RANGE = 2.0  # actions lie in [-RANGE, RANGE], which the policy calls [-1, 1]
STATE, WORLD = "observation.state", "observation.environment_state"
CONFIG = DiffusionConfig(
    n_obs_steps=1, horizon=2, n_action_steps=1, num_train_timesteps=20, num_inference_steps=10,
    down_dims=(8,), diffusion_step_embed_dim=8,
)  # fmt: skip


class Exact(nn.Module):
    """The noise in x, given both modes; called as LeRobot's U-Net."""

    def __init__(self, levels, wide=32):
        super().__init__()
        self.register_buffer("levels", levels.clone())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.correction = nn.Sequential(
                nn.Linear(2, wide), nn.Tanh(), nn.Linear(wide, wide), nn.Tanh(), nn.Linear(wide, 1)
            )
        nn.init.zeros_(self.correction[-1].weight)
        nn.init.zeros_(self.correction[-1].bias)

    def forward(self, x, times, global_cond=None):
        kept = self.levels[times][:, None, None]
        spread, mode = SPREAD / RANGE, 1 / RANGE
        variance = kept * spread**2 + 1 - kept
        middle = mode * torch.tanh(x * kept.sqrt() * mode / variance)
        clean = middle + kept.sqrt() * spread**2 / variance * (x - kept.sqrt() * middle)
        noise = (x - kept.sqrt() * clean) / (1 - kept).sqrt()
        time = (times.float() / len(self.levels))[:, None, None].expand_as(x)
        return noise + self.correction(torch.stack([x, time], -1))[..., 0]


def two_modes():
    """Build the policy."""
    low, high = np.float32([-RANGE]), np.float32([RANGE])
    shapes = {"agent_pos": (1,), "environment_state": (1,)}
    one = {"min": torch.tensor([-1.0]), "max": torch.tensor([1.0])}
    wide = {"min": torch.tensor(low), "max": torch.tensor(high)}
    stats = {STATE: one, WORLD: one, "action": wide}
    actor = create_actor(DiffusionSpec(CONFIG, shapes, low, high, {}), stats)
    diffusion = actor.model.diffusion
    diffusion.unet = Exact(diffusion.noise_scheduler.alphas_cumprod)
    actor.model.requires_grad_(False)
    return actor


def actions_of(actor, count=1000, seed=0):
    """Return the first actions Float32[count] of so many plans."""
    noise = torch.randn((count, *actor.noise_shape), generator=torch.Generator().manual_seed(seed))
    obs = {STATE: torch.zeros(count, 1, 1), WORLD: torch.zeros(count, 1, 1)}
    return actor.plan(obs, noise)[:, 0, 0]


class OneStep(gym.Env):
    """Every episode is one action; `good` says whether it pays 1."""

    metadata = {"render_fps": 1.0}  # noqa: RUF012
    observation_space = gym.spaces.Dict(
        {
            "agent_pos": gym.spaces.Box(-1, 1, (1,), np.float32),
            "environment_state": gym.spaces.Box(-1, 1, (1,), np.float32),
        }
    )
    action_space = gym.spaces.Box(-RANGE, RANGE, (1,), np.float32)

    def __init__(self, good):
        self.good, self.actions = good, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._obs(), {"is_success": False}

    def step(self, action):
        won = bool(self.good(float(action[0])))
        self.actions.append(float(action[0]))
        return self._obs(), float(won), True, False, {"is_success": won}

    def _obs(self):
        return {k: np.zeros(1, np.float32) for k in self.observation_space.spaces}
