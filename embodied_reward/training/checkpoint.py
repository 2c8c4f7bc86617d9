"""Checkpoints that are complete or absent (design §11).

    checkpoints/<step>/{..., manifest.json}     checkpoints/last -> <step>

A checkpoint is written into `<step>.tmp/`, synced, sealed by a manifest of sha256 sums that
is written last, then renamed; `last` is replaced after that. Loading verifies every sum.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from embodied_reward.errors import CheckpointError
from embodied_reward.files import fsync, sha256

MANIFEST = "manifest.json"


def save_checkpoint(
    folder: Path, step: int, write: Callable[[Path], None], *, keep: int = 2, link: str = "last"
) -> Path:
    """Let `write(temporary_folder)` write a checkpoint, seal it and point `last` at it.

    Args:
        folder: the run's `checkpoints/`.
        step: names the checkpoint.
        write: called with an empty folder.
        keep: how many of the newest checkpoints stay.
        link: name of the pointer that is moved (`last` or `best`).
    """
    final, temporary = folder / f"{step:08d}", folder / f"{step:08d}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    write(temporary)
    seal(temporary)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    fsync(folder)
    point(folder, link, final.name)
    _prune(folder, keep)
    return final


def seal(folder: Path) -> None:
    """Sync every file of a finished folder and write its manifest last."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    sums = {}
    for file in files:
        fsync(file)
        sums[str(file.relative_to(folder))] = sha256(file)
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "sha256": sums}, indent=1))
    fsync(folder / MANIFEST)


def verify(folder: Path) -> Path:
    """Check a checkpoint against its manifest. Raises CheckpointError naming the bad file."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CheckpointError(f"'{folder}' has no {MANIFEST}: the checkpoint is incomplete")
    sums = json.loads(manifest.read_text())["sha256"]
    for name, expected in sums.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(
                f"'{file}' is missing although the checkpoint's manifest lists it"
            )
        if (got := sha256(file)) != expected:
            raise CheckpointError(
                f"'{file}' has sha256 {got[:12]}..., its manifest says {expected[:12]}...: the "
                "file was altered or damaged; restore it or use an older checkpoint"
            )
    return folder


def latest(folder: Path) -> Path | None:
    """Return the newest checkpoint that verifies, or None; damaged ones are passed over."""
    for candidate in sorted(_complete(folder), reverse=True):
        try:
            return verify(candidate)
        except CheckpointError:
            continue
    return None


def point(folder: Path, link: str, target: str) -> None:
    """Make `folder/link` a relative symlink to `target`, with no moment without one."""
    temporary = folder / f".{link}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, folder / link)


def _complete(folder: Path) -> list[Path]:
    return [p for p in folder.glob("[0-9]*") if p.is_dir() and p.name.isdigit()]


def _prune(folder: Path, keep: int) -> None:
    pointed = {p.resolve() for p in folder.iterdir() if p.is_symlink()}
    for old in sorted(_complete(folder))[:-keep]:
        if old.resolve() not in pointed:
            shutil.rmtree(old)
