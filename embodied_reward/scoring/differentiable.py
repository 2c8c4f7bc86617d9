"""Gradients of a score in the pixels: in process only, without cache and without batching."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.scorer import Items, Scorer


def score_images(scorer: Scorer, images: Tensor, texts: Sequence[str] = ()) -> Tensor:
    """Score float images, one item each, and keep the graph.

    Args:
        scorer: must draw no random numbers.
        images: float Tensor["n 3 h w"] in [0, 1]; the dtype is kept where the trunk keeps it.
        texts: none, one for all, or one per image.

    Returns:
        Tensor["n"] with a `grad_fn`.

    Raises:
        ValueError: another number of texts.
    """
    n = len(images)
    if len(texts) not in (0, 1, n):
        raise ValueError(f"{len(texts)} texts for {n} images: give none, one, or one per image")
    features = scorer.trunk.forward(scorer.trunk.preprocess(images))
    written = scorer.trunk.encode_texts(texts).to(features) if texts else None
    text = np.full(n, -1) if not texts else np.zeros(n, int) if len(texts) == 1 else np.arange(n)
    zeros, alone = np.zeros(n, np.int64), np.arange(n)
    items = Items(
        features=features,
        offsets=np.arange(n + 1),
        time=torch.zeros(n, device=features.device),
        view=zeros,
        role=zeros,
        text_features=written,
        text=text,
        group=alone,
        user=np.full(n, -1),
        keys=tuple(i.to_bytes(16, "little") for i in range(n)),
    )
    return scorer.head(items).score


def score_gradient(
    scorer: Scorer, images: Tensor, texts: Sequence[str] = ()
) -> tuple[Tensor, Tensor]:
    """Return the scores Tensor["n"] and d score_i / d image_i, Tensor["n 3 h w"]."""
    with torch.enable_grad():
        pixels = images.detach().clone().requires_grad_(True)
        scores = score_images(scorer, pixels, texts)
        (gradient,) = torch.autograd.grad(scores.sum(), pixels)
    return scores.detach(), gradient
