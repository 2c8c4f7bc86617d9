"""Alignment with preferences: values by hand, and a planted representation to recover."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.math.alignment import alignment_loss, triplet_accuracy, video_distance
from embodied_reward.math.statistics import spearman

FRAMES, RELEVANT, NUISANCE, SIZE = 8, 4, 8, 8


def test_loss_by_hand():
    closer, farther = torch.tensor([0.2, 0.5]), torch.tensor([0.4, 0.1])
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(4.0))) / 2
    assert float(alignment_loss(closer, farther, 0.1)) == pytest.approx(expected, rel=1e-5)
    tie = torch.tensor([False, True])
    expected = (math.log1p(math.exp(-2.0)) + math.log1p(math.exp(4.0)) - 2.0) / 2
    assert float(alignment_loss(closer, farther, 0.1, tie)) == pytest.approx(expected, rel=1e-5)


def test_a_tie_pulls_the_distances_together():
    same, farther = torch.tensor([True]), torch.tensor([0.4])
    losses = [float(alignment_loss(torch.tensor([d]), farther, 0.1, same)) for d in (0.2, 0.4, 0.6)]
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]


def test_accuracy_leaves_ties_out():
    closer, farther = torch.tensor([0.1, 0.5, 0.3, 0.0]), torch.tensor([0.2, 0.4, 0.3, 1.0])
    assert triplet_accuracy(closer, farther) == pytest.approx(2.5 / 4)
    ties = torch.tensor([False, False, True, True])
    assert triplet_accuracy(closer, farther, ties) == pytest.approx(0.5)
    assert math.isnan(triplet_accuracy(closer, farther, torch.ones(4, dtype=torch.bool)))


def test_the_gradient_reaches_the_encoder_through_the_cost_alone():
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 5, 3, dtype=torch.float64)
    video_distance(x, y, 0.1).sum().backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0
    assert float(video_distance(y, y, 0.0).abs().max()) == pytest.approx(0, abs=1e-12)


def walks(rng, shape):
    """Random walks: the end of the video stands out."""
    steps = rng.normal(size=shape)
    steps[:, 0] *= 2
    return np.cumsum(steps, axis=1)


def paths(rng, shape):
    """From a start to a goal, with noise: what videos of a task do."""
    start, goal = rng.normal(size=(2, shape[0], 1, shape[2]))
    at = np.linspace(0, 1, shape[1])[None, :, None]
    return start * (1 - at) + goal * at + 0.2 * rng.normal(size=shape)


def clouds(rng, shape):
    """Frames scattered around one point per video."""
    return rng.normal(size=shape) + rng.normal(size=(shape[0], 1, shape[2]))


def noise(rng, shape):
    """Frames without any relation to each other."""
    return rng.normal(size=shape)


class Planted:
    """Videos that are a hidden rotation of relevant and nuisance paths; people see the former."""

    def __init__(self, seed, world, nuisance=NUISANCE, loud=1.0):
        self.rng, self.world, self.loud = np.random.default_rng(seed), world, loud
        self.size = RELEVANT + nuisance
        self.rotation = np.linalg.qr(self.rng.normal(size=(self.size, self.size)))[0]

    def videos(self, count):
        drawn = self.world(self.rng, (count, FRAMES, self.size))
        drawn[..., RELEVANT:] *= self.loud
        hidden = torch.from_numpy(drawn).float()
        return hidden[..., :RELEVANT], hidden @ torch.from_numpy(self.rotation).float()

    def energy(self, weight):
        """Share of a linear encoder's weight on the relevant directions."""
        mixed = weight.detach().double().numpy() @ self.rotation.T
        return float(np.square(mixed[:, :RELEVANT]).sum() / np.square(mixed).sum())


def trained(parameters, loss, count, rng, steps=300):
    optimizer = torch.optim.Adam(parameters, lr=1e-2, weight_decay=1e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.from_numpy(rng.choice(count, 32))).backward()
        optimizer.step()


def rapl(world, relevant, seen, count, seed):
    torch.manual_seed(seed)
    encoder = nn.Linear(seen.shape[-1], SIZE, bias=False)
    rng = np.random.default_rng(seed)
    triplets = np.stack([rng.choice(len(seen), 3, replace=False) for _ in range(count)])
    a, p, n = (relevant[triplets[:, k]] for k in range(3))
    wrong = (video_distance(a, p, 0.0) > video_distance(a, n, 0.0)).numpy()
    triplets[wrong] = triplets[wrong][:, [0, 2, 1]]
    t = torch.from_numpy(triplets)

    def loss(pick):
        a, p, n = (encoder(seen[t[pick, k]]) for k in range(3))
        both = video_distance(torch.cat([a, a]), torch.cat([p, n]), 0.1)
        return alignment_loss(*both.chunk(2), 0.1)

    trained(encoder.parameters(), loss, count, rng)
    return encoder, accuracy(encoder, seen, t)


def rlhf(truth, seen, count, seed):
    """Christiano et al.'s reward: a network summed over frames, Bradley-Terry on pairs."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(seen.shape[-1], 32), nn.ReLU(), nn.Linear(32, 1))
    rng = np.random.default_rng(seed)
    pairs = np.stack([rng.choice(len(seen), 2, replace=False) for _ in range(count)])
    wrong = (truth[pairs[:, 0]] < truth[pairs[:, 1]]).numpy()
    pairs[wrong] = pairs[wrong][:, ::-1]
    t = torch.from_numpy(pairs)

    def loss(pick):
        better, worse = (network(seen[t[pick, k]]).sum((1, 2)) for k in range(2))
        return nn.functional.softplus(worse - better).mean()

    trained(network.parameters(), loss, count, rng)
    return network


def held_out_accuracy(encoder, relevant, seen, seed):
    rng = np.random.default_rng(seed + 1000)
    t = torch.from_numpy(np.stack([rng.choice(len(seen), 3, replace=False) for _ in range(200)]))
    near, far = (video_distance(relevant[t[:, 0]], relevant[t[:, k]], 0.0) for k in (1, 2))
    t[near > far] = t[near > far][:, [0, 2, 1]]
    return accuracy(encoder, seen, t)


@torch.no_grad()
def accuracy(encoder, seen, t):
    z = encoder(seen)
    return triplet_accuracy(*(video_distance(z[t[:, 0]], z[t[:, k]], 0.0) for k in (1, 2)))


@torch.no_grad()
def compared(seed, world, count=150, **more):
    world = Planted(seed, world, **more)
    (relevant, seen), (held_relevant, held) = world.videos(120), world.videos(100)
    expert = 0
    truth, held_truth = (
        -video_distance(v, relevant[:1].expand_as(v), 0.0) for v in (relevant, held_relevant)
    )
    with torch.enable_grad():
        encoder, fitted = rapl(world, relevant, seen, count, seed)
        network = rlhf(truth, seen, count, seed)
    fresh = nn.Linear(seen.shape[-1], SIZE, bias=False)
    scores = {}
    for name, e in (("rapl", encoder), ("untrained", fresh)):
        reference = e(seen[expert : expert + 1]).expand(len(held), -1, -1)
        scores[name] = spearman(
            (-video_distance(e(held), reference, 0.0)).numpy(), held_truth.numpy()
        )
    scores["rlhf"] = spearman(network(held).sum((1, 2)).numpy(), held_truth.numpy())
    return {
        **scores,
        "energy": world.energy(encoder.weight),
        "fitted": fitted,
        "held_out": held_out_accuracy(encoder, held_relevant, held, seed),
    }


def mean_of_seeds(world, **more):
    torch.set_num_threads(1)
    rows = [compared(seed, world, **more) for seed in range(5)]
    mean = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    print(world.__name__, {key: round(value, 3) for key, value in mean.items()})
    return mean


@pytest.mark.slow
def test_preferences_uncover_the_features_that_people_look_at():
    """150 triplets against 150 comparisons of the same person, five seeds, held-out videos."""
    mean = mean_of_seeds(paths)
    assert mean["rapl"] > mean["rlhf"]
    assert mean["rapl"] > mean["untrained"] + 0.3
    assert mean["held_out"] > 0.75
    assert mean["energy"] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("world", [walks, clouds, noise])
def test_other_worlds_where_the_rival_may_win(world):
    """What docs/rapl.md reports: no claim about the rival, only that alignment is learned."""
    mean = mean_of_seeds(world)
    assert mean["rapl"] > mean["untrained"] + 0.3
    assert mean["energy"] > 0.75


@pytest.mark.slow
def test_loud_nuisance_is_learned_by_heart_and_only_held_out_triplets_tell():
    """Twelve nuisance features, four times as loud: the training triplets look solved."""
    mean = mean_of_seeds(paths, nuisance=12, loud=4.0)
    assert mean["fitted"] > 0.9
    assert mean["held_out"] < 0.75
    assert mean["rapl"] < 0.6
