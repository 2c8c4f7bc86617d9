"""What sample weights can and cannot do, on four small worlds: the table of docs/decorrelation.md.

    uv run python benchmarks/decorrelation.py [--seeds=5] [--samples=2000]

Three causes decide the target; a fourth feature follows one of them, or the target itself, in 90 %
of the training and in 10 % of the shifted samples. Logistic regression with uniform and with
learned weights; accuracy on as many fresh samples as were trained on, shifted and not. Every
number is a mean over seeds. About ten seconds per seed on one core.
"""

import argparse

import numpy as np
import torch

from embodied_reward.math.decorrelation import decorrelate

CASES = {
    "covariate": "it follows a cause of the target",
    "misspecified": "the same, a squared cause without linear correlation",
    "caused by the target": "it is caused by the target itself (the Colored-MNIST recipe)",
    "interaction": "it follows an interaction of two causes",
}
SALIENT = torch.tensor([False, False, False, True])
COLUMNS = (
    "shifted, plain",
    "shifted, weighted",
    "same, plain",
    "same, weighted",
    "effective samples",
    "correlation falls by",
)


def world(case, agree, rng, n=2000):
    """Three causes, and a feature that follows one of them, or the target, in most samples."""
    s = rng.normal(size=(n, 3))
    if case == "covariate":
        y = cause = np.sign(s[:, 0])
    elif case == "misspecified":
        y, cause = np.sign(s[:, 0] ** 2 - 1 + s[:, 1]), np.sign(s[:, 0] ** 2 - 1)
    elif case == "caused by the target":
        y = cause = np.where(rng.random(n) < 0.25, -np.sign(s[:, 0]), np.sign(s[:, 0]))
    else:
        cause = np.sign(s[:, 1] * s[:, 2])
        y = np.sign(s[:, 1] * s[:, 2] + 0.5 * s[:, 0])
    v = np.where(rng.random(n) < agree, cause, -cause) + 0.3 * rng.normal(size=n)
    return torch.tensor(np.column_stack([s, v])), torch.tensor((y > 0).astype(float))


def logistic(x, y, weights):
    b = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([b], max_iter=200)

    def closure():
        optimizer.zero_grad()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            x @ b[1:] + b[0], y, reduction="none"
        )
        loss = (weights * losses).mean() + 1e-3 * b.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return b.detach()


def accuracy(b, x, y):
    return float((((x @ b[1:] + b[0]) > 0) == (y > 0.5)).double().mean())


def measure(case, seed, n=2000):
    """Return the values of `COLUMNS` for one seed."""
    rng = np.random.default_rng(seed)
    x, y = world(case, 0.9, rng, n)
    shifted, same = world(case, 0.1, rng, n), world(case, 0.9, rng, n)
    found = decorrelate(x, SALIENT, generator=torch.Generator().manual_seed(seed))
    models = logistic(x, y, torch.ones_like(y)), logistic(x, y, found.weights)
    scores = [accuracy(b, *data) for data in (shifted, same) for b in models]
    return [*scores, found.effective, found.before / found.after]


def study(case, seeds=5, n=2000):
    """Return the mean of `measure` over seeds as a dictionary."""
    means = np.mean([measure(case, seed, n) for seed in range(seeds)], axis=0)
    return dict(zip(COLUMNS, means.tolist(), strict=True))


def row(case, found):
    a, b, c, d, effective, fall = found.values()
    cells = f"{a:.3f} -> {b:.3f} | {c:.3f} -> {d:.3f} | {effective:.2f} | {fall:.0f}x"
    return f"| {CASES[case]} | {cells} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    print("| case | accuracy under shift | without shift | effective samples | correlation |")
    print("|---|---|---|---|---|")
    for case in CASES:
        print(row(case, study(case, options.seeds, options.samples)), flush=True)


if __name__ == "__main__":
    main()
