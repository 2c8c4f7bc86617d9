"""Where a scorer of pictures looks: its maps laid over the pictures it was given.

In process only, in the caller's thread, without cache: the trunk's activations are kept for the
gradient. Each picture is an item of its own.
"""

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.differentiable import score_inputs
from embodied_reward.scoring.scorer import Scorer, Trunk
from embodied_reward.scoring.transformers_trunk import TransformersTrunk
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.types import UInt8
from embodied_reward.vision.saliency import SaliencyMaps, SaliencyOptions, Target, explain
from embodied_reward.vision.saliency.maps import shares, together
from embodied_reward.vision.saliency.target import per_call


def explain_pictures(
    scorer: Scorer,
    frames: UInt8,
    options: SaliencyOptions | None = None,
    *,
    text: str = "",
    reference: UInt8 | None = None,
) -> SaliencyMaps:
    """Return a map for every picture, at the picture's own size.

    Args:
        scorer: scores single pictures.
        frames: UInt8["n h w 3"].
        options: the method.
        text: read with every picture; empty for none.
        reference: UInt8["h w 3"], a picture that every one is compared with.

    Raises:
        ConfigError: the scorer cannot score such items, or its trunk has no maps by this method.
    """
    network, trunk = network_of(scorer.trunk), scorer.trunk
    texts = (text,) if text and trunk.reads_texts else ()
    beside = None
    if reference is not None:
        with torch.no_grad():
            beside = trunk.forward(_inputs(trunk, reference[None]))
    found, step = [], per_call(*_inputs(trunk, frames[:1]).shape[-2:])
    for at in range(0, len(frames), step):
        inputs = _inputs(trunk, frames[at : at + step])
        target = Target(network, inputs, lambda x: score_inputs(scorer, x, texts, beside))
        maps = explain(target, options)
        found.append(_laid_back(trunk, maps, frames.shape[1], frames.shape[2]))
    return together(found)


def network_of(trunk: Trunk) -> nn.Module:
    """Return the network whose layers have names. Raises ConfigError for other trunks."""
    if isinstance(trunk, EncoderTrunk):
        return trunk.network
    if isinstance(trunk, TransformersTrunk):
        return getattr(trunk.network, "vision_model", trunk.network)
    raise ConfigError(
        f"a {type(trunk).__name__} does not show its network, so there is no map of where it looks"
    )


def _inputs(trunk: Trunk, frames: UInt8) -> Tensor:
    # A copy: decoded arrays may be read-only, which torch cannot express.
    return trunk.preprocess(torch.from_numpy(np.array(frames)).to(trunk.device))


def _laid_back(trunk: Trunk, maps: SaliencyMaps, height: int, width: int) -> SaliencyMaps:
    if not isinstance(trunk, TransformersTrunk):
        return maps.resized(height, width)  # the whole picture was resized
    placed = trunk.pixels.back(torch.from_numpy(maps.values), height, width)
    return shares(torch.where(torch.from_numpy(maps.ok)[:, None, None], placed, torch.nan))
