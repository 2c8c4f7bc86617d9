"""Similarity of pictures to a text or to a reference picture, in a pretrained model's space.

CLIP score (Hessel et al. 2021, w max(cos, 0) with w = 2.5), PickScore (Kirstain et al. 2023,
exp(logit_scale) cos) and SigLIP's logit are this head with other constants.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from embodied_reward.scoring.scorer import (
    Head,
    Items,
    Output,
    Scorer,
    ScorerCard,
    digest_of,
    joint_digest,
    segment_sum,
)
from embodied_reward.scoring.status import Role, Status
from embodied_reward.scoring.transformers_trunk import TransformersTrunk

Against = Literal["text", "reference"]
REFERENCES = (Role.REFERENCE, Role.GOAL)


class CosineHead(Head):
    """scale * cos(picture, text or reference) + bias, averaged over an item's current frames.

    Args:
        scale: factor on the cosine.
        bias: what is added.
        floor: lower bound of the cosine; 0 for the CLIP score.
        against: `text`, or `reference` for the item's frames with role REFERENCE or GOAL.

    An item without current frames, or without what it is compared with, is BAD_INPUT.
    """

    def __init__(
        self,
        scale: float = 1.0,
        bias: float = 0.0,
        floor: float = -1.0,
        against: Against = "text",
    ) -> None:
        super().__init__()
        self.scale, self.bias, self.floor, self.against = scale, bias, floor, against

    @property
    def facts(self) -> str:
        """What defines the head, as it has no weights."""
        return repr((self.scale, self.bias, self.floor, self.against))

    @property
    def score_range(self) -> tuple[float, float]:
        """Closed range of the score."""
        ends = [self.scale * c + self.bias for c in (self.floor, 1.0)]
        return min(ends), max(ends)

    def forward(self, items: Items) -> Output:
        """See the base class."""
        features = items.features if items.features.ndim == 2 else items.features.mean(1)
        other, missing = self._other(items, features)
        owner = torch.from_numpy(items.owner).to(features.device)
        cosine = F.cosine_similarity(features, other[owner], dim=-1).clamp(min=self.floor)
        per_frame = self.scale * cosine + self.bias
        current = torch.from_numpy(items.role == Role.CURRENT).to(features.device)
        per_frame = torch.where(current, per_frame, per_frame.new_tensor(torch.nan))
        score, count = _mean(per_frame[current], owner[current], len(items))
        empty = (count == 0).cpu().numpy()
        status = np.where(empty | missing, Status.BAD_INPUT, Status.OK).astype(np.uint8)
        why = {int(i): "no frame with role CURRENT" for i in np.flatnonzero(empty)}
        why |= {int(i): f"no {self.against} to compare with" for i in np.flatnonzero(missing)}
        return Output(score=score, per_frame=per_frame, status=status, detail=why)

    def _other(self, items: Items, features: Tensor) -> tuple[Tensor, np.ndarray]:
        """Return what every item is compared with, Tensor["n d"], and where there is nothing."""
        if self.against == "reference":
            rows = np.isin(items.role, REFERENCES)
            owner = torch.from_numpy(items.owner[rows]).to(features.device)
            chosen = features[torch.from_numpy(rows).to(features.device)]
            mean, count = _mean(F.normalize(chosen, dim=-1), owner, len(items))
            return mean, (count == 0).cpu().numpy()
        if items.text_features is None:
            return features.new_zeros(len(items), features.shape[1]), np.ones(len(items), bool)
        rows = torch.from_numpy(np.maximum(items.text, 0)).to(features.device)
        return items.text_features.to(features)[rows], items.text < 0


def _mean(values: Tensor, owner: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the mean of every item's rows, NaN without any, and their number."""
    total = segment_sum(values, owner, n)
    count = torch.bincount(owner, minlength=n)
    return total / count.reshape(-1, *[1] * (values.ndim - 1)), count


def cosine_scorer(
    name: str,
    trunk: TransformersTrunk,
    *,
    scale: float | None = None,
    floor: float = -1.0,
    extra: dict[str, Any] | None = None,
) -> Scorer:
    """Make a scorer of a plain pretrained model.

    Args:
        name: by which requests ask for it.
        trunk: with a text tower it is compared with texts, without one with reference pictures.
        scale: factor on the cosine; None takes the one the model was trained with (PickScore's
            form; SigLIP's bias is added too).
        floor: lower bound of the cosine; 0 with scale 2.5 is the CLIP score.
        extra: JSON facts for the card.
    """
    against: Against = "text" if trunk.reads_texts else "reference"
    own = scale is None
    head = CosineHead(
        trunk.logit_scale if scale is None else scale,
        trunk.logit_bias if own else 0.0,
        floor,
        against,
    )
    digest = digest_of(head, head.facts)
    card = ScorerCard(
        name=name,
        type="cosine",
        weights_sha256=joint_digest(trunk.digest, digest),
        trunk_sha256=trunk.digest,
        head_sha256=digest,
        preprocess=trunk.preprocess_id,
        score_range=head.score_range,
        dtype=str(trunk.dtype).removeprefix("torch."),
        source="Hessel et al. 2021 (CLIP score), Kirstain et al. 2023 (PickScore)",
        extra={"against": against, **(extra or {})},
    )
    return Scorer(card, trunk, head.eval())
