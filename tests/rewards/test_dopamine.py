import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.math.fusion import MODES
from embodied_reward.math.hops import hop_label
from embodied_reward.math.statistics import auc, spearman
from embodied_reward.rewards import DopamineConfig, DopamineModel, load
from embodied_reward.rewards.dopamine_loss import HopLoss, keep_views
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
    model.reference_tasks = trained.reference_tasks
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
    assert len(batch.pairs.hop) > 3 * len(batch.frames)


def test_batches_are_a_function_of_seed_and_step(demos):
    data = DopamineModel.create(small_config()).dataset(demos)
    one, two, other = data.batch(3, 7, 5), data.batch(3, 7, 5), data.batch(3, 7, 6)
    assert torch.equal(one.frames, two.frames)
    assert torch.equal(one.pairs.hop, two.pairs.hop)
    assert not torch.equal(one.pairs.hop, other.pairs.hop)


def test_batch_labels_point_at_the_right_frames(demos):
    """The label of a pair is the hop between the true progress of its two frames."""
    batch = DopamineModel.create(small_config(chunk=1)).dataset(demos).batch(2, 0, 0)
    column = (batch.frames[:, 0, :, :, 0] > 200).any(1).int().argmax(-1).numpy()  # left edge
    up = batch.pairs.hop.numpy() > 0.3
    before, after = batch.pairs.before.numpy()[up], batch.pairs.after.numpy()[up]
    assert (column[after] > column[before]).all()
    assert batch.success.sum() >= 2


def test_failed_episodes_are_success_negatives_and_bound_progress(demos):
    failed = square_episode(99, success=False)
    model = DopamineModel.create(small_config(failure_margin=0.2))
    data = model.dataset([*demos, failed])
    assert (len(data.positive), len(data.negative)) == (6, 1)
    batch, plain = data.batch(3, 0, 0), model.dataset(demos).batch(3, 0, 0)
    assert len(batch.frames) == len(plain.frames) + 24
    assert len(batch.pairs.hop) == len(plain.pairs.hop)
    assert len(plain.bounds.hop) == 0
    own = batch.part == 3
    assert batch.success[own].sum() == 0
    # Every failed frame is bounded against a start and a goal of a success.
    assert sorted(set(batch.bounds.hop.tolist())) == pytest.approx([-0.2, 0.8])
    assert own[batch.bounds.after].all()
    assert not own[batch.bounds.before].any()


def test_the_bound_pushes_failures_down_and_nothing_else(demos):
    model = DopamineModel.create(small_config(), task="squares").eval()
    batch = model.dataset([*demos, square_episode(99, success=False)]).batch(3, 0, 0)
    net = HopLoss(model.network, model.config, batch, model.training_features)
    embedding = net.network.fuse(net._encode())
    first = net._failures(embedding)
    assert first > 0
    model.network.hop_heads[0][-1].bias.data[:] = 0
    model.network.hop_heads[0][-1].bias.data[0] = 50.0  # every hop is -1: bounds hold
    assert net._failures(embedding) == 0


def other_task(index):
    """The same scene, mirrored in time: another task with other start and goal."""
    episode = square_episode(index)
    views = {v: np.ascontiguousarray(255 - f) for v, f in episode.views.items()}
    return dataclasses.replace(episode, views=views, task="another task")


def test_another_tasks_references_mean_no_progress(demos):
    model = DopamineModel.create(small_config(mismatch=0.5))
    data = model.dataset([*demos, *(other_task(i) for i in range(4))])
    assert data.tasks == ["another task", "push the square to the line"]
    batch = data.batch(4, 0, 0)
    task = np.array([0, 0, 1, 1])
    if batch.frames[0, 0].float().mean() < 128:
        task = 1 - task
    of_frame = task[batch.part.numpy()]
    pairs = batch.pairs
    wrong = of_frame[pairs.after] != of_frame[pairs.goal]
    assert 0.3 < wrong.mean() < 0.7
    assert set(pairs.hop.numpy()[wrong]) == {0.0, -1.0}
    # H(goal', s) = -1: the goal itself stands before.
    backward = wrong & (pairs.hop.numpy() == -1.0)
    assert (pairs.before.numpy()[backward] == pairs.goal.numpy()[backward]).all()
    assert (of_frame[pairs.start] == of_frame[pairs.goal]).all()
    judged = of_frame[batch.success_frame] != of_frame[batch.success_goal]
    assert judged.sum() > 10
    assert batch.success.numpy()[judged].sum() == 0


def test_a_model_of_several_tasks_reads_each_against_its_own_goals(demos):
    model = DopamineModel.create(small_config())
    data = model.dataset([*demos, *(other_task(i) for i in range(4))])
    model.set_references(data)
    model.eval()
    assert model.card.extra["tasks"] == data.tasks
    assert np.isfinite(model.score_episode(other_task(7)).potential).all()
    stranger = dataclasses.replace(square_episode(1), task="fold the towel")
    with pytest.raises(DatasetError, match=r"no goal pictures of 'fold the towel'; adapt it with"):
        model.score_episode(stranger)


def test_annotated_subtasks_get_equal_shares_of_progress(demos):
    keyframes = np.array([0, 6, 26])
    annotated = [dataclasses.replace(e, keyframes=keyframes) for e in demos]
    model = DopamineModel.create(small_config(chunk=2))
    states = model.dataset(annotated).positive[0].states
    # Six of 26 frames, yet about half of the progress.
    assert (states < 6).sum() / (len(states) - 1) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(DatasetError, match="has no sub-task annotation"):
        DopamineModel.create(small_config(subtasks="annotated")).dataset(demos)


def test_discovered_steps_follow_the_pictures():
    """The square waits, jumps, and waits again: two steps, one cut."""
    episode = square_episode(0)
    for frames in episode.views.values():
        frames[:20], frames[20:26] = frames[0].copy(), frames[20].copy()
    model = DopamineModel.create(small_config(subtasks="discovered", n_subtasks=2, chunk=1))
    states = model.dataset([episode]).positive[0].states
    assert 20 in states
    # Every frame of the short step is a state, and every second one of the long step.
    assert states[states >= 20].tolist() == list(range(20, 27))
    assert len(states[states < 20]) < 15


def test_only_failures_cannot_teach_progress():
    episodes = [square_episode(i, success=False) for i in range(3)]
    with pytest.raises(DatasetError, match="none of the 3 training episodes is successful"):
        DopamineModel.create(small_config()).dataset(episodes)


def test_a_missing_or_black_view_is_masked_and_no_view_is_an_error(trained):
    episode = square_episode(56)
    front = {"front": episode.views["front"][:1]}
    black = {**front, "side": np.zeros_like(front["front"])}
    flat = {**front, "side": np.full_like(front["front"], 128)}
    missing, *dead = (StreamScorer(trained, 1).start([0], f) for f in (front, black, flat))
    assert np.isfinite(missing.potential).all()
    for scores in dead:
        np.testing.assert_array_equal(scores.potential, missing.potential)
    with pytest.raises(DatasetError, match="needs the views front, side; the frames have top"):
        trained.encode({"top": episode.views["front"][:1]})


def test_without_any_working_camera_scores_are_nan_and_not_ok(trained):
    dark = {v: np.zeros((2, 32, 32, 3), np.uint8) for v in VIEWS}
    dark["front"][1] = square_episode(1).views["front"][0]
    scores = StreamScorer(trained, 2).start([0, 1], dark)
    assert scores.ok.tolist() == [False, True]
    assert np.isnan([scores.potential[0], scores.success[0], scores.uncertainty[0]]).all()
    assert np.isfinite([scores.potential[1], scores.success[1], scores.uncertainty[1]]).all()


def test_an_episode_is_read_from_the_views_it_has(trained):
    episode, whole = square_episode(57), square_episode(57)
    del episode.views["side"]
    scores = trained.score_episode(episode)
    assert np.isfinite(scores.potential).all()
    assert np.isnan(scores.per_view["side"]).all()
    np.testing.assert_allclose(
        scores.per_view["front"], trained.score_episode(whole).per_view["front"], atol=1e-6
    )
    del episode.views["front"]
    with pytest.raises(DatasetError, match=r"squares#57 has none of the views front, side"):
        trained.score_episode(episode)


def test_a_camera_that_dies_half_way_changes_nothing_before(trained):
    whole, dying = square_episode(58), square_episode(58)
    dying.views["side"][15:] = 0
    a, b = trained.score_episode(whole), trained.score_episode(dying)
    np.testing.assert_array_equal(a.potential[:15], b.potential[:15])
    assert np.isfinite(b.potential).all()
    assert np.isnan(b.per_view["side"][15:]).all()


def test_views_that_disagree_raise_the_uncertainty(trained):
    agreeing, split = square_episode(59), square_episode(59)
    split.views["side"][:] = split.views["side"][::-1].copy()
    a, b = trained.score_episode(agreeing), trained.score_episode(split)
    assert b.uncertainty[[0, -1]].mean() > 1.3 * a.uncertainty[[0, -1]].mean()


def test_view_dropout_keeps_one_view_and_drops_whole_episodes():
    part = torch.arange(400).repeat_interleave(10)
    keep = keep_views(part, 3, 0.3, torch.Generator().manual_seed(0))
    assert keep.any(1).all()
    assert (~keep).float().mean().item() == pytest.approx(0.3, abs=0.03)
    whole = (~keep.view(400, 10, 3)).all(1).float().mean().item()
    assert whole == pytest.approx(1 - 0.7**0.5, abs=0.03)
    assert keep_views(part, 3, 0.0, torch.Generator().manual_seed(0)).all()


def test_heads_see_different_demonstrations_and_their_spread_is_in_the_uncertainty(demos):
    torch.manual_seed(0)
    model = DopamineModel.create(small_config(heads=3))
    data = model.dataset(demos)
    model.set_references(data)
    weight = data.batch(4, 0, 0).pairs.weight
    assert weight.shape[0] == 3
    assert not torch.equal(weight[0], weight[1])
    loss, _ = model.loss(data.batch(4, 0, 0))
    loss.backward()
    model.eval()
    episode = square_episode(3)
    together = model.score_episode(episode).uncertainty.mean()
    for head in model.network.hop_heads[1:]:
        head.load_state_dict(model.network.hop_heads[0].state_dict())
    assert model.score_episode(episode).uncertainty.mean() < together


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


def test_exchanged_references_reverse_the_labels(demos):
    """With every pair reversed, what goes right to the line counts as going back."""
    plain = DopamineModel.create(small_config(chunk=1)).dataset(demos).batch(2, 0, 0)
    back = DopamineModel.create(small_config(chunk=1, reverse=1.0)).dataset(demos).batch(2, 0, 0)
    column = (back.frames[:, 0, :, :, 0] > 200).any(1).int().argmax(-1).numpy()
    pairs = back.pairs
    assert (column[pairs.start] > column[pairs.goal]).all()
    up = pairs.hop.numpy() > 0.3
    assert (column[pairs.after[up]] <= column[pairs.before[up]]).all()
    assert (column[pairs.after[up]] < column[pairs.before[up]]).mean() > 0.9
    assert torch.equal(plain.pairs.before, pairs.before)


def test_an_episode_solved_from_the_start_is_no_failure(demos):
    solved = dataclasses.replace(square_episode(9), success_frames=np.ones(30, bool))
    data = DopamineModel.create(small_config()).dataset([*demos, solved])
    assert (len(data.positive), len(data.negative)) == (6, 0)


def test_shared_parts_of_pairs_are_read_as_pairs_of_their_own():
    torch.manual_seed(0)
    net = DopamineModel.create(small_config(heads=2)).network
    before, after = torch.randn(2, 7, 32)
    start, goal = torch.randn(2, 3, 32)
    with torch.no_grad():
        got = net.hop_of_each(before[None], after[None], start[:, None], goal[:, None])
        pairs = (before.repeat(3, 1), after.repeat(3, 1))
        each = (start.repeat_interleave(7, 0), goal.repeat_interleave(7, 0))
        torch.testing.assert_close(got.flatten(1, 2), net.hop(*pairs, *each), atol=1e-5, rtol=1e-5)
