"""embodied-reward: demonstrations into rewards, rewards into better robot policies."""

from pathlib import Path

__version__ = "0.1.0"

# In a source checkout `envs/`, `policies/` and `configs/` lie beside this package; an
# installed wheel already holds them inside it.
_HERE = Path(__file__).resolve().parent
if not (_HERE / "envs").is_dir() and (_HERE.parent / "envs").is_dir():
    __path__.append(str(_HERE.parent))
