"""A reward that broken pictures cannot raise: r = r_base - lambda p(artefact).

After "Understanding Reward Hacking in Text-to-Image RL" (arXiv:2601.03468): a light artefact
classifier as a regulariser of any reward model, as an optimised generator finds pictures that the
reward likes and people do not. Here it reads the features of the shared trunk, so that it costs no
second encoding. Reconstructed from the abstract: the network, lambda, and refitting on the current
samples.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embodied_reward.errors import ConfigError, NonFiniteError
from embodied_reward.scoring.heads.composed import status_of
from embodied_reward.scoring.scorer import Head, Items, Output, segment_sum


class ArtefactClassifier(nn.Module):
    """Probability that the picture behind a feature is broken.

    Args:
        dim: size d of a feature.
        hidden: units of the hidden layer.
    """

    def __init__(self, dim: int, hidden: int = 64) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("std", torch.ones(dim))
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits Tensor["n"] of features Tensor["n d"]."""
        return self.layers((features - self.mean) / self.std)[:, 0]  # type: ignore[operator]


def fit_artefacts(
    clean: Tensor,
    broken: Tensor,
    generator: torch.Generator,
    *,
    hidden: int = 64,
    steps: int = 300,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
) -> ArtefactClassifier:
    """Fit a fresh classifier, both kinds weighing the same.

    Refit it as a policy or generator moves: give its current samples that people or rules call
    broken as `broken`, and exchange the head (`ScoringCore.swap_head`); the features stay cached.

    Args:
        clean: features Tensor["n d"] of good pictures.
        broken: features Tensor["m d"] of broken ones.
        generator: of the weights' start values.
        hidden: units of the hidden layer.
        steps: full-batch AdamW steps.
        learning_rate: of AdamW.
        weight_decay: of AdamW.

    Raises:
        ConfigError: a kind is missing, or the features differ in size.
        NonFiniteError: a feature, or the loss, is not finite.
    """
    if not len(clean) or not len(broken) or clean.shape[1:] != broken.shape[1:]:
        raise ConfigError(
            f"an artefact classifier needs good and broken pictures with features of one size, "
            f"got {tuple(clean.shape)} and {tuple(broken.shape)}"
        )
    x = torch.cat([clean, broken]).detach().float()
    y = torch.cat([x.new_zeros(len(clean)), x.new_ones(len(broken))])
    if not torch.isfinite(x).all():
        raise NonFiniteError("a feature for the artefact classifier is not finite")
    model = ArtefactClassifier(x.shape[1], hidden).to(x.device)
    _start(model, generator)
    model.mean, model.std = x.mean(0), x.std(0).clamp_min(1e-6)
    weight = torch.where(y == 1, 0.5 / len(broken), 0.5 / len(clean))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    for _ in range(steps):
        loss = F.binary_cross_entropy_with_logits(model(x), y, weight, reduction="sum")
        if not torch.isfinite(loss):
            raise NonFiniteError("the loss of the artefact classifier is not finite")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def artefact_weight(gain: Tensor, probability: Tensor, *, share: float = 0.9) -> float:
    """Return the least lambda with which `share` of known corruptions do not pay.

    A corruption does not pay while gain - lambda probability <= 0. Where the classifier takes the
    corrupted picture for the better one, lambda makes it pay, so more is not always safer.

    Args:
        gain: how much the base's score rose by each corruption, Tensor["n"], n >= 1.
        probability: how much p(artefact) rose by it, Tensor["n"].
        share: in (0, 1].

    Raises:
        ConfigError: no lambda reaches this share; names the share that one reaches.
    """
    gain, probability = gain.double(), probability.double()
    ratio = gain / probability
    lower = torch.where(gain <= 0, 0.0, torch.where(probability > 0, ratio, torch.inf))
    upper = torch.where((gain <= 0) & (probability < 0), ratio, torch.inf)
    # One part in a million more, as rounding must not let the corruption at the bound pay.
    trials = torch.cat([lower.new_zeros(1), lower[lower.isfinite()] * (1 + 1e-6)]).sort().values
    started = torch.searchsorted(lower.sort().values, trials, right=True)
    ended = torch.searchsorted(upper.sort().values, trials)
    held = (started - ended) / len(gain)
    enough = torch.nonzero(held >= share)
    if not len(enough):
        best = float(held.max())
        raise ConfigError(
            f"at most {best:.0%} of the corruptions can be held back, not {share:.0%}: show the "
            f"classifier more of their kind, or ask for a share of {np.floor(100 * best) / 100:g}"
        )
    return float(trials[enough[0, 0]])


class ArtefactHead(Head):
    """Take lambda p(artefact) off another head's score.

    Args:
        base: the reward; on the same trunk.
        classifier: see `fit_artefacts`.
        weight: lambda >= 0, in units of the base's score; see `artefact_weight`.

    `Output.dims` holds the base's score and p(artefact), the mean over the item's frames.
    """

    dim_names = ("base", "artefact")

    def __init__(self, base: Head, classifier: ArtefactClassifier, weight: float) -> None:
        super().__init__()
        if not weight >= 0:
            raise ConfigError(f"weight={weight} of an artefact head must be >= 0")
        self.base, self.classifier, self.weight = base, classifier, weight
        self.groupwise = base.groupwise

    def forward(self, items: Items) -> Output:
        """See the base class; features of patches are averaged for the classifier."""
        output = self.base(items)
        features = items.features.flatten(1, -2).mean(1) if items.features.ndim > 2 else None
        logits = self.classifier(items.features if features is None else features)
        owner = torch.from_numpy(items.owner).to(logits.device)
        total = segment_sum(logits.sigmoid(), owner, len(items))
        probability = total / torch.bincount(owner, minlength=len(items))
        return Output(
            score=output.score - self.weight * probability,
            dims=torch.stack([output.score, probability], dim=1),
            aleatoric=output.aleatoric,
            epistemic=output.epistemic,
            status=status_of(output),
            detail=output.detail,
        )


@torch.no_grad()
def _start(model: nn.Module, generator: torch.Generator) -> None:
    """Draw start values from the generator instead of the global one."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            for parameter in (module.weight, module.bias):
                drawn = torch.rand(parameter.shape, generator=generator) * 2 * bound - bound
                parameter.copy_(drawn)
