"""A learner that replays an actor's episodes."""

import numpy as np

from embodied_reward.policies.config import SACConfig
from embodied_reward.policies.experience import Experience
from embodied_reward.policies.received import ReceivedEpisodes, receiving
from embodied_reward.policies.sac import build_sac

STEPS, COUNT = 3, 5


def episode(index):
    rng = np.random.default_rng(index)
    return Experience(
        id=f"run-{index}",
        observations=rng.normal(size=(STEPS + 1, 4)).astype(np.float32),
        actions=rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
        executed=rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32),
        interventions=np.zeros(STEPS, bool),
        rewards=rng.random(STEPS),
        success=np.zeros(STEPS, bool),
        potentials=rng.random(STEPS + 1),
        shaping=rng.random(STEPS),
        terminated=True,
        facts={},
    )


def told(learning_starts):
    """What an actor is told before each episode but the first: (episodes, updates)."""
    waiting, rows = iter([episode(i) for i in range(COUNT)]), []
    config = SACConfig(net_arch=(8, 8), batch_size=4, learning_starts=learning_starts)
    received = ReceivedEpisodes(observation=4, action=2, wait=lambda: next(waiting))
    model = build_sac(config, received, seed=0)
    model = receiving(model, received, lambda m: rows.append((m._episode_num, m._n_updates)))
    model.learn(STEPS * COUNT)
    return rows


def test_every_episode_is_answered_also_before_there_are_updates():
    """An actor rests until its episodes are learned from: without an answer it rests for ever."""
    assert told(learning_starts=1000) == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_an_answer_comes_after_the_updates_of_its_episode():
    rows = told(learning_starts=0)
    assert [episodes for episodes, _ in rows] == [1, 2, 3, 4]
    assert all(updates % STEPS == 0 for _, updates in rows)
    assert rows[0][1] > 0
    assert all(np.diff([updates for _, updates in rows]) > 0)
