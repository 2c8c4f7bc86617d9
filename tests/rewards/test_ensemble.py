import functools

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError, DatasetError
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards import DopamineModel, EnsembleConfig, load
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from tests.rewards.conftest import VIEWS, small_config, square_episode
from tests.rewards.methods import fit, squares, tiny, untrained


def config(member=None, **fields):
    member = member or tiny("remaining_time")
    return EnsembleConfig(views=VIEWS, member=member, **{"count": 2, **fields})


@functools.cache
def trained():
    """Three dopamine members after a few seconds."""
    member = small_config(pairs=60, chunk=3)
    return fit(untrained(config(member, count=3)), squares()[:6], steps=50)


def noise(index):
    episode = square_episode(index)
    rng = np.random.default_rng(index)
    for view in VIEWS:
        episode.views[view][:] = rng.integers(0, 256, episode.views[view].shape, np.uint8)
    return episode


@pytest.mark.slow
def test_members_of_dopamine_learn_and_disagree_more_on_what_they_never_saw():
    model = trained()
    assert all(isinstance(m, DopamineModel) for m in model.members)
    unseen = square_episode(50)
    assert spearman(model.score_episode(unseen).potential, unseen.progress) > 0.8
    familiar = np.mean([model.disagreement(square_episode(i)).mean() for i in range(4)])
    # After 20 steps this is not so: the members agree that noise means nothing.
    foreign = np.mean([model.disagreement(noise(i)).mean() for i in range(4)])
    assert foreign > 1.5 * familiar > 0


def test_aggregates_and_uncertainty_follow_from_the_members():
    model, episode = trained(), square_episode(51)
    members = [m.score_episode(episode) for m in model.members]
    phi = np.stack([s.potential for s in members])
    own = np.stack([s.uncertainty for s in members])
    scores = model.score_episode(episode)
    np.testing.assert_allclose(scores.modes["mean"], phi.mean(0), atol=1e-12)
    np.testing.assert_allclose(scores.modes["min"], phi.min(0), atol=1e-12)
    lower = np.clip(phi.mean(0) - phi.std(0), 0, 1)
    np.testing.assert_allclose(scores.modes["lower"], lower, atol=1e-12)
    total = np.sqrt(phi.var(0) + np.square(own).mean(0))
    np.testing.assert_allclose(scores.uncertainty, total, atol=1e-12)
    np.testing.assert_allclose(model.disagreement(episode), phi.std(0), atol=1e-12)
    np.testing.assert_array_equal(scores.potential, scores.modes["mean"])
    assert set(scores.per_view) == set(VIEWS)


@pytest.mark.parametrize("aggregate", ["mean", "min", "lower"])
def test_streaming_gives_the_episode_scores_and_rows_restart_alone(aggregate):
    whole = trained()
    fields = {**vars(whole.config), "aggregate": aggregate, "penalty": 2.0}
    model = type(whole)(EnsembleConfig(**fields), whole.members).eval()
    a, b = square_episode(54), square_episode(55, length=20)

    def frames(*at):
        return {v: np.stack([e.views[v][t] for e, t in at]) for v in VIEWS}

    scorer = StreamScorer(model, 2)
    got = [scorer.start([0, 1], frames((a, 0), (b, 0)))]
    got += [scorer.step(frames((a, t), (b, t))) for t in range(1, 6)]
    again = scorer.start([1], frames((b, 0)))
    want_a, want_b = model.score_episode(a), model.score_episode(b)
    np.testing.assert_allclose([s.potential[0] for s in got], want_a.potential[:6], atol=1e-5)
    np.testing.assert_allclose([s.potential[1] for s in got], want_b.potential[:6], atol=1e-5)
    np.testing.assert_allclose([s.uncertainty[0] for s in got], want_a.uncertainty[:6], atol=1e-5)
    np.testing.assert_allclose(again.potential, want_b.potential[:1], atol=1e-5)


def test_a_missing_view_reaches_every_member():
    model = untrained(config()).eval()
    model.set_references(model.dataset(squares()))
    episode = square_episode(56)
    features = model.encode({"side": episode.views["side"][:3]})
    assert features.shape[:2] == (3, 4)
    scores, _ = model.score(features, model.start(features))
    np.testing.assert_allclose(
        scores.potential, model.score_episode(episode).per_view["side"][:3], atol=1e-5
    )
    features[1] = torch.nan
    assert model.score(features, {})[0].ok.tolist() == [True, False, True]


def test_members_differ_in_weights_episodes_and_batches():
    model = untrained(config())
    data = model.dataset(squares())
    one, two = (m.network.fusion[0].weight for m in model.members)
    assert not torch.equal(one, two)
    counts = [(len(d.demos), len(d.failures)) for d in data.members]
    assert all(sum(c) == 8 for c in counts)
    first, second = data.batch(2, 0, 0)
    assert first.seed != second.seed
    again = data.batch(2, 0, 0)[1]
    assert torch.equal(second.frames, again.frames)
    plain = untrained(config(bootstrap=False)).dataset(squares())
    assert [(len(d.demos), len(d.failures)) for d in plain.members] == [(6, 2)] * 2


def test_every_resample_holds_a_success():
    episodes = [square_episode(i, success=i == 0, length=8) for i in range(8)]
    data = untrained(config(count=6)).dataset(episodes)
    assert all(d.demos for d in data.members)
    with pytest.raises(DatasetError, match="none of the 7 training episodes is successful"):
        untrained(config()).dataset(episodes[1:])


def test_round_trip_and_damage(tmp_path):
    model, episode = trained(), square_episode(58)
    model.save(tmp_path)
    again = load(tmp_path)
    want, got = model.score_episode(episode), again.score_episode(episode)
    np.testing.assert_array_equal(got.potential, want.potential)
    np.testing.assert_array_equal(got.uncertainty, want.uncertainty)
    assert again.config == model.config
    assert again.card.type == "ensemble"
    assert again.card.extra["member"] == "dopamine"
    assert again.card.views == VIEWS
    (tmp_path / "members" / "1").rename(tmp_path / "members" / "gone")
    with pytest.raises(CheckpointError, match=r"members/1/config.json' is missing"):
        load(tmp_path)
    model.members[0].save(tmp_path / "members" / "1")
    with pytest.raises(CheckpointError, match="members that do not belong"):
        load(tmp_path)


def test_resumed_training_equals_uninterrupted(tmp_path):
    optimization = OptimizationConfig(
        steps=4, batch_size=2, warmup=1, val_freq=2, save_freq=2, log_freq=1
    )

    def trainer(folder):
        torch.set_num_threads(1)
        episodes = squares()
        model = untrained(config())
        return RewardTrainer(
            model, episodes[1:], episodes[:1], config=optimization, folder=folder, seed=4
        )

    whole, broken = trainer(tmp_path / "whole"), trainer(tmp_path / "broken")
    whole.run(progress=False)
    for _ in range(2):
        broken.update()
    broken.save()
    again = trainer(tmp_path / "broken")
    assert again.resume()
    again.run(progress=False)
    for a, b in zip(
        whole.model.state_dict().values(), again.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 1}, "count >= 2"),
        ({"penalty": -1.0}, "penalty >= 0"),
        ({"aggregate": "lowest"}, "did you mean 'lower'"),
        ({"member": EnsembleConfig()}, "members must be single models"),
    ],
)
def test_bad_values_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        EnsembleConfig(**fields)
