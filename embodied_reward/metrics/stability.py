"""Does the potential stay when nothing that matters changed?

The analogue of paraphrase stability (ROBORMBENCH, arXiv:2609.05401) for a model that reads
pictures and no words: the same episode seen by a slightly moved camera or in other light. One
perturbation is drawn per episode, view and seed and held for all frames, as in a real scene.

Trap: a constant potential is perfectly stable. Read it beside the error.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from embodied_reward.metrics.predictor import Predictor
from embodied_reward.types import Episode, UInt8

Perturbation = Callable[[UInt8, np.random.Generator], UInt8]
"""(frames UInt8["t h w 3"], generator) -> frames of the same shape."""

JITTER = 0.04
"""Largest camera shift as a share of the picture's side."""

LIGHT = 0.2
"""Largest relative change of brightness, and half as much of each colour."""


def jitter_view(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Shift all frames alike by up to `JITTER` of their side, edges repeated."""
    reach = max(1, round(JITTER * min(frames.shape[1:3])))
    down, right = rng.integers(-reach, reach + 1, 2)
    rows = np.clip(np.arange(frames.shape[1]) + down, 0, frames.shape[1] - 1)
    columns = np.clip(np.arange(frames.shape[2]) + right, 0, frames.shape[2] - 1)
    return frames[:, rows][:, :, columns]


def change_light(frames: UInt8, rng: np.random.Generator) -> UInt8:
    """Scale brightness and each colour of all frames alike."""
    brightness, *colour = rng.uniform(-1, 1, 4)
    factor = (1 + LIGHT * brightness) * (1 + LIGHT / 2 * np.array(colour))
    return np.clip(frames * factor, 0, 255).round().astype(np.uint8)


PERTURBATIONS: Mapping[str, Perturbation] = {
    "view jitter": jitter_view,
    "lighting": change_light,
}


def perturbed(episode: Episode, perturbation: Perturbation, seed: int) -> Episode:
    """Return the episode with every view perturbed; the same seed gives the same pictures."""
    views = {
        name: perturbation(frames, np.random.default_rng([seed, episode.index, k]))
        for k, (name, frames) in enumerate(episode.views.items())
    }
    return dataclasses.replace(episode, views=views)


def stability(
    predictor: Predictor, episode: Episode, perturbation: Perturbation, *, draws: int, seed: int
) -> float:
    """Return the standard deviation of the potential over perturbations, averaged over frames.

    Args:
        predictor: a reward model or a baseline.
        episode: seen once as it is and `draws` times perturbed.
        perturbation: one of `PERTURBATIONS`, or another.
        draws: at least one.
        seed: of the perturbations.

    Returns:
        >= 0; NaN where no frame was scored every time.
    """
    seen = [episode, *(perturbed(episode, perturbation, seed + k) for k in range(draws))]
    curves = np.array([predictor.score_episode(e).potential for e in seen])
    curves = curves[:, np.isfinite(curves).all(0)]
    return float(curves.std(0).mean()) if curves.shape[1] else float("nan")
