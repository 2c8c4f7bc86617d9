"""Checkpoints that are complete or absent (design §11).

    checkpoints/<step>/{..., manifest.json}     checkpoints/last -> <step>

A checkpoint is written into `<step>.tmp/`, synced, sealed by a manifest of sha256 sums that
is written last, then renamed; `last` is replaced after that. Where the step exists already, the
old one waits as `<step>.old` until the new one stands. Loading verifies every sum.
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

    Returns:
        The checkpoint's folder. Whatever `write` raises passes through, leaving no trace.
    """
    final, temporary = folder / f"{step:08d}", folder / f"{step:08d}.tmp"
    # What a killed writer left behind; a run has one writer.
    for stale in folder.glob("[0-9]*.tmp"):
        shutil.rmtree(stale, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        seal(temporary)
        _install(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    point(folder, link, final.name)
    _prune(folder, keep)
    return final


def seal(folder: Path) -> None:
    """Sync every file of a finished folder and write its manifest last."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    sums = {}
    for file in files:
        fsync(file)
        sums[file.relative_to(folder).as_posix()] = sha256(file)
    (folder / MANIFEST).write_text(json.dumps({"version": 1, "sha256": sums}, indent=1))
    for entry in (folder / MANIFEST, *(d for d in folder.rglob("*") if d.is_dir()), folder):
        fsync(entry)


def verify(folder: Path) -> Path:
    """Check a checkpoint against its manifest. Raises CheckpointError naming the bad file."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise CheckpointError(f"'{folder}' has no {MANIFEST}: the checkpoint is incomplete")
    for name, expected in _read_manifest(manifest).items():
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
    _restore(folder)
    for candidate in reversed(_complete(folder)):
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
    fsync(folder)


def _install(temporary: Path, final: Path) -> None:
    """Rename a sealed folder to its place; at every moment the old or the new one is complete."""
    old = final.with_name(final.name + ".old")
    _restore(final.parent)
    if final.exists():
        os.replace(final, old)
    os.replace(temporary, final)
    fsync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _restore(folder: Path) -> None:
    """Finish what a crash between the two renames of `_install` left behind."""
    for old in folder.glob("*.old"):
        final = old.with_suffix("")
        if final.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(old, final)


def _read_manifest(manifest: Path) -> dict[str, str]:
    try:
        return dict(json.loads(manifest.read_text())["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"'{manifest}' is damaged ({type(error).__name__}); use an older checkpoint"
        ) from error


def _complete(folder: Path) -> list[Path]:
    """Return the sealed-looking checkpoints, oldest first."""
    found = [p for p in folder.glob("[0-9]*") if p.is_dir() and p.name.isdigit()]
    return sorted(found, key=lambda p: int(p.name))


def _prune(folder: Path, keep: int) -> None:
    pointed = {p.resolve() for p in folder.iterdir() if p.is_symlink()}
    for old in _complete(folder)[:-keep]:
        if old.resolve() not in pointed:
            shutil.rmtree(old)
