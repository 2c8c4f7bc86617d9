"""The saliency methods by name."""

from collections.abc import Callable
from dataclasses import dataclass

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.vision.saliency.attention import attention_gradient
from embodied_reward.vision.saliency.lrp import lrp_map
from embodied_reward.vision.saliency.maps import SaliencyMaps
from embodied_reward.vision.saliency.normgrad import Combine, normgrad
from embodied_reward.vision.saliency.target import Target


@dataclass(frozen=True)
class SaliencyOptions:
    """How maps are made.

    Attributes:
        method: a name of `METHODS`.
        layers: of `normgrad`; none takes the last layer at each resolution.
        combine: how `normgrad` combines layers, product or mean.
    """

    method: str = "normgrad"
    layers: tuple[str, ...] = ()
    combine: Combine = "product"

    def __post_init__(self) -> None:
        """Refuse what no method has. Raises ConfigError."""
        if self.method not in METHODS:
            raise ConfigError(
                f"no saliency method '{self.method}'; {did_you_mean(self.method, METHODS)}"
            )
        if self.layers and self.method != "normgrad":
            raise ConfigError(
                f"--saliency={self.method} reads all layers; --saliency_layers is for normgrad"
            )


METHODS: dict[str, Callable[[Target, SaliencyOptions], SaliencyMaps]] = {
    "normgrad": lambda target, options: normgrad(target, options.layers, options.combine),
    "attention": lambda target, options: attention_gradient(target),
    "lrp": lambda target, options: lrp_map(target),
}


def explain(target: Target, options: SaliencyOptions | None = None) -> SaliencyMaps:
    """Return a map for every picture, at the pictures' size.

    Raises:
        ConfigError: the method does not fit the network, or a layer is unknown.
    """
    options = options or SaliencyOptions()
    return METHODS[options.method](target, options)
