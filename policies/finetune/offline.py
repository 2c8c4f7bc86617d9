"""`preference` from a file: clone what people preferred, away from what they rejected.

Diffusion-DPO (Wallace et al. 2023, arXiv:2311.12908): episodes that were recorded have no denoising
chain whose likelihood could be followed, so the denoising error takes its place. Of a window w of
the better episode and a window l of the worse one, at one diffusion step and one noise,

    L = -log sigmoid(beta (gain(w) - gain(l))) + keep error(w),   gain = error of the start - error

with the squared error averaged over the actions that lie inside the episode. Windows are drawn
evenly from a pair's two episodes, pairs evenly from the file: a preference about episodes is taken
to hold for every plan in them, which it does not where a bad episode begins well.

Deviations: the second term, the cloning loss of what was preferred. DPO asks for a difference of
errors alone, and meets it also by errors that grow everywhere.

Optimal policy: not kept. It tends to the policy that the preferences describe under a price of
divergence from the start, as far as they can be read off single plans.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.data.preferences import Pair, Preference
from embodied_reward.errors import DatasetError
from embodied_reward.types import Int64

from ..diffusion.actor import DiffusionActor, with_images
from ..diffusion.cloning import Cloning
from ..diffusion.windows import Windows
from .plans import denoising_errors


def ordered_pairs(preferences: Sequence[Preference], indices: Sequence[int]) -> Int64:
    """Return the pairs that name a better episode.

    Args:
        preferences: judgements about episode indices.
        indices: of the episodes that were cut into windows, in their order.

    Returns:
        Int64["p 2"], positions of the better and the worse episode.

    Raises:
        DatasetError: there is none.
    """
    place = {index: position for position, index in enumerate(indices)}
    named = [p.better_worse for p in preferences if isinstance(p, Pair)]
    found = [[place[better], place[worse]] for better, worse in filter(None, named)]
    if not found:
        raise DatasetError(
            f"none of {len(preferences)} preferences names a better episode: ties and triplets do "
            "not say which plans to make more likely; compare two at a time "
            "with `er label-preferences`"
        )
    return np.array(found, np.int64)


class PreferenceCloning(Cloning):
    """Gradient steps on pairs of windows.

    Args:
        actor: where fine-tuning begins; see `Cloning`.
        windows: of all episodes.
        pairs: see `ordered_pairs`.
        beta: how soon a pair is settled, per unit of squared error.
        keep: weight of the better windows' own error.
        kwargs: see `Cloning`.
    """

    def __init__(
        self,
        actor: DiffusionActor,
        windows: Windows,
        pairs: Int64,
        *,
        beta: float,
        keep: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(actor, windows, **kwargs)
        self._start = copy.deepcopy(actor.model).requires_grad_(False).eval()
        self._half = max(1, self._config.batch_size // 2)
        self._pairs, self._beta, self._keep = pairs, beta, keep
        order = np.argsort(windows.episode, kind="stable")
        counts = np.bincount(windows.episode)
        self._of_episode = np.split(order, np.cumsum(counts)[:-1])

    def _loss(self) -> Tensor:
        chosen = self._pairs[self._generator.integers(len(self._pairs), size=self._half)]
        rows = np.array([self._generator.choice(self._of_episode[e]) for e in chosen.T.ravel()])
        batch = with_images(self._batch(rows), self.actor.model.config)
        plans = batch["action"]
        count = self._start.diffusion.noise_scheduler.config.num_train_timesteps
        # Both windows of a pair meet one step and one noise.
        times = torch.randint(count, (self._half,), device=plans.device).repeat(2)
        noise = torch.randn_like(plans[: self._half]).repeat(2, 1, 1)
        inside = (~batch["action_is_pad"])[..., None].float().expand_as(plans)

        def errors(model: Any) -> Tensor:
            condition = model.diffusion._prepare_global_conditioning(batch)
            each = denoising_errors(model, plans, condition, noise, times) * inside
            return each.flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1)

        with torch.no_grad():
            start = errors(self._start)
        new = errors(self._learner)
        return pair_loss(new, start, beta=self._beta, keep=self._keep)


def pair_loss(new: Tensor, start: Tensor, *, beta: float, keep: float) -> Tensor:
    """Return the loss of n pairs.

    Args:
        new: denoising errors [2n] with their gradient, the better windows' first.
        start: the same of the policy that fine-tuning began with.
        beta: see `PreferenceCloning`.
        keep: likewise.
    """
    better, worse = (start - new).chunk(2)
    ordered = nn.functional.logsigmoid(beta * (better - worse))
    return keep * new.chunk(2)[0].mean() - ordered.mean()
