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
        generator: draws the frequencies.

    Returns:
        Weights and how much they helped; uniform weights where S or O is empty.
    """
    n = len(features)
    z = _standardised(features.T.unsqueeze(-1), features.new_full((n,), 1 / n)).squeeze(-1).T
    masks = _pairs(z, salient)
    uniform = z.new_full((n,), 1 / n)
    if masks is None:
        return Decorrelation(torch.ones_like(uniform), 0.0, 0.0, 1.0)
    logits = torch.zeros_like(uniform) if start is None else (start / start.sum()).log().clone()
    logits.requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=lr)
    for _ in range(steps):
        weights = logits.softmax(0)
        loss = _objective(z, masks, weights, frequencies, generator)
        shortfall = (least - _effective(weights)).clamp(min=0)
        optimizer.zero_grad()
        (loss + 10 * shortfall).backward()
        optimizer.step()
    weights = logits.detach().softmax(0)
    test = torch.Generator().manual_seed(int(generator.initial_seed()) ^ 0x5EED)
    state = test.get_state()
    before = _objective(z, masks, uniform, 8 * frequencies, test)
    after = _objective(z, masks, weights, 8 * frequencies, test.set_state(state))
    return Decorrelation(n * weights, float(before), float(after), float(_effective(weights)))


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
    shape = (z.shape[1], m)
    f = torch.randn(shape, generator=generator, dtype=z.dtype).to(z.device)
    b = 2 * torch.pi * torch.rand(shape, generator=generator, dtype=z.dtype).to(z.device)
    u = fourier_features(z, f, b)
    ours, others, counted = pairs
    squared = cross_correlation(u[ours], u[others], weights).square().mean((-2, -1))
    return squared[counted].mean()


def _effective(weights: Tensor) -> Tensor:
    return 1 / (weights.square().sum() * len(weights))


def _standardised(x: Tensor, weights: Tensor) -> Tensor:
    """Zero weighted mean and unit weighted deviation over n of Tensor["p n k"]."""
    centred = x - torch.einsum("n,pnk->pk", weights, x).unsqueeze(1)
    spread = torch.einsum("n,pnk->pk", weights, centred.square()).unsqueeze(1)
    return centred / (spread + 1e-8).sqrt()


def environment_saliency(
    features: Tensor, environment: Tensor, *, steps: int = 200, generator: torch.Generator
) -> Tensor:
    """Return how much each feature tells environments apart, Tensor["d"] >= 0.

    The mean over samples of |d log q(environment | z) / d z_i|, for a small classifier q trained
    on standardised features (SGFD; its form is reconstructed).

    Args:
        features: Tensor["n d"].
        environment: int Tensor["n"], from 0.
        steps: full-batch steps of Adam.
        generator: draws the classifier's weights.
    """
    n, d = features.shape
    z = _standardised(features.T.unsqueeze(-1), features.new_full((n,), 1 / n)).squeeze(-1).T
    sizes = ((d, 32), (32, int(environment.max()) + 1))
    layers = [
        (torch.randn(shape, generator=generator, dtype=z.dtype) / shape[0] ** 0.5)
        .to(z.device)
        .requires_grad_(True)
        for shape in sizes
    ]
    optimizer = torch.optim.Adam(layers, lr=0.02, weight_decay=1e-3)

    def log_likelihood(inputs: Tensor) -> Tensor:
        logits = (inputs @ layers[0]).tanh() @ layers[1]
        return logits.log_softmax(-1).gather(1, environment.unsqueeze(1)).squeeze(1)

    for _ in range(steps):
        optimizer.zero_grad()
        (-log_likelihood(z).mean()).backward()
        optimizer.step()
    inputs = z.detach().clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(log_likelihood(inputs).sum(), inputs)
    return slope.abs().mean(0)
