"""Search of noise under a score: it never loses, keeps the norm, and counts what it asks."""

import math

import pytest
import torch
from scipy.stats import chi

from embodied_reward.policies.finetune.search import search

SHAPE = (8, 4)
SIZE = math.prod(SHAPE)


def normal(count, seed):
    return torch.randn((count, *SHAPE), generator=torch.Generator().manual_seed(seed))


TARGET = normal(1, 99)


def smooth(noise):
    """1 at the target, about .4 at other normal noise."""
    return torch.exp(-(noise - TARGET).square().flatten(1).mean(dim=1) / 2)


def steps_of(noise):
    """A staircase: high somewhere, and flat almost everywhere."""
    return torch.floor(4 * noise[:, 0, 0])


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_the_best_iterate_is_no_worse_than_the_start_and_its_norm_is_kept(gradient, seed):
    directions = torch.Generator().manual_seed(seed)
    found = search(
        smooth, normal(1, seed), steps=50, rate=5.0, gradient=gradient, generator=directions
    )
    assert found.score >= found.start == pytest.approx(float(smooth(normal(1, seed))))
    assert found.score == pytest.approx(float(smooth(found.noise[None])))
    low, high = chi.ppf([0.025, 0.975], SIZE)
    assert low - 1e-4 <= float(found.noise.norm()) <= high + 1e-4


def test_much_noise_keeps_its_norm_within_a_tenth():
    """Without the shell this score, which grows with the noise, would run away."""
    starts = torch.randn((2, 16, 16), generator=torch.Generator().manual_seed(1))
    found = search(lambda w: w.square().flatten(1).mean(dim=1), starts, steps=50, rate=5.0)
    assert found.score > found.start
    assert float(found.noise.norm()) == pytest.approx(16, rel=0.1)


@pytest.mark.parametrize(("gradient", "per_step"), [(True, 2), (False, 3)])
def test_calls_are_counted(gradient, per_step):
    asked = []

    def score(noise):
        asked.append(len(noise))
        return smooth(noise)

    generator = torch.Generator().manual_seed(0)
    found = search(score, normal(3, 0), steps=4, rate=1.0, gradient=gradient, generator=generator)
    # The backward pass through a denoising costs about as much as the forward one: ours is counted
    # as the evaluation at the new place.
    assert sum(asked) == found.calls == 3 * (1 + per_step * 4)


def test_no_steps_are_best_of_n():
    starts = normal(16, 1)
    found = search(smooth, starts, steps=0, rate=1.0)
    assert found.calls == 16
    assert torch.equal(found.noise, starts[smooth(starts).argmax()])


def gain(score, seed, steps=12):
    """Return search minus best-of-n, both with the same number of calls."""
    climbed = search(score, normal(4, seed), steps=steps, rate=5.0)
    drawn = search(score, normal(climbed.calls, 1000 + seed), steps=0, rate=1.0)
    assert drawn.calls == climbed.calls
    return climbed.score - drawn.score


def test_at_the_same_calls_search_wins_where_the_score_has_a_slope_and_loses_where_not():
    assert min(gain(smooth, seed) for seed in range(5)) > 0.1
    assert sum(gain(steps_of, seed) for seed in range(20)) < 0


def test_the_same_directions_give_the_same_noise():
    one, two, other = (
        search(
            smooth, normal(2, 0), steps=3, rate=1.0, gradient=False,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (7, 7, 8)
    )  # fmt: skip
    assert torch.equal(one.noise, two.noise)
    assert not torch.equal(one.noise, other.noise)
