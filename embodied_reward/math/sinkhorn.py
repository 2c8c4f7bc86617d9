r"""Optimal transport between sequences of frames, batched, ragged and on any device.

For costs C and uniform masses a, b on the valid rows and columns, the entropic plan is

    T* = argmin_T <T, C> + eps sum T (log T - 1),   T 1 = a,  T' 1 = b
       = exp(-C / eps + u + v)

and Sinkhorn's iteration fits the potentials u, v in turn (Cuturi 2013, arXiv:1306.0895). They are
kept as logarithms. Between two checks the kernel exp(-C/eps + u + v), which is then nearly a
plan, is scaled by plain matrix-vector products, and the scalings are absorbed into u and v
(Schmitzer 2019, arXiv:1610.06519); where they leave the range of the numbers, the same steps are
repeated with logarithms. With eps = 0 the plan is exact (an assignment), which needs as many
valid rows as columns and is then the faster way.

The reward of Haldar et al. (ROT, arXiv:2206.15469) and RAPL (arXiv:2412.04835) is

    r_t = - sum_t' C_tt' T*_tt',      sum_t r_t = - <T*, C>

It needs the whole episode, scales as 1 / length, and does not see the order of frames; the last
is mended by `context_cost` and `band` (TemporalOT, arXiv:2410.21795).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CHECK = 10
"""Iterations between two checks of the marginals."""
LARGEST_SCALING = 1e30
"""Scalings beyond this, or below its inverse, are computed with logarithms instead."""


@dataclass(frozen=True)
class Transport:
    """A batch of plans.

    Attributes:
        plan: Tensor["b t s"], zero outside the valid rows and columns.
        error: Tensor["b"], largest deviation of a column's mass from its marginal.
        iterations: how many were made.
        converged: bool Tensor["b"], whether the error is within the tolerance; without, the plan
            is not one between these masses (a band may allow none).
    """

    plan: Tensor
    error: Tensor
    iterations: int
    converged: Tensor


def cosine_cost(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - cos in [0, 2], Tensor["b t s"], of frames Tensor["b t d"] and Tensor["b s d"]."""
    return 1 - F.normalize(x, dim=-1) @ F.normalize(y, dim=-1).mT


def context_cost(
    cost: Tensor, width: int, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Return the mean cost of `width` successive frames, C_tt' -> mean_k C_{t+k, t'+k}.

    Beyond the last valid frame that frame is repeated.

    Args:
        cost: Tensor["b t s"].
        width: frames of context c >= 1; 1 returns the cost.
        rows: bool Tensor["b t"], valid rows, a prefix; None takes all.
        columns: bool Tensor["b s"], likewise.
    """
    (b, t, s), batch = cost.shape, torch.arange(len(cost), device=cost.device)
    last_row = _lengths(rows, b, t, cost.device)[:, None] - 1
    last_column = _lengths(columns, b, s, cost.device)[:, None] - 1
    i, j = (torch.arange(n, device=cost.device) for n in (t, s))
    shifted = [
        cost[
            batch[:, None, None],
            torch.minimum(i + k, last_row)[:, :, None],
            torch.minimum(j + k, last_column)[:, None, :],
        ]
        for k in range(width)
    ]
    return torch.stack(shifted).mean(0)


def band(
    shape: tuple[int, int, int],
    width: float,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return bool Tensor["b t s"]: frames at about the same share of their videos.

    With equal lengths |t - t'| <= width. With others the middles (t + 1/2) / length are compared,
    in frames of the longer video, and the cells of the monotone coupling are always allowed, so
    that there is a plan.

    Args:
        shape: (b, t, s).
        width: half the band [frames], >= 0.
        rows: bool Tensor["b t"], valid rows, a prefix; None takes all.
        columns: bool Tensor["b s"], likewise.
        device: of the result.
    """
    b, t, s = shape
    n = _lengths(rows, b, t, device)[:, None, None].double()
    m = _lengths(columns, b, s, device)[:, None, None].double()
    at = (torch.arange(t, device=device).double()[None, :, None] + 0.5) / n
    there = (torch.arange(s, device=device).double()[None, None, :] + 0.5) / m
    apart = (at - there).abs()
    slack = 1e-9
    near = apart * torch.maximum(n, m) <= width + slack
    return near | (apart < (1 / n + 1 / m) / 2 - slack)


def transport(
    cost: Tensor,
    epsilon: float,
    *,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    allowed: Tensor | None = None,
    iterations: int = 1000,
    tolerance: float = 1e-9,
    detach: bool = True,
) -> Transport:
    """Return the plans of a batch of costs between uniform masses.

    Args:
        cost: Tensor["b t s"], finite where valid.
        epsilon: strength of the entropy, in units of the cost; 0 computes the exact plan.
        rows: bool Tensor["b t"], which rows are valid; None takes all. At least one per item.
        columns: bool Tensor["b s"], likewise.
        allowed: bool Tensor["b t s"], cells that may carry mass; None allows all.
        iterations: at most.
        tolerance: of the columns' masses; the rows' are exact. Limited by the cost's precision.
        detach: whether the plan is a constant to autograd. Differentiating <T*, C> with T* held
            is exact for the regularised optimum (envelope theorem) and saves the unrolling.

    Raises:
        ValueError: shapes do not fit, an item has no valid row or column, or epsilon = 0 with
            unequal numbers of rows and columns, or without any assignment inside `allowed`.
    """
    log_a, log_b, cells = _masses(cost, rows, columns, allowed)
    if epsilon < 0:
        raise ValueError(f"epsilon = {epsilon}: need >= 0")
    if epsilon == 0:
        return _exact(cost, log_a, log_b, cells)
    kernel = (cost / -epsilon).masked_fill_(~cells, -torch.inf)
    tolerance = max(tolerance, 4 * torch.finfo(cost.dtype).eps)
    if not detach:
        return _unrolled(kernel, log_a, log_b, iterations, tolerance)
    with torch.no_grad():
        return _iterate(kernel, log_a, log_b, iterations, tolerance)


def step_rewards(cost: Tensor, plan: Tensor) -> Tensor:
    """Return r_t = -sum_t' C_tt' T_tt', Tensor["b t"]; their sum is minus the distance."""
    return -(cost * plan).sum(-1)


def best_reference(rewards: Tensor) -> Tensor:
    """Return for every item the reference with the largest episode sum, int64 Tensor["b"].

    Args:
        rewards: Tensor["b k t"], step rewards against each of k references, 0 where invalid.
    """
    return rewards.sum(-1).argmax(-1)


def _masses(
    cost: Tensor, rows: Tensor | None, columns: Tensor | None, allowed: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log masses (-inf where invalid) and the cells that may carry mass."""
    if cost.ndim != 3 or 0 in cost.shape:
        raise ValueError(f"the cost has shape {tuple(cost.shape)}; expected [b t s]")
    b, t, s = cost.shape
    rows = cost.new_ones(b, t, dtype=torch.bool) if rows is None else rows
    columns = cost.new_ones(b, s, dtype=torch.bool) if columns is None else columns
    if rows.shape != (b, t) or columns.shape != (b, s):
        raise ValueError(
            f"masks {tuple(rows.shape)} and {tuple(columns.shape)} for a cost {tuple(cost.shape)}"
        )
    if not (rows.any(1).all() and columns.any(1).all()):
        raise ValueError("an item has no valid row or no valid column")
    cells = rows[:, :, None] & columns[:, None, :]
    return (
        _log_mass(rows, cost),
        _log_mass(columns, cost),
        cells if allowed is None else (cells & allowed),
    )


def _log_mass(valid: Tensor, cost: Tensor) -> Tensor:
    mass = -valid.sum(-1, keepdim=True).to(cost).log()
    return torch.where(valid, mass, -torch.inf)


def _iterate(
    kernel: Tensor, log_a: Tensor, log_b: Tensor, iterations: int, tolerance: float
) -> Transport:
    """Work in rounds on the items that are not finished yet."""
    u, v = _start(kernel), torch.zeros_like(log_b)
    error, done = kernel.new_full((len(kernel),), torch.inf), 0
    rest = torch.arange(len(kernel), device=kernel.device)
    while len(rest) and done < iterations:
        some = kernel if len(rest) == len(kernel) else kernel[rest]
        item = (some, log_a[rest], log_b[rest], u[rest], v[rest])
        u[rest], v[rest], error[rest], used = _round(*item, iterations - done, tolerance)
        done += used
        # An error that is not a number never counts as converged.
        rest = torch.nonzero(~(error <= tolerance))[:, 0]
    return Transport(_plan(kernel, u, v), error, done, error <= tolerance)


def _start(kernel: Tensor) -> Tensor:
    """Return u that makes the largest entry of each row of the kernel 1."""
    largest = kernel.amax(2)
    return torch.where(largest > -torch.inf, -largest, 0.0)


def _round(
    kernel: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    u: Tensor,
    v: Tensor,
    most: int,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Iterate on one kernel until a quarter of the items is finished or the scalings are large.

    Returns u, v, the columns' errors Tensor["b"] and the number of iterations.
    """
    a, b = log_a.exp()[:, None, :], log_b.exp()[:, None, :]
    plan, smallest = _plan(kernel, u, v), torch.finfo(a.dtype).tiny
    transposed = plan.mT if _in_numpy(plan) else plan.mT.contiguous()
    x, y, used = (a > 0).to(a), (b > 0).to(b), 0
    columns = _times(x, plan)
    while True:
        count = min(CHECK, most - used)
        for _ in range(count):
            y = b / columns.clamp_(min=smallest)
            x = a / _times(y, transposed).clamp_(min=smallest)
            columns = _times(x, plan)
        used += count
        error = (y * columns - b).abs().amax((1, 2))
        grown = _growth(x, y)
        if grown > math.log(LARGEST_SCALING) or math.isnan(grown):
            u, v = _log_steps(kernel, log_a, log_b, u, used)
            columns = _plan(kernel, u, v).sum(1)
            return u, v, (columns - b[:, 0]).abs().amax(1), used
        finished = int((error <= tolerance).sum())
        if finished * 4 >= len(kernel) or used >= most or grown > math.log(LARGEST_SCALING) / 2:
            return u + _log(x), v + _log(y), error, used


def _in_numpy(matrix: Tensor) -> bool:
    return matrix.device.type == "cpu" and matrix.dtype in (torch.float32, torch.float64)


def _times(row: Tensor, matrix: Tensor) -> Tensor:
    """Return Tensor["b 1 s"] of Tensor["b 1 t"] and Tensor["b t s"].

    On a CPU by numpy, whose product calls BLAS's matrix-vector routine for every item, in either
    order of the matrix's axes. torch's batched product takes twice as long for a row and seven
    times as long for a column.
    """
    if not _in_numpy(matrix):
        return torch.bmm(row, matrix)
    return torch.from_numpy(np.matmul(row.numpy(), matrix.numpy()))


def _growth(x: Tensor, y: Tensor) -> float:
    """Return the largest absolute logarithm of the scalings."""
    return max(float(_log(z).abs().max()) for z in (x, y))


def _log(scaling: Tensor) -> Tensor:
    return torch.where(scaling > 0, scaling.log(), 0.0)[:, 0]


def _log_steps(
    kernel: Tensor, log_a: Tensor, log_b: Tensor, u: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    v = torch.zeros_like(log_b)
    for _ in range(count):
        v = _fit(log_b, kernel + u[:, :, None], 1)
        u = _fit(log_a, kernel + v[:, None, :], 2)
    return u, v


def _fit(log_mass: Tensor, kernel: Tensor, dim: int) -> Tensor:
    """Return log mass - logsumexp; 0 where there is no mass, or no cell that could carry it."""
    total = torch.where(kernel > -torch.inf, kernel, _FAR).logsumexp(dim)
    usable = (log_mass > -torch.inf) & (total > _FAR / 2)
    return torch.where(usable, log_mass.clamp(min=_FAR) - total, 0.0)


_FAR = -1e30
"""As good as -inf, without its undefined gradients."""


def _plan(kernel: Tensor, u: Tensor, v: Tensor) -> Tensor:
    # In place: a plan is written once to memory, whose first touch costs more than the sums.
    return (kernel + u[:, :, None]).add_(v[:, None, :]).exp_()


def _unrolled(
    kernel: Tensor, log_a: Tensor, log_b: Tensor, iterations: int, tolerance: float
) -> Transport:
    """Iterate with logarithms and autograd; every iteration is made."""
    u, v = _log_steps(kernel, log_a, log_b, torch.zeros_like(log_a), iterations)
    plan = _plan(kernel, u, v)
    error = (plan.sum(1) - log_b.exp()).abs().amax(-1).detach()
    return Transport(plan, error, iterations, error <= tolerance)


def _exact(cost: Tensor, log_a: Tensor, log_b: Tensor, cells: Tensor) -> Transport:
    rows, columns = log_a > -torch.inf, log_b > -torch.inf
    if bool((rows.sum(1) != columns.sum(1)).any()):
        raise ValueError(
            "an exact plan (epsilon = 0) needs equally many valid rows and columns; use "
            "epsilon > 0, or sample both videos at the same number of frames"
        )
    priced = torch.where(cells, cost, torch.inf).detach().double().cpu().numpy()
    plan = np.zeros(priced.shape)
    for k, (r, c) in enumerate(zip(rows.cpu().numpy(), columns.cpu().numpy(), strict=True)):
        i, j = linear_sum_assignment(priced[k][np.ix_(r, c)])
        plan[k, np.flatnonzero(r)[i], np.flatnonzero(c)[j]] = 1 / r.sum()
    found = torch.from_numpy(plan).to(cost)
    none = torch.zeros(len(cost), device=cost.device, dtype=cost.dtype)
    return Transport(found, none, 0, torch.ones_like(none, dtype=torch.bool))


def _lengths(valid: Tensor | None, b: int, size: int, device: torch.device | str) -> Tensor:
    if valid is None:
        return torch.full((b,), size, device=device)
    return valid.sum(-1)
