"""Where a reward model looks: one map per frame and camera.

Explained is what the model's answer rises and falls with before it is clipped (`level` of the
model), so that a frame at potential 0 or 1 has a map too. A camera's map comes from the gradient
in that camera's own pictures. A camera that is missing, black or flat has none, and neither has a
picture that the score does not depend on.
"""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.rewards.base import RewardModel, device_of
from embodied_reward.rewards.embedder import Direct
from embodied_reward.rewards.ensemble import EnsembleModel
from embodied_reward.rewards.visual import VisualModel
from embodied_reward.types import Episode
from embodied_reward.vision.frames import episode_frames
from embodied_reward.vision.preprocess import to_input
from embodied_reward.vision.saliency import SaliencyMaps, SaliencyOptions, Target, explain
from embodied_reward.vision.saliency.maps import mean_of, together
from embodied_reward.vision.saliency.target import per_call


def explain_episode(
    model: RewardModel, episode: Episode, options: SaliencyOptions | None = None
) -> dict[str, SaliencyMaps]:
    """Return a map for every frame of every view, at the model's image size.

    An ensemble's map is the mean of its members'.

    Raises:
        ConfigError: the model or its encoder has no maps by this method.
        DatasetError: the episode has none of the model's views.
    """
    options = options or SaliencyOptions()
    if isinstance(model, EnsembleModel):
        found = [explain_episode(m, episode, options) for m in model.members]  # type: ignore[arg-type]
        return {view: mean_of([maps[view] for maps in found]) for view in model.card.views}
    if not isinstance(model, VisualModel):
        raise ConfigError(
            f"'{model.name}' shows no network that sees single pictures, so there is no map of "
            "where it looks"
        )
    frames, present = episode_frames(episode, model.config.views, model.image_size)
    parts = list(_parts(model, frames, present, episode.task, options))
    return {view: together([p[view] for p in parts]) for view in model.config.views}


def randomised(model: RewardModel, seed: int) -> RewardModel:
    """Return a copy whose layers all have fresh weights: what the architecture alone looks at.

    References, normalisations' statistics and tokens stay.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        # A core that others share is not copied along.
        direct = {id(m._embedder): Direct() for m in model.modules() if isinstance(m, VisualModel)}
        # Through train(), which forgets whatever was computed with the old weights.
        fresh = copy.deepcopy(model, direct).train().eval()
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None) or getattr(
                module, "_reset_parameters", None
            )
            if callable(reset):
                reset()
            elif any(p is not None for p in module._parameters.values()):
                _redraw(module)
    return fresh


def _redraw(module: nn.Module) -> None:
    """Parameters of a module without a rule of its own: the same spread, in other places."""
    with torch.no_grad():
        for values in module._parameters.values():
            if values is not None and values.numel() > 1:
                flat = values.flatten()
                values.copy_(flat[torch.randperm(len(flat))].reshape(values.shape))


def _parts(
    model: VisualModel, frames: Tensor, present: Tensor, task: str, options: SaliencyOptions
) -> Iterator[Mapping[str, SaliencyMaps]]:
    # Forgets what was embedded in inference mode, and may enter no graph.
    model.train().eval()
    with torch.no_grad():
        start = model.features(frames[:1], present[:1]).clone()
        try:
            # Whatever the model remembers of its references is made now, not under observation.
            model.level(start, start, task)
        except NotImplementedError as error:
            raise ConfigError(str(error)) from error
    step = per_call(model.image_size, model.image_size, beside=present.shape[1])
    for at in range(0, len(frames), step):
        rows = slice(at, at + step)
        yield _explain(model, frames[rows], present[rows], start, task, options)


def _explain(
    model: VisualModel,
    frames: Tensor,
    present: Tensor,
    start: Tensor,
    task: str,
    options: SaliencyOptions,
) -> dict[str, SaliencyMaps]:
    shape, device = present.shape, device_of(model)
    images = to_input(frames.flatten(0, 1).to(device), model.image_size)
    there = present.to(device).unsqueeze(-1)

    def score(pictures: Tensor) -> Tensor:
        features = model.network.adapter(model.network.encoder(pictures)).unflatten(0, shape)
        levels = model.level(torch.cat([features, there.to(features)], -1), start, task)
        # Rows without any camera may be anything, and would spoil the sum.
        return torch.where(present.any(1).to(device), levels, 0.0)

    maps = explain(Target(model.network.encoder, images, score), options)
    return {view: maps.take(slice(k, None, shape[1])) for k, view in enumerate(model.config.views)}
