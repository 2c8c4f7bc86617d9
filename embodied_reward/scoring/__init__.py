"""Scoring of pictures and clips: one batched, cached core for robots and for image generators.

Names are loaded when they are used, so that a client of a remote core imports no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embodied_reward.scoring.batch import ScoreBatch
    from embodied_reward.scoring.cache import FeatureCache
    from embodied_reward.scoring.core import ScoringCore
    from embodied_reward.scoring.limits import Limits
    from embodied_reward.scoring.request import ScoreRequest
    from embodied_reward.scoring.scorer import (
        Head,
        Items,
        ItemScorer,
        Output,
        Scorer,
        ScorerCard,
        Trunk,
    )
    from embodied_reward.scoring.status import Priority, Role, Status

_HOME = {
    "batch": ("ScoreBatch",),
    "cache": ("FeatureCache",),
    "core": ("ScoringCore",),
    "limits": ("Limits",),
    "request": ("ScoreRequest",),
    "scorer": ("Head", "ItemScorer", "Items", "Output", "Scorer", "ScorerCard", "Trunk"),
    "status": ("Priority", "Role", "Status"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "FeatureCache",
    "Head",
    "ItemScorer",
    "Items",
    "Limits",
    "Output",
    "Priority",
    "Role",
    "ScoreBatch",
    "ScoreRequest",
    "Scorer",
    "ScorerCard",
    "ScoringCore",
    "Status",
    "Trunk",
]


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)
