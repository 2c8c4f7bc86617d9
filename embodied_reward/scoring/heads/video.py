"""The score of a clip from any score of single frames (InstructVideo, arXiv:2312.12490)."""

from collections.abc import Sequence

import numpy as np
import torch

from embodied_reward.errors import ConfigError, did_you_mean
from embodied_reward.math.video_weights import ANCHORS, attenuation_weights, clip_time
from embodied_reward.scoring.heads.composed import status_of
from embodied_reward.scoring.scorer import Head, Items, Output, segment_sum
from embodied_reward.scoring.status import Role, Status
from embodied_reward.types import Float64, Int64, UInt8


class VideoHead(Head):
    """Score every frame by itself and take the mean, weighted by its time (TAR).

    Which frames are scored is chosen before the trunk: `scoring.selection.sample_segments` draws
    one of each segment (SegVR), `select_keyframes` one per step.

    Args:
        head: scores items of one frame; sees each frame with the text, user and references (frames
            of another role than `CURRENT`) of its clip.
        rate: lambda >= 0 of `attenuation_weights` [1 / clip length]; 0 is the plain mean.
        anchor: where the weight peaks: `start`, `centre` as in the source, or `end`.

    `Output.per_frame` holds the scores of the frames, NaN for references. A clip fails if a frame
    of it fails. A frame's random numbers, if `head` draws any, are fixed by the clip and the
    frame's place in it.
    """

    def __init__(self, head: Head, *, rate: float = 0.0, anchor: str = "centre") -> None:
        super().__init__()
        if anchor not in ANCHORS:
            raise ConfigError(f"no anchor '{anchor}'; {did_you_mean(anchor, ANCHORS)}")
        if not rate >= 0:
            raise ConfigError(f"rate={rate} of a video head must be >= 0")
        if head.groupwise:
            raise ConfigError("a groupwise head cannot score single frames of a clip")
        self.head, self.rate, self.anchor = head, rate, ANCHORS[anchor]
        self.dim_names = head.dim_names

    def forward(self, items: Items) -> Output:
        """See the base class; an item without a CURRENT frame is BAD_INPUT."""
        rows, owner = self._rows(items)
        n, f = len(items), len(items.features)
        if not len(rows):
            return Output(score=torch.full((n,), torch.nan), status=_bad(n, np.arange(n)))
        frames = _single_frames(items, rows, owner)
        output = self.head(frames)
        weights = torch.from_numpy(self.weights(items, rows, owner)).float()
        owners = torch.from_numpy(owner)
        columns = {"score": output.score, "dims": output.dims}
        means = {k: _weighted(v, weights, owners, n) for k, v in columns.items() if v is not None}
        per_frame = torch.full((f,), torch.nan)
        per_frame[torch.from_numpy(rows)] = output.score.detach().float().cpu()
        status, detail = _clip_status(output, owner, n)
        means["score"][torch.from_numpy(status != Status.OK)] = torch.nan
        return Output(**means, per_frame=per_frame, status=status, detail=detail)

    def weights(self, items: Items, rows: Int64, owner: Int64) -> Float64:
        """Return the weight of every row Float64["r"]; those of one item sum to 1."""
        time = items.time.double().cpu().numpy()[rows]
        weights = np.zeros(len(rows))
        for at in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(owner)) + 1):
            weights[at] = attenuation_weights(
                clip_time(time[at]), rate=self.rate, anchor=self.anchor
            )
        return weights

    @staticmethod
    def _rows(items: Items) -> tuple[Int64, Int64]:
        rows = np.flatnonzero(items.role == Role.CURRENT)
        return rows, items.owner[rows]


def _single_frames(items: Items, rows: Int64, owner: Int64) -> Items:
    """Return one item per row: that frame, then the references of its clip."""
    references = np.flatnonzero(items.role != Role.CURRENT)
    of = items.owner[references]
    runs = [np.concatenate([[r], references[of == i]]) for r, i in zip(rows, owner, strict=True)]
    taken = np.concatenate(runs).astype(np.int64)
    where = torch.from_numpy(taken).to(items.features.device)
    first = np.searchsorted(owner, owner)  # place within the clip = row - first row of the clip
    place = np.arange(len(rows)) - first
    return Items(
        features=items.features[where],
        offsets=np.concatenate([[0], np.cumsum([len(r) for r in runs])]).astype(np.int64),
        time=items.time[where],
        view=items.view[taken],
        role=items.role[taken],
        views=items.views,
        text_features=items.text_features,
        text=items.text[owner],
        group=np.arange(len(rows)),
        user=items.user[owner],
        keys=_FrameKeys(items.keys, owner, place),  # type: ignore[arg-type]
        passes=items.passes,
        seed=items.seed,
    )


class _FrameKeys(Sequence[bytes]):
    """Clip and place of every frame, worked out when asked for: most heads draw no numbers."""

    def __init__(self, clips: Sequence[bytes], owner: Int64, place: Int64) -> None:
        self._clips, self._owner, self._place = clips, owner, place

    def __len__(self) -> int:
        return len(self._owner)

    def __getitem__(self, row):  # noqa: ANN001, ANN204 (int only; slices are not needed)
        place = int(self._place[row]).to_bytes(4, "little")
        return self._clips[int(self._owner[row])][:12] + place


def _weighted(
    values: torch.Tensor, weights: torch.Tensor, owner: torch.Tensor, n: int
) -> torch.Tensor:
    weights = weights.to(values).reshape(-1, *[1] * (values.ndim - 1))
    return segment_sum(values * weights, owner.to(values.device), n)


def _clip_status(output: Output, owner: Int64, n: int) -> tuple[UInt8, dict[int, str]]:
    """Return the status of every clip, that of its first failed frame, and what went wrong."""
    frames = status_of(output)
    status = _bad(n, np.setdiff1d(np.arange(n), owner))
    detail = {int(i): "the clip has no frame to score" for i in np.flatnonzero(status)}
    for row in np.flatnonzero(frames != Status.OK)[::-1]:
        status[owner[row]] = frames[row]
        why = output.detail.get(int(row), "")
        detail[int(owner[row])] = f"frame {row - np.searchsorted(owner, owner[row])} {why}".rstrip()
    return status, detail


def _bad(n: int, items: Int64) -> UInt8:
    status = np.zeros(n, np.uint8)
    status[items] = Status.BAD_INPUT
    return status
