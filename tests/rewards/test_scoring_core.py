"""Every method gives the same scores through a scoring core as without, and never stale ones."""

import json

import numpy as np
import pytest
import torch

from embodied_reward.rewards import DopamineModel, EnsembleConfig, EnsembleModel, SuccessModel, load
from embodied_reward.rewards.success_config import SuccessConfig
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS, small_config, square_episode
from tests.rewards.methods import CONFIGS, squares, tiny, untrained

METHODS = ("dopamine", "success", "ensemble", *CONFIGS)


def make(method, encoder=None, seed=0):
    """An untrained model with references, which is all that scoring needs."""
    encoder = encoder or EncoderConfig(image_size=32)
    torch.manual_seed(seed)
    if method == "dopamine":
        model = DopamineModel.create(small_config(encoder=encoder), task="squares")
    elif method == "success":
        model = SuccessModel.create(SuccessConfig(views=VIEWS, encoder=encoder, dim=32, hidden=32))
    elif method == "ensemble":
        member = small_config(encoder=encoder)
        model = EnsembleModel.create(EnsembleConfig(views=VIEWS, member=member, count=2))
    else:
        model = untrained(tiny(method, encoder=encoder), seed=seed)
    model.set_references(model.dataset(squares()))
    return model.eval()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A tiny random vision transformer on disk, frozen where it is used."""
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(folder)
    statistics = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    text = json.dumps({"image_processor_type": "ViTImageProcessor", **statistics})
    (folder / "preprocessor_config.json").write_text(text)
    return EncoderConfig(name=str(folder))


@pytest.fixture
def core():
    with ScoringCore(cache=FeatureCache()) as core:
        yield core


def same(a, b):
    for name in ("potential", "success", "uncertainty"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-5, err_msg=name)


def encoded(core):
    return core.stats().get("trunk_images", 0)


@pytest.mark.parametrize("method", METHODS)
def test_scores_with_and_without_a_core_are_equal(method, core):
    model, episode = make(method), square_episode(3)
    episode.views["side"][20:] = 0
    alone = model.score_episode(episode)
    model.use(core)
    model.train().eval()  # forget what was read off references without the core
    same(model.score_episode(episode), alone)
    count = encoded(core)
    assert count > 0
    same(model.score_episode(episode), alone)
    assert encoded(core) == count
    model.use(None)
    same(model.score_episode(episode), alone)
    assert encoded(core) == count


@pytest.mark.parametrize("method", METHODS)
def test_streams_with_and_without_a_core_are_equal_also_when_prefetched(method, core):
    a, b = square_episode(4), square_episode(5)

    def frames(t, *episodes):
        return {v: np.stack([e.views[v][t] for e in episodes]) for v in VIEWS}

    def play(scorer, *, prefetch=False):
        found = [scorer.start([0, 1], frames(0, a, b))]
        for t in range(1, 6):
            for episode in (b, a) if prefetch else ():
                scorer.prefetch(frames(t, episode))
            found.append(scorer.step(frames(t, a, b)))
        return found

    model = make(method)
    plain = play(StreamScorer(model, 2))
    model.use(core)
    for one, other in zip(play(StreamScorer(model, 2)), plain, strict=True):
        same(one, other)
    model.train().eval()
    for one, other in zip(play(StreamScorer(model, 2), prefetch=True), plain, strict=True):
        same(one, other)


def test_masked_cameras_are_not_encoded(core):
    model, episode = make("dopamine"), square_episode(6)
    model.use(core)
    episode.views["side"][:] = 0
    before = encoded(core)
    model.encode({v: episode.views[v] for v in VIEWS})
    pictures = {f.tobytes() for f in episode.views["front"]}
    assert encoded(core) - before == len(pictures)


def test_models_of_one_encoder_share_its_features(core, vit):
    first, second = make("dopamine", vit), make("tcc", vit, seed=9)
    episode = square_episode(7)
    assert first.trunk.lane == second.trunk.lane
    first.use(core)
    first.score_episode(episode)
    count = encoded(core)
    second.use(core)
    second.encode({v: episode.views[v] for v in VIEWS})
    assert encoded(core) == count


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.network.encoder.head[0].weight.data.mul_(2.0),  # behind autograd's back
        lambda m: torch.nn.init.ones_(m.network.encoder.head[0].weight),
        lambda m: m.load_state_dict(make("dopamine", seed=8).state_dict()),
        lambda m: m.double().float().network.encoder.body[0].weight.data.neg_(),
    ],
    ids=["data", "in place", "load_state_dict", "moved"],
)
def test_no_score_is_stale_after_the_weights_changed(core, change):
    model, episode = make("dopamine"), square_episode(8)
    model.use(core)
    old, digest = model.score_episode(episode), model.trunk.digest
    model.train()
    change(model)
    model.eval()
    new = model.score_episode(episode)
    assert model.trunk.digest != digest
    assert not np.allclose(new.potential, old.potential, atol=1e-6)
    model.use(None)
    model.train().eval()
    same(model.score_episode(episode), new)


def test_a_copy_of_earlier_weights_is_not_answered_by_the_trained_encoder(core, tmp_path):
    """The core knows the old digest by an encoder that was trained on since."""
    model, episode = make("dopamine"), square_episode(9)
    model.save(tmp_path)
    expected = load(tmp_path).score_episode(episode)
    model.use(core)
    model.score_episode(square_episode(10))  # the core has met this encoder
    model.train()
    torch.nn.init.normal_(model.network.encoder.head[0].weight)
    model.eval()
    again = load(tmp_path)
    again.use(core)
    same(again.score_episode(episode), expected)


def test_training_on_a_frozen_encoder_encodes_every_picture_once(core, vit):
    model, episodes = make("dopamine", vit), squares()
    data = model.dataset(episodes)

    def losses():
        model.train()
        return [model.loss(data.batch(3, 0, step))[0].item() for step in range(6)]

    plain = losses()
    assert model.frozen
    model.use(core)
    np.testing.assert_allclose(losses(), plain, atol=1e-5)
    pictures = {f.tobytes() for e in episodes for v in VIEWS for f in e.views[v]}
    assert 0 < encoded(core) <= len(pictures)
    count = encoded(core)
    losses()
    assert encoded(core) == count


def test_features_on_disk_serve_the_next_run_and_another_method(vit, tmp_path):
    episode = square_episode(11)
    for method, expected in (("dopamine", True), ("dopamine", False), ("tcc", False)):
        with ScoringCore(cache=FeatureCache(folder=tmp_path)) as core:
            model = make(method, vit)
            model.use(core)
            model.encode({v: episode.views[v] for v in VIEWS})
            assert (encoded(core) > 0) == expected
