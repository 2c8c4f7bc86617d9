"""On rendered pictures of `trap/insert`: a hacked reward rises under corruption, ours does not."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn

from embodied_reward.envs import make
from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.scoring import (
    FeatureCache,
    Scorer,
    ScorerCard,
    ScoreRequest,
    ScoringCore,
)
from embodied_reward.scoring.heads.artefact import (
    ArtefactHead,
    artefact_weight,
    fit_artefacts,
)
from embodied_reward.scoring.scorer import Head, Output
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.corruptions import CORRUPTIONS, corrupt
from embodied_reward.vision.encoders import ConvEncoder


class Linear(Head):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, items):
        return Output(score=items.mean_features() @ self.weight)


@pytest.fixture(scope="module")
def pictures():
    """240 pictures of the peg at random places over the table, 64 px, and how far along it is."""
    env = make("trap/insert", views=("front",), size=64)
    rng = np.random.default_rng(0)
    places = rng.uniform((0, -0.1), (0.9, 0.1), (240, 2))
    frames = []
    for place in places:
        env.reset(options={"place": tuple(place)})
        frames.append(env.frames()["front"].copy())
    env.close()
    return np.stack(frames), places[:, 0] / 0.9


@pytest.fixture(scope="module")
def trunk():
    torch.manual_seed(0)
    return EncoderTrunk(ConvEncoder("conv64", 64))


def feature(trunk, frames):
    with torch.no_grad():
        return trunk.forward(trunk.preprocess(torch.from_numpy(frames)))


def hacked(trunk, clean, progress, broken):
    """A reward that reads progress, but has also learnt to like what a corruption does."""
    x, y = feature(trunk, clean), torch.from_numpy(progress).float()
    centred = x - x.mean(0)
    ridge = centred.T @ centred + 1e-2 * len(x) * torch.eye(x.shape[1])
    quality = torch.linalg.solve(ridge, centred.T @ (y - y.mean()))
    change = feature(trunk, broken) - x
    liking = change.mean(0) / change.mean(0).square().sum()  # the mean corruption gains 1 by it
    return Linear(quality + (0.3 - change.mean(0) @ quality) * liking)


def scores(core, frames):
    return core.score(ScoreRequest(scorers=("s",), frames=frames))["s"]


def fitted(trunk, clean, broken, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return fit_artefacts(feature(trunk, clean), feature(trunk, broken), generator)


def calibrated(core, base, classifier, clean, broken):
    """Swap the regularised head in, lambda from these pictures."""
    core.swap_head("s", ArtefactHead(base, classifier, weight=0))
    change = scores(core, broken).dims - scores(core, clean).dims
    weight = artefact_weight(*torch.from_numpy(change).T)
    core.swap_head("s", ArtefactHead(base, classifier, weight))
    return weight


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.slow
def test_a_corruption_that_raises_the_base_does_not_raise_the_regularised_reward(
    pictures, trunk, kind
):
    frames, progress = pictures
    train, held = np.repeat(frames[:160], 4, 0), frames[160:]
    rng = np.random.default_rng(1)
    broken = CORRUPTIONS[kind](held, rng)
    base = hacked(trunk, train, np.repeat(progress[:160], 4), CORRUPTIONS[kind](train, rng))
    classifier = fitted(trunk, train, corrupt(train, rng))
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(Scorer(ScorerCard("s", "linear"), trunk, base))
        before = scores(core, held).score, scores(core, broken).score
        calibrated(core, base, classifier, train, CORRUPTIONS[kind](train, rng))
        after = scores(core, held).score, scores(core, broken).score
    gains = [(b - a, float(spearmanr(a, progress[160:])[0])) for a, b in (before, after)]
    print(
        f"{kind}:",
        *(f"mean gain {g.mean():+.2f}, gain {(g > 0).mean():.0%}, rank {r:.2f};" for g, r in gains),
    )
    assert before[1].mean() > before[0].mean() + 0.2
    assert after[1].mean() <= after[0].mean()
    assert (after[1] > after[0]).mean() <= 0.5 * (before[1] > before[0]).mean()
    # What the reward is for survives, though not unharmed.
    assert spearmanr(after[0], progress[160:])[0] > 0.55


def test_refitting_on_current_samples_catches_a_new_artefact_without_encoding_anything_again(
    pictures, trunk
):
    frames, progress = pictures
    train, held = np.repeat(frames[:160], 4, 0), frames[160:]
    rng = np.random.default_rng(2)
    known, torn = CORRUPTIONS["blur"](train, rng), CORRUPTIONS["tear"](train, rng)
    base = hacked(trunk, train, np.repeat(progress[:160], 4), torn)
    broken = CORRUPTIONS["tear"](held, rng)
    with ScoringCore(cache=FeatureCache()) as core:
        core.register(Scorer(ScorerCard("s", "linear"), trunk, base))
        first = fitted(trunk, train, known)
        weight = calibrated(core, base, first, train, known)
        gain_before = scores(core, broken).score - scores(core, held).score
        current = core.embed(trunk, np.concatenate([known, torn]))
        generator = torch.Generator().manual_seed(1)
        again = fit_artefacts(core.embed(trunk, train), current, generator)
        images = core.stats()["trunk_images"]
        version = core.swap_head("s", ArtefactHead(base, again, max(weight, 0.8)))
        late = scores(core, broken)
        gain_after = late.score - scores(core, held).score
        assert core.stats()["trunk_images"] == images
    assert late.head_version == version == 3
    assert gain_before.mean() > 0.1
    assert gain_after.mean() < 0


def test_weight_zero_is_the_base_and_the_mean_over_frames_counts(trunk, pictures):
    frames = pictures[0][:4]
    base = Linear(torch.linspace(-1, 1, 64))
    classifier = fitted(trunk, frames, CORRUPTIONS["tear"](frames, np.random.default_rng(0)))
    request = ScoreRequest(scorers=("a", "b", "c"), frames=frames, offsets=[0, 3, 4])
    with ScoringCore() as core:
        for name, head in (
            ("a", base),
            ("b", ArtefactHead(base, classifier, 0)),
            ("c", ArtefactHead(base, classifier, 2.0)),
        ):
            core.register(Scorer(ScorerCard(name, "t"), trunk, head))
        replies = core.score(request)
    np.testing.assert_array_equal(replies["a"].score, replies["b"].score)
    p = torch.sigmoid(classifier(feature(trunk, frames))).numpy()
    expected = replies["a"].score - 2 * np.array([p[:3].mean(), p[3]])
    np.testing.assert_allclose(replies["c"].score, expected, rtol=1e-5)


def test_the_weight_is_the_least_that_holds_the_share_back():
    gain = torch.tensor([1.0, 2.0, -1.0, 0.5])
    seen = torch.tensor([0.5, 0.5, 0.5, 0.0])
    assert artefact_weight(gain, seen, share=0.5) == pytest.approx(2, rel=2e-6)
    assert artefact_weight(gain, seen, share=0.75) == pytest.approx(4, rel=2e-6)
    with pytest.raises(ConfigError, match=r"at most 75%.*a share of 0\.75"):
        artefact_weight(gain, seen, share=1.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.sampled_from([0.2, 0.5, 0.9]))
def test_no_smaller_weight_holds_the_share_back_and_without_one_none_does(seed, count, share):
    gain, seen = np.random.default_rng(seed).normal(size=(2, count))

    def held(weight):
        return (gain - weight * seen <= 0).mean()

    bounds = (gain / seen)[gain / seen > 0]
    trials = np.concatenate([[0.0], bounds * (1 - 1e-4), bounds * (1 + 1e-4)])
    try:
        weight = artefact_weight(torch.from_numpy(gain), torch.from_numpy(seen), share=share)
    except ConfigError:
        assert max(held(t) for t in trials) < share
        return
    assert held(weight) >= share
    assert all(held(t) < share for t in trials if t < weight * (1 - 1e-5))


def test_features_that_teach_nothing_are_refused():
    some, generator = torch.ones(3, 4), torch.Generator()
    with pytest.raises(ConfigError, match="good and broken"):
        fit_artefacts(some, torch.ones(0, 4), generator)
    with pytest.raises(ConfigError, match="one size"):
        fit_artefacts(some, torch.ones(3, 5), generator)
    with pytest.raises(NonFiniteError, match="not finite"):
        fit_artefacts(some, some * torch.nan, generator)
    classifier = fit_artefacts(torch.zeros(3, 4), some, generator, steps=1)
    with pytest.raises(ConfigError, match="weight"):
        ArtefactHead(Linear(torch.ones(4)), classifier, -1.0)


def test_same_seed_same_classifier():
    some, other = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(0))
    first, again, third = (
        fit_artefacts(some, other, torch.Generator().manual_seed(s), steps=20) for s in (0, 0, 1)
    )
    assert torch.equal(first(some), again(some))
    assert not torch.equal(first(some), third(some))
