"""Gradients of a score in the pixels: in process only, without cache and without batching."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.scorer import Items, Scorer
from embodied_reward.scoring.status import Role


def score_images(scorer: Scorer, images: Tensor, texts: Sequence[str] = ()) -> Tensor:
    """Score float images, one item each, and keep the graph.

    Args:
        scorer: must draw no random numbers.
        images: float Tensor["n 3 h w"] in [0, 1], on any device; the dtype is kept where the trunk
            keeps it.
        texts: none, one for all, or one per image.

    Returns:
        Tensor["n"] with a `grad_fn`.

    Raises:
        ValueError: another number of texts.
    """
    there = images.to(scorer.trunk.device)
    return score_inputs(scorer, scorer.trunk.preprocess(there), texts)


def score_inputs(
    scorer: Scorer, inputs: Tensor, texts: Sequence[str] = (), reference: Tensor | None = None
) -> Tensor:
    """Score what `trunk.preprocess` made, one item each, and keep the graph.

    Args:
        scorer: must draw no random numbers.
        inputs: Tensor["n ..."].
        texts: none, one for all, or one per image.
        reference: features Tensor["1 ..."] of a picture that every item is compared with.

    Returns:
        Tensor["n"] with a `grad_fn`.

    Raises:
        ValueError: another number of texts.
    """
    n = len(inputs)
    if len(texts) not in (0, 1, n):
        raise ValueError(f"{len(texts)} texts for {n} images: give none, one, or one per image")
    features, roles = scorer.trunk.forward(inputs), [Role.CURRENT]
    written = scorer.trunk.encode_texts(texts).to(features) if texts else None
    text = np.full(n, -1) if not texts else np.zeros(n, int) if len(texts) == 1 else np.arange(n)
    if reference is not None:
        beside = reference.to(features).expand_as(features)
        features, roles = torch.stack([beside, features], 1).flatten(0, 1), [Role.REFERENCE, *roles]
    rows = len(roles)
    items = Items(
        features=features,
        offsets=np.arange(n + 1) * rows,
        time=torch.zeros(n * rows, device=features.device),
        view=np.zeros(n * rows, np.int64),
        role=np.tile(np.array(roles, np.int64), n),
        text_features=written,
        text=text,
        group=np.arange(n),
        user=np.full(n, -1),
        keys=tuple(i.to_bytes(16, "little") for i in range(n)),
    )
    return scorer.head(items).score


def score_gradient(
    scorer: Scorer, images: Tensor, texts: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Return the scores Tensor["n"] and d score_i / d image_i, Tensor["n 3 h w"].

    Scores lie on the trunk's device, gradients on that of the images.
    """
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_(True)
        scores = score_images(scorer, pixels, texts)
        (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    return scores.detach(), gradient
