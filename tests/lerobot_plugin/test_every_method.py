"""Methods that LeRobot cannot train: loaded by its factory, they score as they do with us."""

import functools

import numpy as np
import pytest
import torch

from embodied_reward import rewards
from embodied_reward.errors import ConfigError
from embodied_reward.rewards import EnsembleConfig, PerceptualConfig, PerceptualModel
from embodied_reward.vision.encoders import EncoderConfig
from tests.lerobot_plugin.test_reward_models import from_lerobot
from tests.rewards import methods, preferred
from tests.rewards.conftest import VIEWS, square_episode

LENGTH = 8
BATCHED = 1e-4  # other batch sizes round features otherwise; a distance to the goal magnifies that


def of_pairs(method):
    episodes = preferred.squares()[:6]
    model = preferred.untrained(method, preferred.pairs(episodes))
    return preferred.fit(model, episodes, steps=3)


def goal_distance():
    return methods.fit(methods.untrained(methods.tiny("goal_distance")), methods.squares(), steps=3)


def ensemble():
    config = EnsembleConfig(views=VIEWS, member=methods.tiny("remaining_time"), count=2)
    return methods.fit(methods.untrained(config), methods.squares()[:4], steps=3)


def perceptual():
    torch.manual_seed(0)
    config = PerceptualConfig(views=VIEWS, encoder=EncoderConfig(image_size=32))
    model = PerceptualModel.create(config, task="squares")
    model.fit([square_episode(i) for i in range(4)], progress=lambda done, total: None)
    return model.eval()


MADE = {
    "goal_distance": goal_distance,
    "ensemble": ensemble,
    "perceptual": perceptual,
    "rlhf": functools.partial(of_pairs, "rlhf"),
    "rapl": functools.partial(of_pairs, "rapl"),
}


@pytest.fixture(scope="module", params=MADE)
def checkpoint(request, tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp(request.param)
    MADE[request.param]().save(folder)
    return folder


def pictures(episodes, *steps):
    """LeRobot's batch: float pictures in [0, 1], channels first; a window where several steps."""
    batch = {}
    for view in VIEWS:
        frames = np.stack([episode.views[view][list(steps)] for episode in episodes])
        floats = torch.from_numpy(frames).permute(0, 1, 4, 2, 3).float() / 255
        batch[f"observation.images.{view}"] = floats if len(steps) > 1 else floats[:, 0]
    return batch


def test_frames_of_two_environments_are_scored_as_we_score_the_episodes(checkpoint):
    model, native = from_lerobot(checkpoint), rewards.load(checkpoint)
    episodes = [square_episode(70), square_episode(71)]
    expected = np.stack([native.score_episode(e).potential[:LENGTH] for e in episodes], axis=1)
    found = [model.compute_reward(pictures(episodes, t)).numpy() for t in range(LENGTH)]
    assert expected.std() > 1e-4
    np.testing.assert_allclose(found, expected, atol=BATCHED)
    assert model.name == f"er_{native.name}"


def test_a_window_of_a_data_set_is_scored_or_refused_for_what_it_lacks(checkpoint):
    model, native = from_lerobot(checkpoint), rewards.load(checkpoint)
    episodes = [square_episode(70), square_episode(71)]
    if not native.card.markov:
        with pytest.raises(ConfigError, match="depends on all earlier frames"):
            model.compute_reward(pictures(episodes, 0, LENGTH))
        return
    expected = [native.score_episode(e).potential[LENGTH] for e in episodes]
    found = model.compute_reward(pictures(episodes, 0, LENGTH))
    np.testing.assert_allclose(found.numpy(), expected, atol=BATCHED)


def test_lerobot_writes_a_checkpoint_that_we_read(checkpoint, tmp_path):
    from_lerobot(checkpoint).save_pretrained(tmp_path)
    episode = square_episode(72)
    before, after = (rewards.load(f).score_episode(episode) for f in (checkpoint, tmp_path))
    np.testing.assert_array_equal(after.potential, before.potential)
