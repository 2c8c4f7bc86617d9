"""Each head on the toy where its method should help, with the threshold that it should reach."""

import functools

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from embodied_reward.errors import NonFiniteError, ScoringError
from embodied_reward.math.statistics import auc, spearman
from embodied_reward.scoring.heads import OnlineDiscriminator
from embodied_reward.scoring.heads.pairing import cross_prompt_pairs
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder
from tests.scoring.heads.conftest import fit, items_of, make, pairs_of, scores, sets_of

SEEDS = (0, 1, 2)


def from_labels(x, labels, tie_share):
    def draw(rng):
        winner, loser, tie = cross_prompt_pairs(labels, 128, rng, tie_share=tie_share)
        return pairs_of(x[winner], x[loser], tie)

    return draw


# --- SoliReward: ties of two passed items pull the scores of passed items together ---


@functools.cache
def passed_and_failed(seed, ties):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=16)
    x = rng.normal(size=(800, 16))
    labels = (x @ w / np.linalg.norm(w) + 0.15 * rng.normal(size=800) > 0).astype(int)
    settings = {"ties": ties, "margin": 3.0} if ties != "none" else {"margin": 0.0}
    head = make("bradley_terry", 16, seed=seed, hidden=64, **settings)
    fit(head, from_labels(x[:400], labels[:400], 0.5 * (ties != "none")), steps=300, seed=seed)
    found, truth = scores(head, x[400:]), labels[400:]
    passed = found[truth == 1]
    return auc(found, truth), passed.std() / (passed.mean() - found[truth == 0].mean())


@pytest.mark.parametrize("ties", ["win_tie", pytest.param("rao_kupper", marks=pytest.mark.slow)])
def test_ties_halve_the_spread_of_passed_items_and_keep_the_auc(ties):
    plain = np.mean([passed_and_failed(seed, "none") for seed in SEEDS], 0)
    tied = np.mean([passed_and_failed(seed, ties) for seed in SEEDS], 0)
    print(f"{ties}: AUC {plain[0]:.3f} -> {tied[0]:.3f}, spread {plain[1]:.3f} -> {tied[1]:.3f}")
    assert plain[0] >= 0.97
    assert plain[0] - tied[0] <= 0.02
    assert plain[1] / tied[1] >= 2


# --- BaseReward: two layers where one cannot ---


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_two_layers_learn_an_exclusive_or_that_one_cannot(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1600, 16))
    labels = (x[:, 0] * x[:, 1] > 0).astype(int)
    found = {}
    for hidden in (0, 256):
        head = make("bradley_terry", 16, seed=seed, hidden=hidden)
        fit(head, from_labels(x[:800], labels[:800], 0), steps=300, lr=5e-3, weight_decay=0.01)
        found[hidden] = auc(scores(head, x[800:]), labels[800:])
    print(f"exclusive or, seed {seed}: {found[0]:.3f} linear, {found[256]:.3f} two layers")
    assert found[256] >= 0.95
    assert found[0] <= 0.65


def test_two_layers_read_an_exclusive_or_from_a_frozen_random_trunk():
    """Two patches, each bright or dark; the preference is whether they differ."""
    rng = np.random.default_rng(0)
    bright = rng.integers(0, 2, (600, 2))
    pictures = rng.integers(90, 160, (600, 64, 64, 3), dtype=np.uint8)
    pictures[:, 8:24, 8:24] = np.where(bright[:, 0], 210, 40)[:, None, None, None]
    pictures[:, 40:56, 40:56] = np.where(bright[:, 1], 210, 40)[:, None, None, None]
    labels = bright[:, 0] ^ bright[:, 1]
    torch.manual_seed(0)
    trunk = EncoderTrunk(ConvEncoder("conv64", 64))
    with torch.no_grad():
        x = trunk.forward(trunk.preprocess(torch.from_numpy(pictures))).numpy()
    head = make("bradley_terry", 64)
    head.fit_input(torch.from_numpy(x[:400]))
    fit(head, from_labels(x[:400], labels[:400], 0), steps=200)
    assert auc(scores(head, x[400:]), labels[400:]) >= 0.95


@pytest.mark.parametrize(
    ("kind", "settings", "share"),
    [
        ("bradley_terry", {}, 0.01),
        ("heteroscedastic", {}, 0.01),
        ("voting", {"members": 10, "hidden": 64}, 0.01),
    ],
)
def test_a_head_costs_next_to_nothing(kind, settings, share):
    trunk = EncoderTrunk(ConvEncoder("conv64", 64))
    head = make(kind, 64, **settings)
    with torch.no_grad(), FlopCounterMode(display=False) as of_trunk:
        x = trunk.forward(torch.zeros(64, 3, 64, 64))
    with torch.no_grad(), FlopCounterMode(display=False) as of_head:
        head(items_of(x.numpy()))
    ratio = of_head.get_total_flops() / of_trunk.get_total_flops()
    print(f"{kind}: {100 * ratio:.2f} % of the trunk's FLOPs")
    assert 0 < ratio <= share


# --- YOJO: what is best depends on the company ---


def company(rng, count, n=5, d=8):
    """The set's mean decides the sign with which the second feature counts."""
    x = rng.normal(size=(count, n, d))
    sign = np.sign(x[:, :, 2].mean(1))[:, None]
    return x, (x[:, :, 0] + sign * x[:, :, 1]).argmax(1)


@pytest.mark.slow
def test_a_set_scorer_beats_independent_scores_where_context_matters():
    rng = np.random.default_rng(0)
    x, best = company(rng, 2000)
    unseen, truth = company(rng, 500)

    def draw(rng):
        chosen = rng.integers(0, len(x), 64)
        return sets_of(x[chosen], best[chosen])

    accuracy = {}
    for layers in (0, 2):
        head = make("n_way", 8, layers=layers, width=32, hidden=64)
        fit(head, draw, steps=300)
        found = head(sets_of(unseen, truth).items).score.detach().numpy().reshape(500, -1)
        accuracy[layers] = (found.argmax(1) == truth).mean()
    print(f"best of five: {accuracy[0]:.3f} alone, {accuracy[2]:.3f} as a set")
    assert accuracy[2] >= accuracy[0] + 0.05


# --- Adv-GRPO: a discriminator that follows the policy, and one that does not ---


def distance_after(seed, *, online, steps=120, d=8):
    """A Gaussian policy climbs the discriminator's score from 0 to the references at distance 2."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=d)
    target *= 2 / np.linalg.norm(target)
    references = torch.from_numpy(target + 0.5 * rng.normal(size=(512, d))).float()
    head = make("adversarial", d, seed=seed, hidden=64)
    discriminator = OnlineDiscriminator(head, lr=3e-3, steps=200, seed=seed)
    mean = np.zeros(d)
    for step in range(steps):
        samples = mean + 0.5 * rng.normal(size=(64, d))
        if step == 0 or online:
            head = discriminator.update(references, torch.from_numpy(samples).float())
            discriminator._steps = 10
        reward = scores(head, samples)
        advantage = (reward - reward.mean()) / (reward.std() + 1e-4)
        mean = mean + 0.3 * (advantage[:, None] * (samples - mean)).mean(0)
    return float(np.linalg.norm(mean - target))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.slow
def test_an_adversarial_reward_leads_to_the_references_and_a_fixed_one_past_them(seed):
    online, fixed = (distance_after(seed, online=o) for o in (True, False))
    print(f"distance 2.0 -> {online:.2f} online, {fixed:.1f} fixed")
    assert online <= 1.0
    assert fixed > 2.0


def test_the_discriminator_refuses_what_it_cannot_learn_from():
    discriminator = OnlineDiscriminator(make("adversarial", 4))
    good = torch.randn(5, 4)
    with pytest.raises(ScoringError, match="no reference pictures"):
        discriminator.update(torch.zeros(0, 4), good)
    with pytest.raises(ScoringError, match="no sample pictures"):
        discriminator.update(good, torch.zeros(0, 4))
    with pytest.raises(ScoringError, match=r"must be \[n 4\], got \[5, 3\]"):
        discriminator.update(good, torch.zeros(5, 3))
    with pytest.raises(NonFiniteError, match="reference_features"):
        discriminator.update(good * torch.nan, good)
    assert discriminator.version == 0


def test_an_update_leaves_earlier_heads_alone():
    discriminator = OnlineDiscriminator(make("adversarial", 4))
    good, bad = torch.randn(20, 4) + 1, torch.randn(20, 4) - 1
    first = discriminator.update(good, bad)
    before = {k: v.clone() for k, v in first.state_dict().items()}
    second = discriminator.update(good, bad)
    assert discriminator.version == 2
    assert all(torch.equal(v, before[k]) for k, v in first.state_dict().items())
    assert not torch.equal(first.net[0].weight, second.net[0].weight)
    assert not any(p.requires_grad for p in second.parameters())


# --- Secrets of RLHF II: a vote finds the flipped labels ---


def flipped_labels(seed, review):
    rng = np.random.default_rng(seed)
    n, d = 600, 16
    w = rng.normal(size=d) / d**0.5
    x = rng.normal(size=(n, 2, d))
    x = np.where((x[:, 0] @ w > x[:, 1] @ w)[:, None, None], x, x[:, ::-1])
    wrong = rng.random(n) < 0.2
    choices = sets_of(np.where(wrong[:, None, None], x[:, ::-1], x), np.zeros(n, int))
    head = make("voting", d, seed=seed, hidden=32, members=10, review=review)
    fit(head, choices, steps=140 if review == "none" else 280)
    with torch.no_grad():
        vote = head.differences(choices, choices.pairs()).numpy().mean(0)
    clean = rng.normal(size=(1000, 2, d))
    found = scores(head, clean.reshape(-1, d)).reshape(-1, 2)
    truth = (clean[:, 0] @ w > clean[:, 1] @ w).astype(int)
    return {
        "finds": auc(-vote, wrong.astype(int)),
        "lowest": wrong[np.argsort(vote)[: n // 5]].mean() / wrong.mean(),
        "clean": auc(found[:, 0] - found[:, 1], truth),
    }


@pytest.mark.slow
def test_the_vote_finds_flipped_labels_and_correcting_them_helps():
    raw = [flipped_labels(seed, "none") for seed in (*SEEDS, 3)]
    voted = [flipped_labels(seed, "labels") for seed in (*SEEDS, 3)]
    for name, rows in (("raw", raw), ("voted", voted)):
        print(name, {k: round(float(np.mean([r[k] for r in rows])), 3) for k in rows[0]})
    assert np.mean([r["finds"] for r in raw]) >= 0.9
    assert np.mean([r["lowest"] for r in raw]) >= 3
    gain = np.mean([v["clean"] for v in voted]) - np.mean([r["clean"] for r in raw])
    assert gain >= 0.03


# --- users with tastes of their own ---


def test_a_user_head_beats_the_population_for_every_user_and_falls_back_to_it():
    rng = np.random.default_rng(0)
    users, d = 20, 8
    common, own = rng.normal(size=d), rng.normal(size=(users, d))
    x, user = rng.normal(size=(4000, 2, d)), rng.integers(0, users, 4000)
    taste = common + own[user]
    first = (x[:, 0] * taste).sum(1) > (x[:, 1] * taste).sum(1)
    choices = sets_of(x, np.where(first, 0, 1), user=np.repeat(user, 2))
    head = make("user", d, hidden=32, users=users)
    fit(head, choices, steps=300)
    unseen = rng.normal(size=(300, d))
    population = scores(head, unseen)
    gains = []
    for u in range(users):
        personal = scores(head, unseen, user=np.full(300, u))
        truth = unseen @ (common + own[u])
        gains.append(spearman(personal, truth) - spearman(population, truth))
    print(f"rank correlation per user: +{np.mean(gains):.2f} over the population's")
    assert np.mean(gains) >= 0.1
    assert np.array_equal(scores(head, unseen, user=np.full(300, users + 5)), population)
    assert spearman(population, unseen @ common) >= 0.8


# --- HPSv3: the deviation is learned, not asked for ---


def disagreement(likelihood):
    """Return AUC of sigma as a detector of pictures that people judge by coin flips, and mean."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2, 6))
    flips = x[:, :, 1] > 0
    quality = 3 * x[:, :, 0] + np.where(flips, 12 * rng.normal(size=flips.shape), 0)
    head = make("heteroscedastic", 6, hidden=32, likelihood=likelihood)
    fit(head, sets_of(x, quality.argmax(1)), steps=250)
    unseen = rng.normal(size=(500, 6))
    sigma = head(items_of(unseen)).aleatoric.detach().numpy()
    return auc(sigma, (unseen[:, 1] > 0).astype(int)), sigma.mean()


def test_the_likelihood_learns_where_people_disagree_and_the_expected_loss_does_not():
    detects, size = disagreement("marginal")
    shrunk = disagreement("expected")
    print(
        f"sigma: AUC {detects:.3f}, mean {size:.2f}; expected loss {shrunk[0]:.3f}, {shrunk[1]:.2f}"
    )
    assert detects >= 0.9
    # the convex loss only shrinks sigma
    assert shrunk[1] < 0.2 * size
