r"""Sample weights that make some features independent of the others.

SGFD (Wang et al. 2023, arXiv:2310.05086) weighs samples so that features that shift between
environments (salient, S) no longer go with the rest (O):

    min over w in the simplex   sum over i in S, j in O of || corr_w(u_i, u_j) ||_F^2

where u_i are random Fourier features of feature i, `sqrt(2/m) [cos(f x + b), sin(f x + b)]` with
f ~ N(0, 1) and b ~ U(0, 2 pi) (Rahimi and Recht 2007), and the feature itself. Its ancestor
StableNet (Zhang et al. 2021, arXiv:2104.07876) decorrelates all pairs: `salient=None`.

Reconstructed: the paper's text was not at hand, so the restriction to S x O follows its abstract.
Correlations stand in place of covariances, which weights can also shrink by giving all mass to one
cell; and a floor on the effective sample size `1 / sum w^2` replaces StableNet's penalty.

Reweighting helps only if the target depends on the features alone once S is known. It cannot help
where the target itself causes a spurious feature, nor where two features depend on it only jointly.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_reward.math.environment_classifier import standardised


@dataclass(frozen=True)
class Decorrelation:
    """What `decorrelate` found.

    Attributes:
        weights: Tensor["n"] >= 0 with mean 1.
        before: mean squared correlation with uniform weights, under fresh frequencies.
        after: the same with `weights`.
        effective: effective sample size as a share of n, in (0, 1].
    """

    weights: Tensor
    before: float
    after: float
    effective: float


def fourier_features(z: Tensor, frequencies: Tensor, phases: Tensor) -> Tensor:
    """Return random Fourier features and the feature itself, Tensor["d n 2m+1"].

    Args:
        z: standardised Tensor["n d"].
        frequencies: Tensor["d m"].
        phases: Tensor["d m"] [rad].
    """
    angle = z.T.unsqueeze(-1) * frequencies.unsqueeze(1) + phases.unsqueeze(1)
    scale = (2.0 / frequencies.shape[1]) ** 0.5
    return torch.cat([scale * angle.cos(), scale * angle.sin(), z.T.unsqueeze(-1)], -1)


def cross_correlation(a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Return weighted correlations between all columns, Tensor["p q k l"].

    Args:
        a: Tensor["p n k"].
        b: Tensor["q n l"].
        weights: Tensor["n"] that sum to 1.
    """
    a, b = _standardised(a, weights), _standardised(b, weights)
    return torch.einsum("n,pnk,qnl->pqkl", weights, a, b)


def decorrelate(
    features: Tensor,
    salient: Tensor | None,
    *,
    frequencies: int = 5,
    steps: int = 300,
    lr: float = 0.05,
    least: float = 0.3,
    start: Tensor | None = None,
    columns: int | None = None,
    measured: int = 40,
    generator: torch.Generator,
) -> Decorrelation:
    """Learn sample weights.

    Args:
        features: Tensor["n d"]; standardised here.
        salient: bool Tensor["d"], the features S; None takes all pairs (StableNet).
        frequencies: m per feature, drawn anew at every step.
        steps: of Adam on the logits of the weights.
        lr: its learning rate.
        least: floor of the effective sample size as a share of n.
        start: weights Tensor["n"] to go on from (warm start); default uniform.
        columns: features of each side that a step looks at, drawn anew (an unbiased estimate of
            the objective that bounds the work); None takes all.
        measured: frequencies per feature by which `before` and `after` are measured.
        generator: draws frequencies and columns.

    Returns:
        Weights and how much they helped; uniform weights where S or O is empty.
    """
    n = len(features)
    z = standardised(features)
    pairs, uniform = _pairs(z, salient), z.new_full((n,), 1 / n)
    if pairs is None:
        return Decorrelation(torch.ones_like(uniform), 0.0, 0.0, 1.0)
    logits = torch.zeros_like(uniform) if start is None else (start / start.sum()).log().clone()
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=lr)
    for _ in range(steps):
        weights = logits.softmax(0)
        seen = _some(pairs, columns, generator)
        loss = _objective(z, seen, weights, frequencies, generator)
        shortfall = (least - effective_share(weights)).clamp(min=0)
        optimizer.zero_grad()
        (loss + 10 * shortfall).backward()
        optimizer.step()
    weights = floored(logits.detach().softmax(0), least)
    test = torch.Generator().manual_seed(int(generator.initial_seed()) ^ 0x5EED)
    seen, state = _some(pairs, columns, test), test.get_state()
    with torch.no_grad():
        before = _objective(z, seen, uniform, measured, test)
        after = _objective(z, seen, weights, measured, test.set_state(state))
    share = float(effective_share(weights))
    return Decorrelation(n * weights, float(before), float(after), share)


def effective_share(weights: Tensor) -> Tensor:
    """Return the effective sample size of Tensor["n"] as a share of n, in (0, 1]."""
    return weights.sum().square() / (weights.square().sum() * len(weights))


def floored(weights: Tensor, least: float) -> Tensor:
    """Mix weights with uniform ones until the effective share of the samples is `least`.

    Args:
        weights: Tensor["n"] >= 0, not all 0; their sum is kept.
        least: floor in [0, 1].
    """
    mean = weights.mean()
    spread = (weights / mean - 1).square().mean()  # the share is 1 / (1 + spread)
    if least <= 0 or spread <= 1 / least - 1:
        return weights
    return mean + (weights - mean) * ((1 / least - 1) / spread).sqrt()


def _some(
    pairs: tuple[Tensor, Tensor, Tensor], columns: int | None, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw up to `columns` features of each side."""
    if columns is None:
        return pairs
    ours, others, counted = pairs
    p, q = (
        torch.randperm(len(side), generator=generator)[:columns].to(side.device)
        for side in (ours, others)
    )
    return ours[p], others[q], counted[p][:, q]


def _pairs(z: Tensor, salient: Tensor | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return S, O and which pairs count, Bool["p q"]; None where there is no pair."""
    d = z.shape[1]
    everything = torch.arange(d, device=z.device)
    if salient is None:
        return (everything, everything, ~torch.eye(d, dtype=torch.bool, device=z.device))
    ours, others = everything[salient], everything[~salient]
    if not len(ours) or not len(others):
        return None
    return ours, others, torch.ones(len(ours), len(others), dtype=torch.bool, device=z.device)


def _objective(
    z: Tensor,
    pairs: tuple[Tensor, Tensor, Tensor],
    weights: Tensor,
    m: int,
    generator: torch.Generator,
) -> Tensor:
    ours, others, counted = pairs
    shape = (z.shape[1], m)
    f = torch.randn(shape, generator=generator, dtype=z.dtype).to(z.device)
    b = 2 * torch.pi * torch.rand(shape, generator=generator, dtype=z.dtype).to(z.device)
    a, b = (fourier_features(z[:, side], f[side], b[side]) for side in (ours, others))
    squared = cross_correlation(a, b, weights).square().mean((-2, -1))
    return squared[counted].mean()


def _standardised(x: Tensor, weights: Tensor) -> Tensor:
    """Zero weighted mean and unit weighted deviation over n of Tensor["p n k"]."""
    centred = x - torch.einsum("n,pnk->pk", weights, x).unsqueeze(1)
    spread = torch.einsum("n,pnk->pk", weights, centred.square()).unsqueeze(1)
    return centred / (spread + 1e-8).sqrt()
