"""Sample weights beside a training loop: what they do to the gradient, and that they resume."""

import dataclasses

import numpy as np
import pytest
import torch

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.math.decorrelation import effective_share
from embodied_reward.rewards import (
    DopamineModel,
    RemainingTimeConfig,
    RemainingTimeModel,
    TccConfig,
    TccModel,
)
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from tests.rewards.conftest import VIEWS, small_config, square_episode

torch.set_num_threads(1)
QUICK = DecorrelationConfig(type="sgfd", warmup=2, steps=4, memory=256)


def stream(calls, hook, *, agree=0.9, shift=1.0, batch=96, d=4):
    """A feature that tells two variants apart and follows feature 0 in most samples."""
    rng = np.random.default_rng(0)
    for _ in range(calls):
        z = rng.normal(size=(batch, d))
        variant = rng.integers(2, size=batch)
        follows = np.where(rng.random(batch) < agree, np.sign(z[:, 0]), -np.sign(z[:, 0]))
        z[:, -1] = follows + shift * variant + 0.3 * rng.normal(size=batch)
        z, variant = torch.tensor(z).float(), torch.tensor(variant)
        yield z, hook(z, variant)


def correlation(a, b, w):
    a, b = (x - (w * x).sum() / w.sum() for x in (a, b))
    return float((w * a * b).sum() / ((w * a * a).sum() * (w * b * b).sum()) ** 0.5)


def make(kind):
    torch.manual_seed(0)
    encoder = small_config().encoder
    if kind == "dopamine":
        return DopamineModel.create(small_config(pairs=60))
    if kind == "tcc":
        return TccModel.create(TccConfig(views=VIEWS, encoder=encoder, dim=32, hidden=32))
    fields = {"views": VIEWS, "encoder": encoder, "dim": 32, "hidden": 32, "frames": 12}
    return RemainingTimeModel.create(RemainingTimeConfig(**fields))


def variants(count=6):
    """Squares in two variants: the second one is seen in a brighter light."""
    episodes = []
    for i in range(count):
        episode, variant = square_episode(i, success=i != 5), i % 2
        views = {v: f + np.uint8(60 * variant) * (f < 100) for v, f in episode.views.items()}
        episodes.append(dataclasses.replace(episode, views=views, variant=variant))
    return episodes


def trainer(folder, kind="remaining_time", weights=QUICK, steps=12):
    config = OptimizationConfig(
        steps=steps, batch_size=3, warmup=2, val_freq=6, save_freq=5, log_freq=1, lr=2e-3
    )
    hook = BatchWeights(weights, variants=2, seed=7) if weights else None
    return RewardTrainer(
        make(kind), variants(), [square_episode(9)], config=config, folder=folder, seed=0,
        weights=hook,
    )  # fmt: skip


def parameters(run):
    return [v.clone() for v in run.model.state_dict().values()]


@pytest.mark.parametrize("kind", ["sgfd", "stablenet"])
@pytest.mark.slow
def test_the_weights_of_a_stream_break_the_link_within_a_few_batches(kind):
    hook = BatchWeights(DecorrelationConfig(type=kind, warmup=20), variants=2, seed=0)
    batches = list(stream(60, hook))
    late = batches[40:]
    z, w = (torch.cat([b[i] for b in late]).double() for i in range(2))
    assert abs(correlation(z[:, 0], z[:, -1], torch.ones_like(w))) > 0.5
    assert abs(correlation(z[:, 0], z[:, -1], w)) < 0.15
    for _, weights in batches[:20]:
        assert (weights == 1).all()
    for _, weights in late:
        assert float(effective_share(weights)) >= 0.3 - 1e-6
        assert float(weights.mean()) == pytest.approx(1.0, abs=1e-5)
    assert hook.logs["correlation_after"] < 0.1 * hook.logs["correlation_before"]
    if kind == "sgfd":
        assert hook.logs["salient"] == 1
        assert hook.logs["classifier_skill"] > 0.5


@pytest.mark.slow
def test_a_cause_that_helps_to_tell_variants_apart_is_salient_itself_and_stays_linked():
    """An expected failure: S x O holds no pair within S. Here sign(z_0) says how much of the last
    feature is the variant's, so the classifier reads both. StableNet has no such blind spot."""
    links = {}
    for kind in ("sgfd", "stablenet"):
        hook = BatchWeights(DecorrelationConfig(type=kind, warmup=20), variants=2, seed=0)
        late = list(stream(60, hook, shift=2.0))[40:]
        z, w = (torch.cat([b[i] for b in late]).double() for i in range(2))
        links[kind] = abs(correlation(z[:, 0], z[:, -1], w))
        assert hook.logs.get("salient", 2) == 2
    assert links["sgfd"] > 0.3
    assert links["stablenet"] < 0.1


def test_where_nothing_tells_the_variants_apart_weights_stay_uniform():
    hook = BatchWeights(DecorrelationConfig(type="sgfd", warmup=0), variants=2, seed=0)
    for _, weights in stream(40, hook, shift=0.0):
        assert (weights == 1).all()
    assert hook.logs["salient"] == 0


def test_the_share_of_salient_features_can_be_given():
    config = DecorrelationConfig(type="sgfd", warmup=0, salient=0.5)
    hook = BatchWeights(config, variants=2, seed=0)
    list(stream(20, hook))
    assert hook.logs["salient"] == 2


@pytest.mark.parametrize("least", [0.5, 0.9, 1.0])
def test_the_floor_of_the_effective_sample_size_holds(least):
    config = DecorrelationConfig(type="stablenet", warmup=0, min_ess=least, lr=0.5)
    hook = BatchWeights(config, variants=1, seed=0)
    for _, weights in stream(15, hook, agree=1.0):
        assert float(effective_share(weights)) >= least - 1e-5
    assert hook.logs["pool_ess"] >= least - 1e-5


def test_a_seed_fixes_the_weights():
    runs = [
        [w for _, w in stream(8, BatchWeights(QUICK, variants=2, seed=seed))] for seed in (0, 0, 1)
    ]
    same = [torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True)]
    assert all(same)
    assert not torch.equal(runs[0][-1], runs[2][-1])


@pytest.mark.parametrize("kind", ["sgfd", "stablenet"])
def test_a_saved_state_goes_on_bit_by_bit(kind, tmp_path):
    config = dataclasses.replace(QUICK, type=kind)
    whole = BatchWeights(config, variants=2, seed=0)
    expected = [w for _, w in stream(12, whole)]
    first, second = (BatchWeights(config, variants=2, seed=0) for _ in range(2))
    count = 0

    def resumed(features, variant):
        nonlocal count
        count += 1
        if count == 7:
            first.save(tmp_path)
            second.load(tmp_path, torch.device("cpu"))
        return (first if count < 7 else second)(features, variant)

    found = [w for _, w in stream(12, resumed)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("kind", ["remaining_time", "dopamine"])
def test_uniform_weights_are_the_plain_loss_and_zero_weights_mute_frames(kind):
    model, episodes = make(kind).train(), variants()
    data = model.dataset(episodes)
    model.set_references(data)
    batch = data.batch(4, 0, 0)
    assert set(batch.variant.tolist()) == {0, 1}

    def gradient(weigh):
        model.zero_grad()
        loss, _ = model.loss(batch, weigh) if weigh else model.loss(batch)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain, plain_gradient = gradient(None)
    ones, ones_gradient = gradient(lambda z, variant: torch.ones(len(z)))
    assert ones == pytest.approx(plain, rel=1e-5)
    for a, b in zip(plain_gradient, ones_gradient, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    # The gradient under weights on one variant does not depend on pictures of the other's
    # failures or successes, except through references that pairs share (dopamine).
    only = gradient(lambda z, variant: 2.0 * (variant == 0).float())[1]
    assert any(
        not torch.allclose(a, b, atol=1e-6) for a, b in zip(only, ones_gradient, strict=True)
    )
    if kind == "remaining_time":
        batch.frames[batch.variant == 1] = 128  # flat, whatever was there
        again = gradient(lambda z, variant: 2.0 * (variant == 0).float())[1]
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(only, again, strict=True))


def test_weighted_frames_pull_the_gradient_towards_themselves():
    """The weighted loss of remaining_time is the weighted mean of its frames' losses."""
    model = make("remaining_time").eval()
    data = model.dataset(variants())
    model.set_references(data)
    batch = data.batch(4, 0, 0)
    weights = torch.rand(len(batch.variant), generator=torch.Generator().manual_seed(0)) * 2
    object.__setattr__(model.config, "success_weight", 0.0)
    with torch.no_grad():
        features, present = model._encode_batch(batch)
        losses, _ = model.objective(model.network.fuse(features, present), batch)
        total, _ = model.loss(batch, lambda z, variant: weights)
    assert float(total) == pytest.approx(float((weights * losses).mean()), rel=1e-5)


@pytest.mark.parametrize("kind", ["remaining_time", "dopamine"])
def test_a_killed_run_resumes_with_its_weights_bit_by_bit(kind, tmp_path):
    whole = trainer(tmp_path / "whole", kind)
    whole.run(progress=False)
    assert whole.weights.logs["classifier_skill"] != 0
    broken = trainer(tmp_path / "broken", kind)
    update = broken.update

    def dying():
        if broken.step == 8:
            raise RuntimeError("power cut")
        return update()

    broken.update = dying
    with pytest.raises(RuntimeError, match="power cut"):
        broken.run(progress=False)
    again = trainer(tmp_path / "broken", kind)
    assert again.resume()
    again.run(progress=False)
    assert all(torch.equal(a, b) for a, b in zip(parameters(whole), parameters(again), strict=True))
    one, two = ((tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "broken"))
    assert one == two
    assert "train/decorrelation/ess" in one


def test_weights_change_what_is_learned_and_none_leaves_no_trace(tmp_path):
    plain, weighed = trainer(tmp_path / "a", weights=None), trainer(tmp_path / "b")
    for run in (plain, weighed):
        run.run(progress=False)
    pairs = zip(parameters(plain), parameters(weighed), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    assert "decorrelation" not in (tmp_path / "a" / "metrics.jsonl").read_text()
    state = tmp_path / "a" / "checkpoints" / "last" / "training_state"
    assert not list(state.glob("decorrelation*"))
    again = trainer(tmp_path / "a")
    with pytest.raises(CheckpointError, match="without --decorrelation.type"):
        again.resume()


def test_what_cannot_be_weighed_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="that of 'tcc' cannot be weighed"):
        trainer(tmp_path, "tcc")
    with pytest.raises(ConfigError, match="one variant only"):
        BatchWeights(QUICK, variants=1, seed=0)
    for changes in (
        {"type": "sgdf"},
        {"min_ess": 1.5},
        {"steps": 0},
        {"lr": 0.0},
        {"salient": 1.0},
    ):
        with pytest.raises(ConfigError):
            DecorrelationConfig(**{"type": "sgfd", **changes})
