"""Features of texts: each text encoded once in its life, and one that fails fails alone."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied_reward.scoring.cache import FeatureCache
from embodied_reward.scoring.keys import digest_named
from embodied_reward.scoring.scorer import Trunk
from embodied_reward.types import Int64

KEY = digest_named("blake2b")


class TextFeatures:
    """Encode texts by the text tower of any trunk.

    Args:
        cache: features seen before, or None.
        batch: texts of one call; 1 in strict mode, where padding to the longest text would change
            the rounding of the others.
    """

    def __init__(self, cache: FeatureCache | None, batch: int) -> None:
        self._cache, self._batch = cache, batch

    @torch.no_grad()
    def __call__(self, trunk: Trunk, texts: Sequence[str]) -> tuple[Tensor | None, dict[int, str]]:
        """Return features Tensor["m d"], NaN where a text failed, and text -> what went wrong.

        None where the trunk reads no texts, or all failed.
        """
        if not texts or not trunk.reads_texts:
            return None, {}
        lane = f"text:{trunk.lane}"
        keys = [KEY(text.encode()) + b"\0" * 8 for text in texts]
        found, rows = self._lookup(lane, keys)
        known = dict(zip(found.tolist(), rows if rows is not None else (), strict=True))
        missing = [i for i in range(len(texts)) if i not in known]
        fresh, failed = self._encode(trunk, texts, missing)
        if self._cache is not None and fresh:
            self._cache.put(lane, [keys[i] for i in fresh], torch.stack(list(fresh.values())))
        known |= fresh
        if not known:
            return None, failed
        example = next(iter(known.values()))
        blank = torch.full_like(example, torch.nan)
        return torch.stack([known.get(i, blank) for i in range(len(texts))]), failed

    def _lookup(self, lane: str, keys: list[bytes]) -> tuple[Int64, Tensor | None]:
        nothing = np.zeros(0, np.int64)
        return (nothing, None) if self._cache is None else self._cache.lookup(lane, keys)

    def _encode(
        self, trunk: Trunk, texts: Sequence[str], missing: list[int]
    ) -> tuple[dict[int, Tensor], dict[int, str]]:
        fresh: dict[int, Tensor] = {}
        failed: dict[int, str] = {}
        for k in range(0, len(missing), self._batch):
            chunk = missing[k : k + self._batch]
            try:
                rows = trunk.encode_texts([texts[i] for i in chunk])
                fresh |= dict(zip(chunk, rows, strict=True))
            except Exception as error:  # noqa: BLE001 (a text tower may raise anything)
                if len(chunk) == 1:
                    failed[chunk[0]] = f"text: {type(error).__name__}: {error}"
                    continue
                for i in chunk:
                    alone = TextFeatures(None, 1)._encode(trunk, texts, [i])
                    fresh, failed = fresh | alone[0], failed | alone[1]
        return fresh, failed
