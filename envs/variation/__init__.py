"""Variation of environments: the same task in other looks and under other dynamics.

    env = vary(make("metaworld/push-v3"), texture=1.0, friction=0.5, split="test", seed=3)

Levels are in [0, 1] and 0 is exactly the original; see `Variation` for the factors. Importing
this module imports no simulator.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .settings import DYNAMICS, FACTORS, LOOKS, SPLITS, Variation

if TYPE_CHECKING:
    from .costume import Material
    from .wrapper import VariedEnv, vary

_LAZY = {"Material": ".costume", "VariedEnv": ".wrapper", "vary": ".wrapper"}

__all__ = [
    "DYNAMICS",
    "FACTORS",
    "LOOKS",
    "SPLITS",
    "Material",
    "Variation",
    "VariedEnv",
    "vary",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name], __package__), name)
