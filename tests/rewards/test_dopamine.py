import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.math.fusion import MODES
from embodied_reward.math.hops import hop_label
from embodied_reward.math.statistics import auc, spearman
from embodied_reward.rewards import DopamineConfig, DopamineModel, load
from embodied_reward.scoring.stream import StreamScorer
from tests.rewards.conftest import VIEWS, small_config, square_episode


def test_progress_of_unseen_successes_and_of_regress(trained):
    for episode in (square_episode(50), square_episode(51, back=True)):
        scores = trained.score_episode(episode)
        for mode in MODES:
            assert spearman(scores.modes[mode], episode.progress) > 0.9, mode
        constant = np.abs(episode.progress - episode.progress.mean()).mean()
        assert np.abs(scores.potential - episode.progress).mean() < 0.6 * constant


def test_failures_end_lower_and_look_less_successful(trained):
    good = [trained.score_episode(square_episode(60 + i)) for i in range(4)]
    bad = [trained.score_episode(square_episode(70 + i, success=False)) for i in range(4)]
    label = [1] * 4 + [0] * 4
    assert auc([s.potential[-1] for s in good + bad], label) == 1.0
    assert auc([s.success[-1] for s in good + bad], label) > 0.9


def test_hops_have_the_right_sign_and_size(trained):
    episode = square_episode(52)
    before, after = np.array([0, 0, 20, 13]), np.array([13, 26, 5, 13])
    predicted = trained.hops(episode, before, after)
    expected = hop_label(episode.progress[before], episode.progress[after])
    np.testing.assert_allclose(predicted, expected, atol=0.25)


def test_outputs_stay_in_range_and_repeat_exactly(trained):
    noise = square_episode(53)
    rng = np.random.default_rng(0)
    for view in VIEWS:
        noise.views[view][:] = rng.integers(0, 256, noise.views[view].shape, np.uint8)
    one, two = trained.score_episode(noise), trained.score_episode(noise)
    for values in (one.potential, one.success, *one.modes.values(), *one.per_view.values()):
        assert ((values >= 0) & (values <= 1)).all()
    np.testing.assert_array_equal(one.potential, two.potential)
    assert set(one.per_view) == set(VIEWS)
    assert (one.uncertainty >= 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_streaming_gives_the_episode_scores_and_rows_restart_alone(trained, mode):
    config = small_config(inference=mode)
    model = DopamineModel(config, trained.network)
    model.reference_start, model.reference_goal = trained.reference_start, trained.reference_goal
    model.eval()
    a, b = square_episode(54), square_episode(55, length=20)

    def frames(*at):
        return {v: np.stack([e.views[v][t] for e, t in at]) for v in VIEWS}

    scorer = StreamScorer(model, 2)
    rows = {"a": [], "b": []}
    first = scorer.start([0, 1], frames((a, 0), (b, 0)))
    rows["a"].append(first.potential[0])
    rows["b"].append(first.potential[1])
    for t in range(1, 30):
        if t == 20:
            scorer.step(frames((a, t), (b, 19)))
            rows["a"].append(np.nan)
            rows["b"] = [scorer.start([1], frames((b, 0))).potential[0]]
        else:
            scores = scorer.step(frames((a, t), (b, t % 20)))
            rows["a"].append(scores.potential[0])
            rows["b"].append(scores.potential[1])
    expected = model.score_episode(a).modes[mode]
    seen = np.isfinite(rows["a"])
    np.testing.assert_allclose(np.array(rows["a"])[seen], expected[seen], atol=1e-5)
    np.testing.assert_allclose(rows["b"], model.score_episode(b).modes[mode][:10], atol=1e-5)


def test_only_the_modes_without_recursion_are_markov(trained):
    assert trained.card.markov
    assert not DopamineModel(small_config(inference="mean"), trained.network).card.markov


def test_one_encoding_per_frame_serves_all_pairs(demos):
    model = DopamineModel.create(small_config())
    batch = model.dataset(demos).batch(3, 0, 0)
    seen = []
    model.network.encoder.register_forward_hook(lambda _m, inputs, _o: seen.append(len(inputs[0])))
    model.loss(batch)
    assert seen == [2 * len(batch.frames)]
    assert len(batch.hop) > 3 * len(batch.frames)


def test_batches_are_a_function_of_seed_and_step(demos):
    data = DopamineModel.create(small_config()).dataset(demos)
    one, two, other = data.batch(3, 7, 5), data.batch(3, 7, 5), data.batch(3, 7, 6)
    assert torch.equal(one.frames, two.frames)
    assert torch.equal(one.hop, two.hop)
    assert not torch.equal(one.hop, other.hop)


def test_batch_labels_point_at_the_right_frames(demos):
    """The label of a pair is the hop between the true progress of its two frames."""
    batch = DopamineModel.create(small_config(chunk=1)).dataset(demos).batch(2, 0, 0)
    column = (batch.frames[:, 0, :, :, 0] > 200).any(1).int().argmax(-1).numpy()  # left edge
    up = batch.hop.numpy() > 0.3
    before, after = batch.before.numpy()[up], batch.after.numpy()[up]
    assert (column[after] > column[before]).all()
    assert batch.success.sum() >= 2


def test_failed_episodes_are_negatives_only(demos):
    failed = square_episode(99, success=False)
    model = DopamineModel.create(small_config())
    data = model.dataset([*demos, failed])
    assert (len(data.positive), len(data.negative)) == (6, 1)
    batch, plain = data.batch(3, 0, 0), model.dataset(demos).batch(3, 0, 0)
    assert len(batch.frames) == len(plain.frames) + 24
    assert len(batch.hop) == len(plain.hop)
    assert batch.success[-24:].sum() == 0


def test_only_failures_cannot_teach_progress():
    episodes = [square_episode(i, success=False) for i in range(3)]
    with pytest.raises(DatasetError, match="none of the 3 training episodes is successful"):
        DopamineModel.create(small_config()).dataset(episodes)


def test_a_missing_view_is_masked_and_no_view_is_an_error(trained):
    episode = square_episode(56)
    scorer = StreamScorer(trained, 1)
    scores = scorer.start([0], {"front": episode.views["front"][:1]})
    assert np.isfinite(scores.potential).all()
    with pytest.raises(DatasetError, match="needs the views front, side; the frames have top"):
        trained.encode({"top": episode.views["front"][:1]})


def test_an_episode_without_the_view_names_what_it_has(trained):
    episode = square_episode(57)
    del episode.views["side"]
    with pytest.raises(DatasetError, match=r"squares#57 has no view 'side'; it has front"):
        trained.score_episode(episode)


def test_round_trip_through_a_folder(trained, tmp_path):
    trained.save(tmp_path)
    again = load(tmp_path)
    episode = square_episode(58)
    want, got = trained.score_episode(episode), again.score_episode(episode)
    np.testing.assert_array_equal(got.potential, want.potential)
    np.testing.assert_array_equal(got.success, want.success)
    assert again.card.views == VIEWS
    assert again.card.weights_sha256


def test_altered_weights_are_refused(trained, tmp_path):
    trained.save(tmp_path)
    file = tmp_path / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"has sha256 .*its config.json expects"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        load(tmp_path)


def test_unknown_type_and_empty_folder(trained, tmp_path):
    with pytest.raises(CheckpointError, match="no reward model at"):
        load(tmp_path)
    trained.save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace('"type": "dopamine"', '"type": "dopamin"', 1))
    with pytest.raises(CheckpointError, match="did you mean 'dopamine'"):
        load(tmp_path)


def test_unknown_inference_mode():
    with pytest.raises(ConfigError, match="did you mean 'backward'"):
        DopamineConfig(inference="backwards")


def test_a_model_on_a_transformers_encoder_trains_and_reloads(demos, tmp_path):
    from transformers import ViTConfig, ViTModel

    from embodied_reward.vision.encoders import EncoderConfig

    source = tmp_path / "vit"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(source)
    (source / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "image_mean": [0.5, 0.5, 0.5], '
        '"image_std": [0.5, 0.5, 0.5]}'
    )
    config = DopamineConfig(
        views=VIEWS, encoder=EncoderConfig(name=str(source)), dim=32, hidden=32, pairs=60
    )
    model = DopamineModel.create(config)
    data = model.dataset(demos)
    model.set_references(data)
    loss, _ = model.loss(data.batch(2, 0, 0))
    loss.backward()
    assert all(p.grad is None for p in model.network.encoder.parameters())
    model.eval().save(tmp_path / "out")
    source.rename(tmp_path / "gone")
    episode = square_episode(3)
    np.testing.assert_array_equal(
        load(tmp_path / "out").score_episode(episode).potential,
        model.score_episode(episode).potential,
    )
