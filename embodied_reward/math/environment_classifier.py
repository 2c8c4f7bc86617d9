"""Which features tell environments apart: the slope of a small environment classifier.

SGFD (Wang et al. 2023, arXiv:2310.05086) marks features that shift between training environments
by the saliency of a classifier q(environment | features); its form is reconstructed:

    s_i = mean over samples of | d log q(environment | z) / d z_i |
"""

import torch
from torch import Tensor


class EnvironmentClassifier:
    """One hidden layer of tanh units over standardised features, trained by full-batch Adam.

    Args:
        features: number of features d.
        environments: number of environments.
        generator: draws the weights.
        dtype: of the weights.
        device: of the weights.
        lr: learning rate of Adam.
    """

    HIDDEN = 32

    def __init__(
        self,
        features: int,
        environments: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        lr: float = 0.02,
    ) -> None:
        self.layers = [
            (torch.randn(shape, generator=generator, dtype=dtype) / shape[0] ** 0.5)
            .to(device)
            .requires_grad_(True)
            for shape in ((features, self.HIDDEN), (self.HIDDEN, environments))
        ]
        self.optimizer = torch.optim.Adam(self.layers, lr=lr, weight_decay=1e-3)

    def log_likelihood(self, z: Tensor, environment: Tensor) -> Tensor:
        """Return log q(environment | z) Tensor["n"] of Tensor["n d"] and int64 Tensor["n"]."""
        return self._logits(z).log_softmax(-1).gather(1, environment.unsqueeze(1)).squeeze(1)

    @torch.no_grad()
    def accuracy(self, z: Tensor, environment: Tensor) -> float:
        """Return the share of samples whose environment is named."""
        return float((self._logits(z).argmax(-1) == environment).float().mean())

    def fit(self, z: Tensor, environment: Tensor, steps: int) -> None:
        """Go on training on Tensor["n d"] and int64 Tensor["n"]."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            (-self.log_likelihood(z, environment).mean()).backward()
            self.optimizer.step()

    def saliency(self, z: Tensor, environment: Tensor) -> Tensor:
        """Return s of the module docstring, Tensor["d"] >= 0."""
        inputs = z.detach().clone().requires_grad_(True)
        total = self.log_likelihood(inputs, environment).sum()
        (slope,) = torch.autograd.grad(total, inputs)
        return slope.abs().mean(0)

    def _logits(self, z: Tensor) -> Tensor:
        return (z @ self.layers[0]).tanh() @ self.layers[1]


def environment_saliency(
    features: Tensor, environment: Tensor, *, steps: int = 200, generator: torch.Generator
) -> Tensor:
    """Return how much each feature tells environments apart, Tensor["d"] >= 0.

    Args:
        features: Tensor["n d"]; standardised here.
        environment: int64 Tensor["n"], from 0.
        steps: full-batch steps of Adam.
        generator: draws the classifier's weights.
    """
    z = standardised(features)
    classifier = EnvironmentClassifier(
        z.shape[1],
        int(environment.max()) + 1,
        generator=generator,
        dtype=z.dtype,
        device=z.device,
    )
    classifier.fit(z, environment, steps)
    return classifier.saliency(z, environment)


def standardised(features: Tensor) -> Tensor:
    """Return Tensor["n d"] with zero mean and unit deviation of every feature."""
    centred = features - features.mean(0)
    return centred / (centred.square().mean(0) + 1e-8).sqrt()
