"""Search of the noise that a plan is denoised from, under a differentiable score.

ReNO (Eyring et al. 2024, arXiv:2406.04312) climbs from one noise; several starts as in CARINOX
(2025, arXiv:2509.17458). What is maximised is

    score(denoised(w)) - weight (|w|^2 / 2 - (d - 1) log |w|)

whose second part is the negative log-density of |w| for normal noise of d numbers. Deviation: the
norm is also cut to the central 95 % of what normal noise has (a chi distribution), because steps of
this size leave the shell where the denoiser was trained before the second part calls them back. A
search needs as many denoisings as best-of-N has samples, so
the two are compared at the same number of `calls`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.stats import chi
from torch import Tensor

MOMENTUM = 0.9  # Nesterov's
LARGEST_GRADIENT = 0.1  # Euclidean norm per start
PERTURBATION = 0.1  # of the two-sided difference, per number, in standard deviations

type Score = Callable[[Tensor], Tensor]  # noise [n h a] -> [n], larger is better


@dataclass(frozen=True)
class Found:
    """Where a search ended.

    Attributes:
        noise: the best iterate of all starts, Tensor["h a"].
        score: its score, without the norm's part.
        start: score of the best start; never above `score`.
        calls: noises that were denoised and scored.
    """

    noise: Tensor
    score: float
    start: float
    calls: int


def search(
    score: Score,
    starts: Tensor,
    *,
    steps: int,
    rate: float,
    weight: float = 0.01,
    gradient: bool = True,
    generator: torch.Generator | None = None,
) -> Found:
    """Climb from every start; keep the best noise that was seen.

    Args:
        score: see `Score`; differentiable where `gradient` is set.
        starts: normal noise [n h a].
        steps: of each start; 0 is best-of-n.
        rate: step size of the ascent (ReNO: 5, with gradients cut to 0.1).
        weight: of the norm's part.
        gradient: climb along gradients; else along two-sided differences in one random direction
            (SPSA), which needs two calls per step and no gradient.
        generator: of those directions.
    """
    noise, velocity = starts.clone(), torch.zeros_like(starts)
    with torch.no_grad():
        best = score(noise)
    kept, first, calls = noise.clone(), float(best.max()), len(noise)
    for _ in range(steps):
        ahead = noise + MOMENTUM * velocity
        slope = _slope(score, ahead, gradient, generator) - weight * _norm_slope(ahead)
        size = slope.flatten(1).norm(dim=1).clamp(min=LARGEST_GRADIENT)
        velocity = MOMENTUM * velocity + rate * slope * (LARGEST_GRADIENT / size)[:, None, None]
        noise = _in_shell(noise + velocity)
        with torch.no_grad():
            now = score(noise)
        better = now > best
        best, kept = torch.where(better, now, best), torch.where(better[:, None, None], noise, kept)
        calls += len(noise) * (2 if gradient else 3)
    winner = int(best.argmax())
    return Found(kept[winner], float(best[winner]), first, calls)


def _slope(
    score: Score, noise: Tensor, gradient: bool, generator: torch.Generator | None
) -> Tensor:
    if gradient:
        leaf = noise.detach().requires_grad_(True)
        return torch.autograd.grad(score(leaf).sum(), leaf)[0]
    drawn = torch.randint(0, 2, noise.shape, generator=generator)
    direction = (2 * drawn - 1).to(noise.dtype)
    with torch.no_grad():
        up, down = (score(noise + s * PERTURBATION * direction) for s in (1, -1))
    return ((up - down) / (2 * PERTURBATION))[:, None, None] * direction


def _norm_slope(noise: Tensor) -> Tensor:
    """Return the gradient of |w|^2 / 2 - (d - 1) log |w|."""
    count = noise[0].numel()
    square = noise.square().flatten(1).sum(dim=1).clamp(min=1e-12)
    return noise * (1 - (count - 1) / square)[:, None, None]


def _in_shell(noise: Tensor) -> Tensor:
    """Scale noise to a norm that normal noise has, as often as 95 times in a hundred."""
    low, high = chi.ppf([0.025, 0.975], noise[0].numel())
    norm = noise.flatten(1).norm(dim=1).clamp(min=1e-12)
    return noise * (norm.clamp(low, high) / norm)[:, None, None]
