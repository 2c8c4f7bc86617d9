"""What pixels show is told of the varied scene, not of the original one."""

import numpy as np

from embodied_reward.envs import make
from embodied_reward.envs.parts import PARTS
from embodied_reward.envs.variation import vary


def masks(env, seed=0):
    env.reset(seed=seed)
    frames = {view: frame.copy() for view, frame in env.frames().items()}
    parts = env.parts()
    np.testing.assert_equal(env.frames(), frames)  # looking for parts leaves the pictures alone
    env.close()
    return next(iter(parts.values()))


def test_masks_follow_the_camera_and_stay_where_only_looks_change():
    def scene():
        return make("embodied_reward/TablePush-v0", size=64)

    plain = masks(scene())
    assert set(np.unique(plain)) > {PARTS.index("gripper")}
    assert (masks(vary(scene(), light=1.0, texture=1.0, seed=1)) == plain).all()
    moved = masks(vary(scene(), camera=1.0, seed=1))
    assert 0.005 < (moved != plain).mean() < 0.6
