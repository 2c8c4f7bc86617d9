"""Maps of reward models: per camera, before clipping, blind cameras, randomised weights."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import ConfigError
from embodied_reward.rewards import EnsembleConfig, SuccessConfig
from embodied_reward.rewards.ensemble import EnsembleModel
from embodied_reward.rewards.saliency import explain_episode, randomised
from embodied_reward.rewards.success import SuccessModel
from embodied_reward.rewards.visual import VisualModel
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.vision.encoders import EncoderConfig
from embodied_reward.vision.saliency import SaliencyOptions
from tests.rewards import preferred
from tests.rewards.conftest import VIEWS, square_episode
from tests.rewards.methods import (
    CONFIGS,
    fit,
    squares,
    tiny,
    trained_on_squares,
    untrained,
)

METHODS = ("normgrad", "lrp")


def squares_of(episode, view):
    """Where the moving square is, Bool["t h w"]."""
    frames = np.asarray(episode.views[view]).astype(int)
    colour = {"front": (250, 90, 0), "side": (0, 180, 250)}[view]
    return (frames == colour).all(-1)


def focus(maps, mask):
    """How many times its share of the area a mask has of the saliency."""
    return maps.values[maps.ok][mask[maps.ok]].sum() / maps.ok.sum() / mask[maps.ok].mean()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["dopamine", *CONFIGS])
@pytest.mark.slow
def test_a_trained_model_looks_at_what_moves(kind, method, trained):
    model = trained if kind == "dopamine" else trained_on_squares(kind)
    episode = square_episode(40)
    maps = explain_episode(model, episode, SaliencyOptions(method))
    assert set(maps) == set(VIEWS)
    for view in VIEWS:
        assert maps[view].values.shape == (30, 32, 32)
        assert maps[view].ok.mean() > 0.9
    best = max(focus(maps[view], squares_of(episode, view)) for view in VIEWS)
    fresh = explain_episode(randomised(model, 3), episode, SaliencyOptions(method))
    alone = max(focus(fresh[view], squares_of(episode, view)) for view in VIEWS)
    assert best > 2
    assert best > alone


@pytest.mark.parametrize("kind", ["rapl", "rlhf"])
def test_models_of_preferences_look_at_what_moves(kind):
    model, episode = preferred.trained(kind), preferred.moving_square(70)
    model.score_episode(episode)  # leaves references that were embedded in inference mode
    maps = explain_episode(model, episode, SaliencyOptions("lrp"))
    assert all(maps[view].ok.all() for view in VIEWS)
    assert max(focus(maps[view], squares_of(episode, view)) for view in VIEWS) > 2
    model.score_episode(episode)


def test_explaining_changes_neither_the_scores_nor_the_weights(trained):
    episode = square_episode(41)
    before = trained.score_episode(episode)
    explain_episode(trained, episode)
    randomised(trained, 0)
    after = trained.score_episode(episode)
    np.testing.assert_array_equal(before.potential, after.potential)
    assert not any(p.grad is not None and p.grad.isnan().any() for p in trained.parameters())


def test_a_clipped_potential_has_a_map_too():
    model, episode = copy.deepcopy(trained_on_squares("remaining_time")), square_episode(42)
    model.horizon = model.horizon * 0.2
    clipped = model.score_episode(episode).potential == 0
    assert clipped.sum() > 5
    assert explain_episode(model, episode)["front"].ok[clipped].all()


def test_a_black_camera_has_no_map_and_leaves_the_other_its_own(trained):
    episode = square_episode(43)
    views = {**episode.views, "side": np.zeros_like(episode.views["side"])}
    maps = explain_episode(trained, dataclasses.replace(episode, views=views))
    assert not maps["side"].ok.any()
    assert np.isnan(maps["side"].values).all()
    assert maps["front"].ok.all()
    dark = {view: np.zeros_like(frames) for view, frames in episode.views.items()}
    none = explain_episode(trained, dataclasses.replace(episode, views=dark))
    assert not any(none[view].ok.any() for view in VIEWS)


def test_one_dark_moment_spoils_no_other(trained):
    episode = square_episode(44)
    views = {view: np.array(frames) for view, frames in episode.views.items()}
    for frames in views.values():
        frames[7] = 0
    maps = explain_episode(trained, dataclasses.replace(episode, views=views))
    whole = explain_episode(trained, episode)
    keep = np.arange(30) != 7
    assert not maps["front"].ok[7]
    np.testing.assert_allclose(
        maps["front"].values[keep], whole["front"].values[keep], rtol=1e-3, atol=1e-7
    )


def test_a_model_that_ignores_its_pictures_has_no_map():
    model = untrained(tiny("remaining_time"))
    torch.nn.init.zeros_(model.head[-1].weight)
    maps = explain_episode(model.eval(), square_episode(45))
    assert not any(maps[view].ok.any() for view in VIEWS)


def test_fresh_weights_are_reproducible_and_other(trained):
    one, two, three = (randomised(trained, seed) for seed in (1, 1, 2))
    states = [torch.cat([p.flatten() for p in m.parameters()]) for m in (one, two, three)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    episode = square_episode(46)
    maps = [explain_episode(m, episode)["front"].values.ravel() for m in (trained, one)]
    seen = ~np.isnan(maps[0]) & ~np.isnan(maps[1])
    assert np.corrcoef(maps[0][seen], maps[1][seen])[0, 1] < 0.9


def test_a_detector_and_an_ensemble_have_maps():
    encoder = EncoderConfig(image_size=32)
    torch.manual_seed(0)
    detector = SuccessModel.create(SuccessConfig(views=VIEWS, encoder=encoder, dim=32)).eval()
    assert explain_episode(detector, square_episode(47))["side"].ok.all()
    config = EnsembleConfig(views=VIEWS, count=2, member=tiny("remaining_time"))
    ensemble = EnsembleModel.create(config).eval()
    maps = explain_episode(ensemble, square_episode(47))
    members = [explain_episode(m, square_episode(47)) for m in ensemble.members]
    mean = (members[0]["front"].values + members[1]["front"].values) / 2
    np.testing.assert_allclose(maps["front"].values, mean)


def test_a_method_without_a_level_says_so(trained, monkeypatch):
    monkeypatch.setattr(type(trained), "level", VisualModel.level)
    with pytest.raises(ConfigError, match="'dopamine' does not say what"):
        explain_episode(trained, square_episode(48))


def test_methods_that_do_not_fit_say_so(trained):
    with pytest.raises(ConfigError, match="for vision transformers"):
        explain_episode(trained, square_episode(48), SaliencyOptions("attention"))
    with pytest.raises(ConfigError, match=r"no layer 'body\.7x'; it has body"):
        explain_episode(trained, square_episode(48), SaliencyOptions(layers=("body.7x",)))


def test_a_model_on_a_shared_core_has_maps_and_fresh_copies():
    model, episode = untrained(tiny("remaining_time")).eval(), square_episode(49)
    alone = explain_episode(model, episode)["front"].values
    with ScoringCore(cache=FeatureCache()) as core:
        model.use(core)
        model.score_episode(episode)
        np.testing.assert_allclose(explain_episode(model, episode)["front"].values, alone)
        assert explain_episode(randomised(model, 0), episode)["front"].ok.all()


@pytest.mark.slow
def test_a_trained_transformer_looks_at_what_moves(tmp_path):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = ViTConfig(**sizes, intermediate_size=64, image_size=32, patch_size=4)
    ViTModel(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    encoder = EncoderConfig(name=str(tmp_path), freeze=False)
    model = fit(untrained(tiny("remaining_time", encoder=encoder)), squares(), steps=150)
    episode, options = square_episode(50), SaliencyOptions("attention")
    maps = explain_episode(model, episode, options)
    fresh = explain_episode(randomised(model, 1), episode, options)
    best = max(focus(maps[view], squares_of(episode, view)) for view in VIEWS)
    alone = max(focus(fresh[view], squares_of(episode, view)) for view in VIEWS)
    assert best > 1.5 * alone
