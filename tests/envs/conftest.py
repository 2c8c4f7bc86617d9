import numpy as np
import pytest

from embodied_reward.envs import make, make_behaviour


@pytest.fixture
def build():
    """Build environments and close them afterwards."""
    opened = []

    def _build(env_id, **kwargs):
        opened.append(make(env_id, **kwargs))
        return opened[-1]

    yield _build
    for env in opened:
        env.close()


@pytest.fixture
def roll():
    """Play one episode; returns (progress per frame, last info, terminated)."""

    def _roll(env, quality, seed):
        observation, info = env.reset(seed=seed)
        act = make_behaviour(env, quality, np.random.default_rng(seed))
        progress, over, terminated = [env.progress()], False, False
        while not over:
            observation, _, terminated, truncated, info = env.step(act(observation))
            progress.append(env.progress())
            over = terminated or truncated
        return np.array(progress), info, terminated

    return _roll
