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


def test_distractors_are_background_and_may_hide_what_lies_behind():
    plain = masks(make("embodied_reward/TablePush-v0", size=96, views=("top",)))
    env = vary(
        make("embodied_reward/TablePush-v0", size=96, views=("top",)), distractors=1.0, seed=1
    )
    env.reset(seed=0)
    pictures, parts = env.frames()["top"], env.parts()["top"]
    env.close()
    bare = make("embodied_reward/TablePush-v0", size=96, views=("top",))
    bare.reset(seed=0)
    added = np.abs(pictures.astype(int) - bare.frames()["top"]).max(-1) > 40
    bare.close()
    assert added.sum() > 40
    assert (parts[added] == PARTS.index("background")).mean() > 0.95
    assert (parts == plain)[~added].mean() > 0.99
