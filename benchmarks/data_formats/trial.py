"""Open one malformed dataset and measure what came of it."""

import re
import resource
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from malformed import Case

from embodied_reward.data import check_dataset, open_dataset
from embodied_reward.data.convert import convert
from embodied_reward.errors import EmbodiedRewardError

MEMORY = 64.0  # growth of the peak resident size that a case may cause [MiB]

# What an error must offer besides what is wrong.
FIX = re.compile(
    r"\b(get|copy|delete|record|pass|give|write|rewrite|keep|store|convert|list|cut|mend|accepted|"
    r"did you mean|say|rename|unpack|choose|have|known|must|are read|needs? )\b"
)


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        error: the message, None if nothing was refused.
        subject: a part of the dataset's path, which the message must contain.
        named: whether the error is one of ours.
        seconds: how long it took [s].
        memory: growth of the peak resident size [MiB]; NaN where the system does not say.
        left: names of files that a conversion left behind.
    """

    error: str | None
    subject: str
    named: bool
    seconds: float
    memory: float
    left: tuple[str, ...]

    @property
    def good(self) -> bool:
        """One named error, on one line, that names the dataset and a way out."""
        text = self.error or ""
        told = self.named and self.subject in text and "\n" not in text and FIX.search(text)
        return bool(told) and not self.left


def attempt(case: Case, sound: Path) -> Outcome:
    """Build a case in a folder of its own, open it as training would, and throw it away."""
    folder = Path(tempfile.mkdtemp(prefix="malformed"))
    try:
        return _measure(case, case.build(sound, folder), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def warm_up(sound: Path) -> None:
    """Open every sound dataset once: imports are no part of a trial, and all must be sound."""
    for name in ("zarr", "zarr3", "zip", "hdf5", "ms", "mp4", "noted", "v3"):
        check_dataset(open_dataset(sound / name))
    folder = Path(tempfile.mkdtemp(prefix="malformed"))
    convert(sound / "v21", folder / "out", "lerobot")
    shutil.rmtree(folder)


def _measure(case: Case, path: Path, folder: Path) -> Outcome:
    before, start = reset_peak(), time.perf_counter()
    error, named = None, False
    output = folder / "converted"
    try:
        if case.convert:
            convert(path, output, case.convert)
        else:
            check_dataset(open_dataset(path))
    except EmbodiedRewardError as caught:
        error, named = str(caught), True
    except Exception as caught:  # noqa: BLE001 - anything else is what the trial looks for
        error = f"{type(caught).__name__}: {caught}"
    seconds = time.perf_counter() - start
    left = tuple(p.name for p in folder.glob("converted*"))
    return Outcome(error, folder.name, named, seconds, peak() - before, left)


def _status(key: str) -> float:
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s+(\d+) kB", text)[1]) / 1024


def reset_peak() -> float:
    """Forget the peak resident size; returns the present size [MiB]."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmRSS")
    except OSError:
        return peak()


def peak() -> float:
    """Return the peak resident size since it was last reset [MiB]."""
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
