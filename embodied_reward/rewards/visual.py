"""What every method shares that encodes pictures: stack views, run the trunk, mask, adapt.

    pictures -> stack_views -> image trunk (nearly all the cost) -> adapter, view tokens, heads

The trunk alone goes through the model's `Embedder`: directly, or through a scoring core, which
batches it with what others ask for and remembers what it has seen. Both give the same numbers
within float tolerance.

Features of a model are Tensor["n v d+1"]: per view the adapted feature, and in the last column 1
where the camera shows something, 0 where it is missing, black or flat.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from embodied_reward.errors import DatasetError
from embodied_reward.rewards.base import RewardModel, device_of
from embodied_reward.rewards.embedder import Direct, Embedder
from embodied_reward.scoring.status import Priority
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.types import Episode, UInt8
from embodied_reward.vision.augment import augment
from embodied_reward.vision.encoders import Encoder
from embodied_reward.vision.frames import episode_frames, shows_something, stack_views
from embodied_reward.vision.preprocess import to_input

CALL = 4096  # pictures of one call of the embedder, far below a core's limits


class VisualModel(RewardModel):
    """Base of the methods with an image encoder; `network` has `encoder` and `adapter`."""

    network: Any
    config: Any
    _embedder: Embedder = Direct()
    _trunk: EncoderTrunk | None = None

    @property
    def image_size(self) -> int:
        """Side of the encoder's input [px]."""
        return self.network.encoder.image_size

    @property
    def frozen(self) -> bool:
        """Whether training leaves the encoder alone, so that its features can be kept."""
        return not self.network.encoder.trainable

    @property
    def trunk(self) -> EncoderTrunk:
        """See the base class; another one, with another digest, whenever the weights changed."""
        if self._trunk is None or self._trunk.stale:
            self._trunk = EncoderTrunk(self.network.encoder, torch.float32)
        return self._trunk

    def use(self, embedder: Embedder | None) -> None:
        """See the base class."""
        self._embedder = embedder or Direct()

    def train(self, mode: bool = True) -> "VisualModel":
        """Forget the digest of weights that are about to change."""
        if self._trunk is not None and self.network.encoder.trainable:
            self._trunk.retire()
        super().train(mode)
        return self

    # --- pictures to features ---

    def encode(
        self, frames: Mapping[str, UInt8], *, priority: Priority = Priority.TRAINER
    ) -> Tensor:
        """See the base class; a view that is missing, black or flat is masked.

        Raises:
            DatasetError: none of the model's views is among `frames`.
        """
        stacked, present = self._stack(frames)
        return self.features(stacked, present, priority=priority)

    def prefetch(self, frames: Mapping[str, UInt8]) -> None:
        """See the base class."""
        if isinstance(self._embedder, Direct):
            return
        stacked, present = self._stack(frames)
        shown = stacked[present]
        if len(shown):
            self._embedder.prefetch(self.trunk, shown)

    def episode_features(self, episode: Episode) -> Tensor:
        """Encode every frame of an episode. Raises DatasetError: it has none of the views."""
        return self.features(*episode_frames(episode, self.config.views, self.image_size))

    def features(
        self,
        frames: Tensor,
        present: Tensor | None = None,
        *,
        priority: Priority = Priority.TRAINER,
    ) -> Tensor:
        """Encode stacked pictures.

        Args:
            frames: uint8 Tensor["n v s s 3"] of the model's size.
            present: bool Tensor["n v"]; default: what shows something.
            priority: how urgent it is to a shared core.

        Returns:
            Tensor["n v d+1"], see the module docstring.
        """
        present = shows_something(frames) if present is None else present
        found = self.network.adapter(self._trunk_features(frames, present, priority))
        there = present.to(found.device).unsqueeze(-1)
        return torch.cat([found, there.to(found)], -1)

    def training_features(
        self, frames: Tensor, present: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Encode pictures of a training batch, with gradients where the encoder is trained.

        Only a trained encoder sees augmented pictures, so features of a frozen one are exact.

        Args:
            frames: uint8 Tensor["n v s s 3"].
            present: bool Tensor["n v"].
            generator: of the augmentation, which acts in training mode only.

        Returns:
            Tensor["n v d"]; what is not `present` must not matter.
        """
        if self.frozen:
            return self.network.adapter(self._trunk_features(frames, present, Priority.TRAINER))
        c, n_v = self.config, frames.shape[:2]
        images = to_input(frames.flatten(0, 1).to(device_of(self)), self.image_size)
        if self.training:
            images = augment(images, generator, shift=c.shift, jitter=c.jitter, erase=c.erase)
        return self.network.adapter(self.network.encoder(images)).unflatten(0, n_v)

    # --- what a saliency map explains ---

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """Return what the model's answer rises and falls with, before it is clipped.

        Differentiable in `features`; a clipped potential has no gradient where it is 0 or 1.

        Args:
            features: Tensor["n v d+1"] of the frames, see the module docstring.
            start: Tensor["1 v d+1"] of their episode's first frame.
            task: of the episode, in words.

        Returns:
            Tensor["n"]; what a frame without any working camera gets must not matter.
        """
        raise NotImplementedError(f"'{self.name}' does not say what a saliency map could explain")

    def _stack(self, frames: Mapping[str, UInt8]) -> tuple[Tensor, Tensor]:
        views = self.config.views
        if not any(view in frames for view in views):
            raise DatasetError(
                f"the reward model needs the views {', '.join(views)}; "
                f"the frames have {', '.join(frames) or 'none'}"
            )
        return stack_views(frames, views, self.image_size)

    def _trunk_features(self, frames: Tensor, present: Tensor, priority: Priority) -> Tensor:
        """Run the trunk on what is present; zero elsewhere, Tensor["n v d"]."""
        encoder: Encoder = self.network.encoder
        found = torch.zeros(*present.shape, encoder.dim, device=device_of(self))
        shown, trunk = frames[present], self.trunk
        parts = [
            self._embedder.embed(trunk, part, priority=priority)
            for part in (shown.split(CALL) if len(shown) else ())
        ]
        if parts:
            found[present.to(found.device)] = torch.cat(parts).to(found)
        return found


def split_presence(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features Tensor["n v d"] and bool Tensor["n v"] of a model's Tensor["n v d+1"]."""
    return features[..., :-1], features[..., -1] > 0.5


def read_by_views(
    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], features: Tensor, present: Tensor
) -> tuple[Tensor, Tensor]:
    """Read frames together that the same views show.

    Args:
        read: features Tensor["n v d"] and the views bool Tensor["v"] that all of them have -> two
            numbers per frame, Tensor["n"] each.
        features: Tensor["n v d"].
        present: bool Tensor["n v"].
    """
    first = features.new_full((len(features),), torch.nan)
    second = first.clone()
    for views in present.unique(dim=0):
        rows = (present == views).all(-1)
        first[rows], second[rows] = read(features[rows], views)
    return first, second
