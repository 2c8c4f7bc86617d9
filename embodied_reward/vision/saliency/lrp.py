r"""Layer-wise relevance propagation through our convolutional encoder.

Relevance R_j of a layer's outputs goes back to its inputs i in proportion to what they gave
(Bach et al. 2015; rules as collected by Montavon et al., "Layer-Wise Relevance Propagation: An
Overview", 2019). With y_j = sum_i x_i w_ij + b_j:

    epsilon, linear layers    R_i = sum_j x_i w_ij / (y_j + epsilon sign y_j) R_j
    gamma, convolutions       the same with w + gamma w^+ and b + gamma b^+ (inputs are >= 0)
    box, first convolution    R_i = sum_j (x_i w_ij - l w_ij^+ - h w_ij^-) / (sum of these) R_j

`l` and `h` bound a pixel's value. ReLUs pass relevance on. The rules keep the sum: what the biases
take is counted (`Relevance.absorbed`), so that pixels + absorbed = what came in, up to epsilon.

It starts at the features z with R_k = z_k ds/dz_k. For a score that is linear in z without a
constant (a linear head) the sum of that is the score itself. The heads of reward models are not
linear: for them it is the score's linearisation at z, a deviation from propagating through them.
The other one is how GroupNorm and LayerNorm are treated (`chain.py`): their means count as biases.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from embodied_reward.errors import ConfigError
from embodied_reward.vision.saliency.chain import Chain, Stage, chain_of
from embodied_reward.vision.saliency.layers import recording
from embodied_reward.vision.saliency.maps import SaliencyMaps, exact, shares
from embodied_reward.vision.saliency.target import Target, gradients


@dataclass(frozen=True)
class LrpRules:
    """The rules' constants.

    Attributes:
        epsilon: keeps denominators from 0; takes a share of about epsilon / |y|.
        gamma: how much more positive contributions count in convolutions; 0 is epsilon's rule.
        box: first convolution's rule for pixels between bounds; False treats it as the others,
            which gives nothing to mid-grey pixels of our encoders (their input is 0).
    """

    epsilon: float = 1e-9
    gamma: float = 0.25
    box: bool = True

    def __post_init__(self) -> None:
        """Refuse constants without meaning. Raises ConfigError."""
        if self.epsilon <= 0 or self.gamma < 0:
            raise ConfigError(
                f"LRP needs epsilon > 0 and gamma >= 0, got {self.epsilon}, {self.gamma}"
            )


@dataclass(frozen=True)
class Relevance:
    """Where a score came from, n pictures.

    Attributes:
        pixels: float64 Tensor["n 3 h w"]; positive where a pixel raised the score.
        start: float64 Tensor["n"], relevance of the features.
        absorbed: float64 Tensor["n"], what biases and means took on the way.
    """

    pixels: Tensor
    start: Tensor
    absorbed: Tensor

    @property
    def map(self) -> Tensor:
        """Relevance of every pixel over its colours, signed Tensor["n h w"]."""
        return self.pixels.sum(1)


def lrp_map(target: Target, rules: LrpRules | None = None) -> SaliencyMaps:
    """Return the size of every pixel's relevance, whichever its sign. Raises as `lrp` does."""
    return shares(lrp(target, rules).map.abs())


def lrp(target: Target, rules: LrpRules | None = None) -> Relevance:
    """Propagate the score's relevance to the pixels.

    Raises:
        ConfigError: the encoder holds a layer without a rule.
    """
    rules, chain = rules or LrpRules(), chain_of(target.network)
    *inputs, features = _activations(chain, target.images)
    relevance = features * _gradient(target).reshape(features.shape)
    start, absorbed = relevance.sum(1), torch.zeros_like(relevance[:, 0])
    for place in reversed(range(len(chain.stages))):
        back = _BoxRule(chain) if rules.box and place == 0 else _ProportionalRule(rules)
        relevance, taken = back(chain.stages[place], inputs[place], relevance)
        absorbed = absorbed + taken
    return Relevance(relevance, start, absorbed)


def _gradient(target: Target) -> Tensor:
    """Return the score's gradient in the network's output, float64 Tensor["n d"]."""
    with torch.enable_grad(), recording({"features": target.network}) as found:
        total = target.total()
        if "features" not in found:  # a score that never looks
            found["features"] = target.network(target.images)
        (grad,) = gradients(total, [found["features"]])
    return exact(grad)


def _activations(chain: Chain, images: Tensor) -> list[Tensor]:
    """Return what every stage sees, and the features, in float64."""
    x = chain.scaled(exact(images))
    found = [x]
    with torch.no_grad():
        for stage in chain.stages:
            x = stage.forward(x.flatten(1) if stage.flatten else x)
            found.append(x)
    return found


class _ProportionalRule:
    """Epsilon for linear layers, gamma for convolutions."""

    def __init__(self, rules: LrpRules) -> None:
        self._rules = rules

    def __call__(self, stage: Stage, x: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relevance of the inputs, and what the biases took."""
        seen = x.flatten(1) if stage.flatten else x
        with torch.enable_grad():
            seen = seen.detach().requires_grad_(True)
            z = stage.linear(seen)
            a, b = stage.scale_and_shift(z.detach())
            gamma = self._rules.gamma if _takes_gamma(stage, seen) else 0.0
            out = a * z + (gamma * _positive(stage, a, seen) if gamma else 0.0)
            shift = b + gamma * b.clamp(min=0)
            share = relevance / _away_from_zero((out + shift).detach(), self._rules.epsilon)
            (back,) = torch.autograd.grad(out, seen, share)
        found = (seen.detach() * back).reshape(x.shape)
        return found, (shift * share).flatten(1).sum(1)


class _BoxRule:
    """For pixels that lie between bounds."""

    def __init__(self, chain: Chain) -> None:
        self._low, self._high = chain.low, chain.high

    def __call__(self, stage: Stage, x: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relevance of the inputs; biases take nothing."""
        seen = x.flatten(1) if stage.flatten else x
        bounds = (torch.full_like(seen, self._low), torch.full_like(seen, self._high))
        with torch.enable_grad():
            places = [p.detach().requires_grad_(True) for p in (seen, *bounds)]
            z = stage.linear(places[0])
            a, _ = stage.scale_and_shift(z.detach())
            out = a * z - _positive(stage, a, places[1]) - _positive(stage, -a, places[2], -1.0)
            # Nothing to share where every pixel under a filter is at its bound.
            safe = torch.where(out > 0, out, torch.ones_like(out)).detach()
            share = torch.where(out > 0, relevance / safe, 0.0)
            grads = torch.autograd.grad(out, places, share)
        found = sum(p.detach() * g for p, g in zip(places, grads, strict=True))
        left = torch.where(out > 0, 0.0, relevance).detach().flatten(1).sum(1)
        assert isinstance(found, Tensor)
        return found.reshape(x.shape), left


def _positive(stage: Stage, a: Tensor, x: Tensor, sign: float = 1.0) -> Tensor:
    """Return sign * (positive part of a W) x; with -a and -1 it is (negative part of a W) x."""
    weight = exact(stage.affine.weight)
    above = a.clamp(min=0) * stage.linear(x, weight.clamp(min=0))
    below = a.clamp(max=0) * stage.linear(x, weight.clamp(max=0))
    return sign * (above + below)


def _takes_gamma(stage: Stage, x: Tensor) -> bool:
    """The rule is for layers behind and before a ReLU: inputs and kept outputs not negative."""
    return isinstance(stage.affine, torch.nn.Conv2d) and stage.relu and bool((x >= 0).all())


def _away_from_zero(y: Tensor, epsilon: float) -> Tensor:
    return y + torch.where(y >= 0, epsilon, -epsilon)
