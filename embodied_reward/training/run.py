"""The run folder: resolved config, metrics.jsonl, TensorBoard events, checkpoints.

outputs/<verb>/<date>_<name>/{config.yaml, metrics.jsonl, tensorboard/, checkpoints/}
"""

import datetime
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from embodied_reward import config as configs
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing


def default_output_dir(verb: str, name: str) -> Path:
    """Return `outputs/<verb>/<date>_<name>`."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return Path("outputs") / verb / f"{stamp}_{name.replace('/', '-')}"


def check_output_dir(path: Path, *, resume: bool) -> None:
    """Raise ConfigError if a run cannot write there; creates nothing."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"output folder '{path}' is a file; choose another --output_dir")
    used = path.is_dir() and any(path.iterdir())
    if used and not resume:
        raise ConfigError(
            f"output folder '{path}' already exists; add --resume=true to continue that run "
            "or choose another --output_dir"
        )


def prepare_output_dir(path: Path, *, resume: bool) -> Path:
    """Create a run folder, or accept an existing one when resuming. Raises ConfigError."""
    check_output_dir(path, resume=resume)
    path.mkdir(parents=True, exist_ok=True)
    return path


def save_config(config: Any, folder: Path) -> None:
    """Write the resolved config to `folder/config.yaml`."""
    with replacing(folder / "config.yaml") as temporary:
        configs.write_yaml(config, temporary)


class Tracker:
    """Write scalars to `metrics.jsonl` and TensorBoard.

    `metrics.jsonl` holds only numbers that depend on the seed, never wall time, so that two
    runs with one seed write identical bytes. Timings go to TensorBoard (`time/...`).
    """

    def __init__(self, folder: Path, *, step: int = 0) -> None:
        """Open for writing; rows at or after `step` of an earlier run are dropped (resume)."""
        self.path = folder / "metrics.jsonl"
        _keep_before(self.path, step)
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step or None)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append one row; `time/` keys go to TensorBoard only. Non-finite values become null."""
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)
        kept = {k: _json_number(v) for k, v in values.items() if not k.startswith("time/")}
        if kept:
            with self.path.open("a") as stream:
                stream.write(json.dumps({"step": step, **kept}) + "\n")

    def close(self) -> None:
        """Flush and close the TensorBoard file."""
        self._writer.close()


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _keep_before(path: Path, step: int) -> None:
    if not path.exists():
        return
    rows = [r for r in path.read_text().splitlines() if r.endswith("}")]
    kept = [r for r in rows if json.loads(r)["step"] < step]
    with replacing(path) as temporary:
        temporary.write_text("".join(r + "\n" for r in kept))
