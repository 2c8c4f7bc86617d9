"""The gradient of a policy's true return with respect to what its training reward is made of.

    inner:  theta*(phi) = argmax J_phi(theta) - ridge / 2 |theta|^2    the learner, on its reward
    outer:  max over phi of J(theta*(phi))                             the reward that is meant

    dJ/dphi = d/dphi < grad_theta J_phi(theta), x >,   x = (ridge I - H)^-1 grad_theta J(theta)

with H the Hessian of J_phi in theta: the implicit function theorem at the inner optimum (BARFI,
Gupta et al. 2023, arXiv:2310.19007, rebuilt from its description). `terms` of the Neumann series

    (ridge I - H)^-1 v = step * sum_i (I - step (ridge I - H))^i v,   step < 2 / |ridge I - H|

do without the inverse. One term leaves step * v: the gradient through a single update of the
learner, which is all that `BilevelBlend` uses with large networks.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from embodied_reward.errors import NonFiniteError

Objective = Callable[[], Tensor]
"""A scalar that is to grow, with a graph to the parameters."""


def implicit_gradient(
    outer: Objective,
    inner: Objective,
    theta: Sequence[Tensor],
    phi: Tensor,
    *,
    ridge: float = 0.1,
    terms: int | None = None,
    step: float = 0.1,
) -> Tensor:
    """Return dJ/dphi, the direction in which `phi` makes the learner better at `outer`.

    Args:
        outer: J of `theta`.
        inner: J_phi of `theta` and `phi`, twice differentiable; the ridge is added here.
        theta: the learner's parameters, at or near the inner optimum.
        phi: parameters of the reward, any shape.
        ridge: > 0; makes the inner optimum unique.
        terms: of the Neumann series; None solves the linear system, for up to some 1,000
            parameters.
        step: of the Neumann series.

    Raises:
        NonFiniteError: an objective or its gradient is not finite.
    """
    theta = list(theta)
    value = _flat(torch.autograd.grad(outer(), theta, allow_unused=True), theta)
    slope = _flat(torch.autograd.grad(inner(), theta, create_graph=True, allow_unused=True), theta)
    if not (torch.isfinite(value).all() and torch.isfinite(slope).all()):
        raise NonFiniteError("a gradient of the two objectives of a learned blend is not finite")

    def product(v: Tensor) -> Tensor:
        found = torch.autograd.grad(slope, theta, v, retain_graph=True, allow_unused=True)
        return ridge * v - _flat(found, theta)

    if terms is None:
        matrix = torch.stack([product(row) for row in torch.eye(len(value), dtype=value.dtype)])
        x = torch.linalg.solve(matrix.T, value)
    else:
        x = neumann(product, value, terms, step)
    (found,) = torch.autograd.grad(slope, phi, x, allow_unused=True)
    return torch.zeros_like(phi) if found is None else found


def neumann(product: Callable[[Tensor], Tensor], v: Tensor, terms: int, step: float) -> Tensor:
    """Return step * sum_{i < terms} (I - step M)^i v, which tends to M^-1 v.

    Args:
        product: v -> M v.
        v: Tensor["n"].
        terms: at least 1, which gives step * v.
        step: below 2 / |M|.
    """
    total, power = v.clone(), v
    for _ in range(terms - 1):
        power = power - step * product(power)
        total = total + power
    return step * total


def _flat(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    pairs = zip(gradients, like, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in pairs])
