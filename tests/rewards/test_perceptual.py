"""Rewards of discovered steps through the model: notes of B.7 on rendered scenes."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers import (
    ConvNextConfig,
    ConvNextModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.rewards import (
    EnsembleConfig,
    EnsembleModel,
    PerceptualConfig,
    PerceptualModel,
    load,
)
from embodied_reward.scoring import ScoringCore
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.types import Episode
from embodied_reward.vision.encoders import EncoderConfig
from tests.rewards.conftest import VIEWS

COLOURS = [(250, 80, 0), (0, 90, 250), (0, 220, 60), (230, 0, 200)]
PLACES = [(4, 4), (18, 6), (8, 20), (20, 20)]


def staged(seed, steps=(0, 1, 2), length=None, **fields):
    """A scene with one look per step, moving a little, of random durations, from two sides."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(8, 18, len(steps)) if length is None else np.full(len(steps), length)
    stage = np.repeat(steps, lengths)
    t = len(stage)
    views = {view: rng.integers(30, 60, (t, 32, 32, 3)).astype(np.uint8) for view in VIEWS}
    for k, step in enumerate(stage):
        x, y = np.array(PLACES[step]) + rng.integers(-1, 2, 2)
        views["front"][k, y : y + 8, x : x + 8] = COLOURS[step]
        views["side"][k, x : x + 8, 4:14] = COLOURS[step]
    episode = Episode(
        views=views,
        action=np.zeros((t, 2), np.float32),
        fps=10.0,
        task="stack",
        index=seed,
        source=f"stages#{seed}",
        length=t,
        success=fields.pop("success", True),
        **fields,
    )
    return episode, stage


def config(**fields):
    encoder = EncoderConfig(image_size=32)
    return PerceptualConfig(views=VIEWS, **{"encoder": encoder, **fields})


def fitted(episodes=None, *, seed=0, **fields):
    torch.manual_seed(seed)
    model = PerceptualModel.create(config(**fields), task="stack")
    episodes = [staged(s)[0] for s in range(5)] if episodes is None else episodes
    model.fit(episodes, progress=lambda done, total: None)
    return model


@pytest.fixture(scope="module")
def model():
    return fitted()


def overlap(found, true):
    return np.mean([((found == g) & (true == g)).sum() / ((found == g) | (true == g)).sum()
                    for g in range(true.max() + 1)])  # fmt: skip


def labels(bounds):
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


@pytest.mark.parametrize("looks", [(0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_the_number_of_steps_and_the_steps_are_found(looks):
    pairs = [staged(s, looks) for s in range(5)]
    found = fitted([episode for episode, _ in pairs])
    assert found.steps == len(looks)
    shares = [overlap(labels(found.cuts[e.source]), stage) for e, stage in pairs]
    assert np.mean(shares) >= 0.95


def test_steps_are_told_apart_on_held_out_frames(model):
    hits = [
        model.step_rewards(episode).argmax(1) == stage
        for episode, stage in (staged(s) for s in range(100, 106))
    ]
    assert np.mean(np.concatenate(hits)) >= 0.9


def test_the_potential_rises_along_a_clean_demo_and_a_missed_last_step_stays_below(model):
    last, order = [], []
    for seed in range(100, 106):
        episode, stage = staged(seed)
        potential = model.score_episode(episode).potential
        assert ((potential >= 0) & (potential <= 1)).all()
        i, j = np.nonzero(stage[:, None] < stage[None, :])
        order.append(np.sign(potential[j] - potential[i]).mean())  # Kendall over steps
        last.append(potential[stage == 2].mean())
    assert np.mean(order) >= 0.9
    for seed in range(100, 106):
        missed = staged(seed, (0, 1, 1))[0]
        assert model.score_episode(missed).potential.max() < min(last)


def test_a_strange_frame_is_uncertain_and_success_is_never_made_up(model):
    episode, _ = staged(100)
    views = {v: np.random.default_rng(0).integers(0, 256, f.shape).astype(np.uint8)
             for v, f in episode.views.items()}  # fmt: skip
    noise = dataclasses.replace(episode, views=views)
    known, strange = model.score_episode(episode), model.score_episode(noise)
    assert strange.uncertainty.mean() > 2 * known.uncertainty.mean()
    assert strange.uncertainty.max() <= 0.58
    assert np.isnan(known.success).all()
    assert model.card.extra["success"] is False


def test_a_covered_camera_is_left_out_and_without_any_there_is_no_number(model):
    episode, stage = staged(101)
    views = {v: f.copy() for v, f in episode.views.items()}
    views["front"][:] = 0
    views["side"][:3] = 0
    scores = model.score_episode(dataclasses.replace(episode, views=views))
    assert np.isnan(scores.potential[:3]).all()
    assert np.isnan(scores.uncertainty[:3]).all()
    assert np.isfinite(scores.potential[3:]).all()
    assert np.isnan(scores.per_view["front"]).all()
    np.testing.assert_allclose(scores.potential, scores.per_view["side"])
    whole = model.score_episode(episode)
    assert set(whole.per_view) == set(VIEWS)
    with pytest.raises(DatasetError, match="none of the views"):
        model.score_episode(dataclasses.replace(episode, views={"top": views["side"]}))


def test_a_camera_that_fails_in_one_demonstration_does_not_spoil_the_fit():
    episodes = [staged(s)[0] for s in range(4)]
    episodes[0].views["front"][:] = 0
    episodes[1].views["side"][2:5] = 0
    found = fitted(episodes, steps=3)
    episode, stage = staged(100)
    assert np.mean(found.step_rewards(episode).argmax(1) == stage) >= 0.9
    assert overlap(labels(found.cuts[episodes[0].source]), staged(0)[1]) >= 0.9


def test_a_camera_that_never_works_does_not_count():
    episodes = [staged(s)[0] for s in range(3)]
    for episode in episodes:
        episode.views["front"][:] = 0
    found = fitted(episodes, steps=3)
    scores = found.score_episode(staged(100)[0])
    assert np.isnan(scores.per_view["front"]).all()
    np.testing.assert_allclose(scores.potential, scores.per_view["side"])


def test_one_demonstration_is_enough():
    found = fitted([staged(0)[0]])
    assert found.steps == 3
    episode, stage = staged(100)
    assert np.mean(found.step_rewards(episode).argmax(1) == stage) >= 0.8


def test_long_demonstrations_are_thinned_and_cut_at_the_right_rows():
    episode, stage = staged(0, length=90)
    found = fitted([episode, staged(1)[0]], steps=3, frames=60)
    assert overlap(labels(found.cuts[episode.source]), stage) >= 0.95


def test_streaming_through_a_shared_core_gives_the_episode_scores(model):
    a, b = staged(102)[0], staged(103)[0]
    with ScoringCore() as core:
        model.use(core)
        try:
            scorer = StreamScorer(model, 2)

            def frames(t):
                return {v: np.stack([e.views[v][t] for e in (a, b)]) for v in VIEWS}

            got = [scorer.start([0, 1], frames(0)), *(scorer.step(frames(t)) for t in range(1, 6))]
        finally:
            model.use(None)
    for row, episode in enumerate((a, b)):
        want = model.score_episode(episode).potential[:6]
        np.testing.assert_allclose([s.potential[row] for s in got], want, atol=1e-5)


def test_a_saved_model_scores_alike_and_damage_is_noticed(model, tmp_path):
    model.save(tmp_path)
    again, episode = load(tmp_path), staged(104)[0]
    assert again.steps == 3
    assert again.card.weights_sha256
    want, got = model.score_episode(episode), again.score_episode(episode)
    np.testing.assert_array_equal(got.potential, want.potential)
    np.testing.assert_array_equal(got.uncertainty, want.uncertainty)
    # Fitted again from scratch, it is the same; what was fitted before leaves no trace.
    again.fit([staged(s)[0] for s in range(5)], progress=lambda done, total: None)
    np.testing.assert_array_equal(again.score_episode(episode).potential, want.potential)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + b"ruin")
    with pytest.raises(CheckpointError, match="altered"):
        load(tmp_path)


def test_seeds_decide_and_nothing_else(model):
    episode = staged(105)[0]
    same, other = fitted(), fitted(seed=1)
    want = model.score_episode(episode).potential
    np.testing.assert_array_equal(same.score_episode(episode).potential, want)
    assert not np.array_equal(other.score_episode(episode).potential, want)


def vision_model(kind, folder):
    torch.manual_seed(0)
    if kind == "vit":
        shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        made = ViTModel(ViTConfig(**shape, intermediate_size=32, image_size=32, patch_size=8))
    elif kind == "resnet":
        made = ResNetModel(
            ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
        )
    else:
        made = ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2))
    made.save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["vit", "resnet", "convnext"])
def test_every_depth_of_a_transformers_model_is_read(kind, tmp_path):
    encoder = EncoderConfig(name=vision_model(kind, tmp_path / "net"), image_size=32)
    found = fitted(encoder=encoder, steps=3)
    depths = found.network.encoder.base.depths(torch.rand(2, 3, 32, 32))
    assert len(depths) == 3
    assert all(d.ndim == 4 for d in depths)
    found.save(tmp_path / "reward")
    episode, stage = staged(100)
    again = load(tmp_path / "reward")
    assert np.mean(again.step_rewards(episode).argmax(1) == stage) >= 0.9


def test_the_encoder_of_another_reward_model_is_taken_over(model, tmp_path):
    model.save(tmp_path / "old")
    found = fitted(seed=9, encoder=EncoderConfig(name=str(tmp_path / "old")))
    mine, theirs = (m.network.encoder.base.state_dict() for m in (found, model))
    assert all(torch.equal(mine[k], theirs[k]) for k in theirs)


def test_what_cannot_be_fitted_is_said_and_changes_nothing(model):
    before = {k: v.clone() for k, v in model.state_dict().items()}

    def refused(*episodes):
        with pytest.raises(DatasetError) as caught:
            model.fit(list(episodes), progress=lambda done, total: None)
        return str(caught.value)

    assert "stages#7 has 1 frame, too few for 2 steps" in refused(staged(7, (0,), length=1)[0])
    assert "none of the 1 training episodes" in refused(staged(8, success=False)[0])
    blind = staged(9)[0]
    for frames in blind.views.values():
        frames[:] = 0
    assert "no view of front, side shows every step" in refused(blind)
    after = model.state_dict()
    assert all(
        torch.equal(
            after[k],
            before[k],
        )
        for k in before
    )
    with pytest.raises(DatasetError, match="has 2 frames, too few for 4 steps"):
        fitted([staged(7, (0, 1), length=1)[0]], steps=4)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"steps": 1}, "two steps at least"),
        ({"objective": "papr"}, "did you mean 'paper'"),
        ({"least_spread": 0.0}, "least_spread"),
        ({"grid": 0}, "grid=0"),
    ],
)
def test_settings_that_cannot_be_used(fields, text):
    with pytest.raises(ConfigError, match=text):
        config(**fields)


def test_an_unfitted_model_and_an_ensemble_of_fitted_ones_are_refused():
    torch.manual_seed(0)
    with pytest.raises(ConfigError, match="never fitted"):
        PerceptualModel.create(config()).score_episode(staged(0)[0])
    with pytest.raises(ConfigError, match="gradient"):
        EnsembleModel.create(EnsembleConfig(views=VIEWS, member=config()))


def test_what_a_saliency_map_explains_has_gradients_and_the_potentials_order(model):
    episode, _ = staged(100)
    features = model.episode_features(episode).clone().requires_grad_()
    level = model.level(features, features[:1])
    level.sum().backward()
    assert features.grad.abs().sum() > 0
    want = model.score_episode(episode).potential * float(model.top)
    below = want < float(model.top) * 0.999
    np.testing.assert_allclose(level.detach().numpy()[below], want[below], atol=1e-5)
