r"""Sample weights for the batches of a training run, learned beside it: SGFD and StableNet.

A batch is too small for the correlations of its features, so it is decorrelated together with a
memory of earlier samples (`math/decorrelation.py`); only its own weights are used. SGFD
(arXiv:2310.05086) takes the features by which a classifier tells the training variants apart,
those of high saliency, against the rest; StableNet (arXiv:2104.07876) all pairs.

Warm starts: a remembered sample goes on from its weight, a new one starts at the geometric mean
of its nearest remembered neighbours' weights, and the classifier is trained on. So a few inner
steps per batch do.

Deviations: the memory holds the newest samples themselves instead of StableNet's moving average
over batches; the floor of the effective sample size holds exactly, for pool and batch. While the
classifier names the variants of unseen batches no better than chance, no feature is salient and
weights stay uniform: StableNet knows no such test.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.math.decorrelation import Decorrelation, decorrelate, effective_share, floored
from embodied_reward.math.environment_classifier import EnvironmentClassifier, standardised
from embodied_reward.training.decorrelation_config import DecorrelationConfig
from embodied_reward.training.optimizer_state import load_optimizer, save_optimizer

NEIGHBOURS = 5
SKILL = 0.1
"""Share of the way from chance to certainty from which on the classifier is believed."""
FORGET = 0.9
"""Decay of the moving average of that skill, per batch."""


class BatchWeights:
    """Callable that gives every batch its weights; `logs` says what the newest ones are worth.

    Args:
        config: its type is not "none".
        variants: number of training variants; 1 is enough for StableNet.
        seed: every call is a function of (seed, number of the call, state).

    Raises:
        ConfigError: SGFD with a single variant.
    """

    def __init__(self, config: DecorrelationConfig, *, variants: int, seed: int) -> None:
        if config.type == "sgfd" and variants < 2:
            raise ConfigError(
                "--decorrelation.type=sgfd learns what tells training variants apart and found one "
                "variant only: give several data sets, one per variant "
                "(--dataset.root=RED,GREEN,BLUE), or use --decorrelation.type=stablenet"
            )
        self.config, self.variants, self.seed = config, variants, seed
        self.calls, self.skill = 0, 0.0
        self.memory: tuple[Tensor, Tensor, Tensor] | None = None
        self.classifier: EnvironmentClassifier | None = None
        self.logs: dict[str, float] = {}

    def __call__(self, features: Tensor, variant: Tensor) -> Tensor:
        """Return weights Tensor["n"] >= 0 with mean 1; nothing is back-propagated into features.

        Args:
            features: Tensor["n d"], the learner's own.
            variant: int64 Tensor["n"] in [0, variants).
        """
        n, features = len(features), features.detach().float()
        variant = variant.to(features.device)
        pool, variants, start = self._pool(features, variant)
        generator = torch.Generator().manual_seed(self._call_seed())
        salient = self._salient(pool, variants, n, generator)
        found = self._found(pool, salient, start, generator)
        self._remember(pool, variants, found.weights)
        own = found.weights[:n]
        weights = floored(own / own.mean(), self.config.min_ess)
        self._log(found, salient, weights, pool.shape[1])
        return weights

    @property
    def warm(self) -> bool:
        """Whether the uniform start is over."""
        return self.calls > self.config.warmup

    def save(self, folder: Path) -> None:
        """Write memory, classifier and counters into `folder`."""
        tensors = {}
        if self.memory is not None:
            names = ("features", "variants", "weights")
            tensors = dict(zip(names, self.memory, strict=True))
        if self.classifier is not None:
            save_optimizer(self.classifier.optimizer, folder, "classifier_optimizer")
            tensors |= {f"layer{i}": t.detach() for i, t in enumerate(self.classifier.layers)}
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / "decorrelation.safetensors")
        state = {"type": self.config.type, "calls": self.calls, "skill": self.skill}
        (folder / "decorrelation.json").write_text(json.dumps(state))

    def load(self, folder: Path, device: torch.device) -> None:
        """Restore what `save` wrote. Raises CheckpointError: it was written without weights."""
        if not (folder / "decorrelation.json").is_file():
            raise CheckpointError(
                f"'{folder}' was written by a run without --decorrelation.type; resume with the "
                "configuration that the run was started with"
            )
        state = json.loads((folder / "decorrelation.json").read_text())
        tensors = load_file(folder / "decorrelation.safetensors", device=str(device))
        self.calls, self.skill = state["calls"], state["skill"]
        if "features" in tensors:
            self.memory = tensors["features"], tensors["variants"], tensors["weights"]
        if "layer0" in tensors:
            d = len(tensors["layer0"])
            self.classifier = self._new_classifier(d, device, torch.Generator())
            for layer, saved in zip(self.classifier.layers, _layers(tensors), strict=True):
                layer.data.copy_(saved)
            load_optimizer(self.classifier.optimizer, folder, "classifier_optimizer")

    def _call_seed(self) -> int:
        self.calls += 1
        return int(np.random.SeedSequence([self.seed, self.calls]).generate_state(1)[0])

    def _pool(self, features: Tensor, variant: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features, variants and starting weights of the batch, then of the memory."""
        fresh = features.new_ones(len(features))
        if self.memory is None:
            return features, variant, fresh
        known, variants, weights = self.memory
        pool = torch.cat([features, known])
        if self.warm:
            fresh = _neighbours(standardised(pool), len(features), weights)
        return pool, torch.cat([variant, variants]), torch.cat([fresh, weights])

    def _salient(
        self, pool: Tensor, variants: Tensor, n: int, generator: torch.Generator
    ) -> Tensor | None:
        """Return which features shift, bool Tensor["d"]; None takes all pairs."""
        if self.config.type == "stablenet":
            return None
        z = standardised(pool)
        if self.classifier is None:
            self.classifier = self._new_classifier(z.shape[1], z.device, generator)
        self._judge(self.classifier.accuracy(z[:n], variants[:n]), variants[:n])
        self.classifier.fit(z, variants, self.config.classifier_steps)
        saliency = self.classifier.saliency(z, variants)
        if self.skill <= SKILL:
            return torch.zeros_like(saliency).bool()
        if self.config.salient == 0:
            return saliency > saliency.mean()
        count = max(round(self.config.salient * len(saliency)), 1)
        return saliency >= saliency.topk(count).values[-1]

    def _new_classifier(
        self, features: int, device: torch.device, generator: torch.Generator
    ) -> EnvironmentClassifier:
        return EnvironmentClassifier(features, self.variants, generator=generator, device=device)

    def _judge(self, accuracy: float, variant: Tensor) -> None:
        """Update the skill by a batch that the classifier was not trained on."""
        chance = float(variant.bincount(minlength=self.variants).max()) / len(variant)
        if chance < 1:
            newest = (accuracy - chance) / (1 - chance)
            self.skill = FORGET * self.skill + (1 - FORGET) * newest

    def _found(
        self, pool: Tensor, salient: Tensor | None, start: Tensor, generator: torch.Generator
    ) -> Decorrelation:
        c = self.config
        if not self.warm:
            return Decorrelation(torch.ones_like(start), float("nan"), float("nan"), 1.0)
        return decorrelate(
            pool,
            salient,
            frequencies=c.frequencies,
            steps=c.steps,
            lr=c.lr,
            least=c.min_ess,
            start=start,
            columns=c.columns,
            measured=c.frequencies,
            generator=generator,
        )

    def _remember(self, *pool: Tensor) -> None:
        features, variants, weights = (part[: self.config.memory].clone() for part in pool)
        self.memory = (features, variants, weights) if len(features) else None

    def _log(
        self, found: Decorrelation, salient: Tensor | None, weights: Tensor, features: int
    ) -> None:
        self.logs = {"ess": float(effective_share(weights)), "pool_ess": found.effective}
        if self.warm:
            self.logs |= {"correlation_before": found.before, "correlation_after": found.after}
        if salient is not None:
            self.logs |= {"salient": float(salient.sum()), "classifier_skill": self.skill}


def _neighbours(z: Tensor, n: int, weights: Tensor) -> Tensor:
    """Return starting weights of the first n rows of Tensor["n+m d"], from the others' ones."""
    count = min(NEIGHBOURS, len(weights))
    nearest = torch.cdist(z[:n], z[n:]).topk(count, largest=False).indices
    return weights.clamp(min=1e-8).log()[nearest].mean(1).exp()


def _layers(tensors: dict[str, Tensor]) -> list[Tensor]:
    return [tensors[f"layer{i}"] for i in range(2)]
