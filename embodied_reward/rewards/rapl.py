r"""`rapl`: an encoder aligned with preferences, and optimal transport to preferred videos.

Preferences train the encoder only. With phi the embedded frames of a video, uniform masses, the
cosine cost C and the entropic plan T* (`math/sinkhorn.py`), d(o, o') = <T*, C> and

    triplet:  P(p closer to a than n)  = sigmoid((d(a, n) - d(a, p)) / tau)
    pair:     P(o better than o')      = sigmoid((D(o') - D(o)) / tau),   D(o) = min_k d(o, ref_k)

with T* held (Tian et al., arXiv:2310.07932 and arXiv:2412.04835; the papers' equation was not at
hand, see docs/rapl.md). The reward of an episode is that of ROT (arXiv:2206.15469) against its
nearest reference, times the length:

    r_t = - T sum_t' C_tt' T*_tt',      mean_t r_t = - D(o)

It needs the whole episode. References are pictures of training episodes and travel in the
checkpoint.

While an episode runs there is no plan yet. The **potential** is that of the current frame: the
plan without the constraint on the references' mass, which has a closed form, read as progress

    w_t' = softmax_t'(-C_tt' / eps'),    Phi = sum_t' w_t' s_t'

with s_t' how far reference frame t' is along its video. It is Markov.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward.data.preferences import Preference
from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.alignment import video_distance
from embodied_reward.math.sinkhorn import cosine_cost
from embodied_reward.rewards.base import Card, RewardModelConfig
from embodied_reward.rewards.preference_batches import (
    NOBODY,
    PreferenceBatch,
    PreferenceDataset,
    evenly,
)
from embodied_reward.rewards.preference_model import (
    PreferenceModel,
    PreferenceModelConfig,
    checked_positive,
)
from embodied_reward.rewards.rapl_references import (
    CHOICES,
    choose_references,
    reference_pictures,
)
from embodied_reward.rewards.rapl_transport import Matched, nearest_reference, within
from embodied_reward.rewards.visual import read_by_views, split_presence
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64
from embodied_reward.vision.encoders import Encoder


@RewardModelConfig.register_subclass("rapl")
@dataclass(frozen=True)
class RaplConfig(PreferenceModelConfig):
    """Configuration of `rapl`."""

    embedding: int = 32
    """size of the embedding in which frames are compared"""
    temperature: float = 0.1
    """tau of the likelihood, in units of the cost"""
    epsilon: float = 0.1
    """strength of the plan's entropy in training, in units of the cost"""
    reward_epsilon: float = 0.1
    """the same when episodes are scored; a plan that is too sharp to be found makes them NaN"""
    band: float = 0.0
    """frames may be matched if their times differ by this share of the video; 0 allows any"""
    reference: str = "best"
    """references: best (most preferred; successes if there are no pairs), success or medoid"""
    references: int = 4
    """reference videos k; an episode is scored against the nearest"""
    reference_frames: int = 32
    """frames kept of each reference"""

    def __post_init__(self) -> None:
        """Refuse values that cannot be used. Raises ConfigError."""
        super().__post_init__()
        checked_positive(
            temperature=self.temperature,
            epsilon=self.epsilon,
            reward_epsilon=self.reward_epsilon,
            embedding=self.embedding,
            references=self.references,
        )
        if not 0 <= self.band <= 1:
            raise ConfigError(f"--reward_model.band={self.band}: need 0 <= band <= 1")
        if self.reference_frames < 2:
            raise ConfigError(f"--reward_model.reference_frames={self.reference_frames}: need >= 2")
        if self.reference not in CHOICES:
            raise ConfigError(
                f"unknown --reward_model.reference={self.reference}; "
                f"{did_you_mean(self.reference, CHOICES)}"
            )


class RaplModel(PreferenceModel):
    """Alignment and transport; see the module docstring."""

    name: ClassVar[str] = "rapl"
    config_type = RaplConfig
    config: RaplConfig
    reference_frame: Tensor
    reference_share: Tensor
    reference_index: Tensor
    horizon: Tensor

    def __init__(self, config: Any, encoder: Encoder, *, task: str = "") -> None:
        super().__init__(config, encoder, task=task)
        self.anchors = config.references
        self.projection = nn.Linear(config.dim, config.embedding)
        size, views = encoder.image_size, len(config.views)
        shape = (0, config.reference_frames, views, size, size, 3)
        self.register_buffer("reference_frame", torch.zeros(shape, dtype=torch.uint8))
        self.register_buffer("reference_share", torch.zeros(shape[:2]))
        self.register_buffer("reference_index", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("horizon", torch.ones((), dtype=torch.int64))
        self._embedded: dict[tuple[bool, ...], Tensor] = {}

    @property
    def card(self) -> Card:
        """See the base class; the transport reward needs whole episodes, the potential does not."""
        card, index = super().card, self.reference_index.tolist()
        extra = {**card.extra, "references": index, "episode_return": "transport, whole episodes"}
        return replace(card, extra=extra)

    def reads(self, preference: Preference) -> bool:
        """See the base class; pairs and triplets alike."""
        return True

    # --- training ---

    def set_references(self, data: PreferenceDataset) -> None:
        """Choose references among the training videos and keep their pictures."""
        c, device = self.config, self.horizon.device

        def far(first: Int64, second: Int64) -> Float64:
            return self._distances(data, first, second)

        data.references = choose_references(data, c.reference, c.references, far)
        frames, share = reference_pictures(data, c.reference_frames)
        index = torch.tensor([data.indices[i] for i in data.references])
        self.reference_frame, self.reference_share = frames.to(device), share.to(device)
        self.reference_index = index.to(device)
        self.horizon = torch.tensor(data.horizon, device=device)
        self._embedded.clear()

    def reference_positions(self, data: PreferenceDataset) -> Int64:
        """See the base class."""
        return np.array([data.indices.index(i) for i in self.reference_index.tolist()], np.int64)

    def costs(self, fused: Tensor, batch: PreferenceBatch) -> tuple[Tensor, Tensor, float]:
        """See the base class; the cost of a video is its distance to the anchor or reference."""
        z, judged = self.projection(fused), batch.judged
        sides = np.stack([judged.better, judged.worse])
        cost = z.new_zeros(sides.shape)
        pairs = judged.anchor == NOBODY
        if pairs.any():
            videos, where = np.unique(sides[:, pairs], return_inverse=True)
            near = self._to_references(z, videos, batch.references)
            cost[:, torch.from_numpy(pairs)] = near[torch.from_numpy(where).view(2, -1)]
        if not pairs.all():
            anchor = np.tile(judged.anchor[~pairs], (2, 1))
            apart = self._apart(z, anchor.ravel(), sides[:, ~pairs].ravel())
            cost[:, torch.from_numpy(~pairs)] = apart.view(2, -1)
        return cost[0], cost[1], self.config.temperature

    def _to_references(self, z: Tensor, videos: Int64, references: Int64) -> Tensor:
        """Return each video's distance to the nearest reference that is another video."""
        first, second = (i.ravel() for i in np.meshgrid(videos, references, indexing="ij"))
        apart = self._apart(z, first, second).view(len(videos), -1)
        itself = torch.from_numpy(videos[:, None] == references[None]).to(apart.device)
        return apart.masked_fill(itself & (len(references) > 1), torch.inf).amin(1)

    def _apart(self, z: Tensor, first: Int64, second: Int64) -> Tensor:
        x, y = z[torch.from_numpy(first)], z[torch.from_numpy(second)]
        allowed = within(x.new_empty(len(x), x.shape[1], y.shape[1]), self.config.band)
        return video_distance(x, y, self.config.epsilon, allowed=allowed)

    @torch.no_grad()
    def _distances(self, data: PreferenceDataset, first: Int64, second: Int64) -> Float64:
        """Return distances of training videos in the encoder as it is, at even times."""
        used = np.unique(np.concatenate([first, second]))
        videos = [data.videos[i] for i in used]
        at = [torch.from_numpy(evenly(len(v), data.frames, data.horizon)) for v in videos]
        was = self.training
        self.eval()
        z = torch.stack(
            [self.embed(v.frames[i], v.present[i]) for v, i in zip(videos, at, strict=True)]
        )
        self.train(was)
        rows = np.searchsorted(used, first), np.searchsorted(used, second)
        return self._apart(z, *rows).cpu().double().numpy()

    # --- inference ---

    def embed(self, frames: Tensor, present: Tensor) -> Tensor:
        """Embed pictures uint8 Tensor["n v s s 3"] with bool Tensor["n v"] to Tensor["n e"]."""
        return self._project(*split_presence(self.features(frames, present)))

    def read(self, features: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See the base class; the spread is that between single references."""
        return read_by_views(self._read, features, present)

    @torch.inference_mode()
    def match(self, episode: Episode) -> Matched | None:
        """Transport an episode to its nearest reference; None where no camera ever works."""
        features, present = split_presence(self.episode_features(episode))
        return self._match(features, present)[0]

    def episode_return(self, episode: Episode) -> float:
        """Return minus the transport distance, in [-2, 0]; NaN where no camera ever works."""
        matched = self.match(episode)
        return float("nan") if matched is None else -matched.distance

    @torch.inference_mode()
    def step_rewards(self, episode: Episode) -> Float64:
        """Return r_t of every frame, Float64["t"] in [-2, 0]; NaN where no camera works."""
        features, present = split_presence(self.episode_features(episode))
        return self._step_rewards(features, present)

    def score_features(self, features: Tensor, present: Tensor) -> EpisodeScores:
        """See the base class; the mode `transport` is 1 + r_t / 2, in [0, 1]."""
        scores = super().score_features(features, present)
        level = 1 + self._step_rewards(features, present) / 2
        return replace(scores, modes={**scores.modes, "transport": level})

    def _step_rewards(self, features: Tensor, present: Tensor) -> Float64:
        matched, seen = self._match(features, present)
        rewards = np.full(len(features), np.nan)
        if matched is not None:
            rewards[seen.cpu().numpy()] = matched.rewards.cpu().double().numpy()
        return rewards

    def _match(self, features: Tensor, present: Tensor) -> tuple[Matched | None, Tensor]:
        """Match the frames that a camera shows; also returns which these are."""
        seen, c = present.any(1), self.config
        if not seen.any():
            return None, seen
        references = self._references_seen_by(present.any(0))
        found = nearest_reference(
            self._project(features[seen], present[seen]),
            references,
            epsilon=c.reward_epsilon,
            share=c.band,
            rows=int(self.horizon),
        )
        return found, seen

    def _read(self, features: Tensor, views: Tensor) -> tuple[Tensor, Tensor]:
        z = self._project(features, views.expand(features.shape[:2]))
        references = self._references_seen_by(views)
        cost = cosine_cost(z[None], references.flatten(0, 1)[None])[0]
        weight = (-cost / self.config.epsilon).unflatten(1, references.shape[:2])
        potential = (weight.flatten(1).softmax(1) * self.reference_share.flatten()).sum(1)
        single = (weight.softmax(2) * self.reference_share).sum(2)
        return potential, single.std(1, correction=0)

    def _references_seen_by(self, views: Tensor) -> Tensor:
        """Return embedded references Tensor["k s e"] with only these views shown."""
        key = tuple(views.tolist())
        if key not in self._embedded or self.training:
            k, s = self.reference_frame.shape[:2]
            found, present = split_presence(self.features(self.reference_frame.flatten(0, 1)))
            self._embedded[key] = self._project(found, present & views).unflatten(0, (k, s))
        return self._embedded[key]

    def _project(self, features: Tensor, present: Tensor) -> Tensor:
        return self.projection(self.network.fuse(features, present))

    def train(self, mode: bool = True) -> "RaplModel":
        """Forget the references' embeddings whenever the weights may change."""
        self._embedded.clear()
        super().train(mode)
        return self
