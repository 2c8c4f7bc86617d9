"""LeRobot v2.1 datasets, through LeRobot's own converter.

It works in place and next to the dataset, so it is given a folder of hard links: the original stays
as it is, and nothing is copied twice.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from embodied_reward.data import schema
from embodied_reward.errors import DatasetError

VERSION = "v2.1"
_STATS = "meta/episodes_stats.jsonl"


def is_legacy(root: Path) -> bool:
    """Whether `root` is a LeRobot v2.1 dataset."""
    try:
        info = json.loads((root / "meta" / "info.json").read_text())
        return str(info["codebase_version"]) == VERSION
    except (OSError, ValueError, KeyError, TypeError):
        return False


def upgrade(root: Path, place: Path) -> Path:
    """Write a LeRobot v3 copy of a v2.1 dataset at `place`, which must not exist.

    Raises:
        DatasetError: a file is missing or LeRobot's converter refuses the dataset.
    """
    _check_files(root)
    try:
        from lerobot.scripts.convert_dataset_v21_to_v30 import convert_dataset

        shutil.copytree(root, place, copy_function=_link)
        with schema.quiet_datasets():
            convert_dataset(repo_id=f"local/{root.name}", root=place, push_to_hub=False)
    except Exception as error:  # the converter raises whatever its parsers raise
        shutil.rmtree(place, ignore_errors=True)
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DatasetError(
            f"LeRobot's converter refuses '{root}' ({type(error).__name__}: {line}); "
            "copy the dataset again from its source"
        ) from error
    finally:
        shutil.rmtree(place.with_name(f"{place.name}_old"), ignore_errors=True)
        shutil.rmtree(place.with_name(f"{place.name}_v30"), ignore_errors=True)
    return place


def _check_files(root: Path) -> None:
    for name in ("meta/episodes.jsonl", "meta/tasks.jsonl", _STATS, "data"):
        if not (root / name).exists():
            hint = " (older than v2.1: convert it with a LeRobot of early 2025)"
            raise DatasetError(
                f"'{root / name}' is missing{hint if name == _STATS else ''}; "
                "copy the dataset again from its source"
            )
    _check_tasks(root)
    for path in root.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
            raise DatasetError(
                f"'{path}' is a link out of the dataset and is not followed; copy the file"
            )


def _check_tasks(root: Path) -> None:
    """LeRobot's converter takes a task list that was cut as it is."""
    listed = {line.get("task") for line in _json_lines(root / "meta" / "tasks.jsonl")}
    for line in _json_lines(root / "meta" / "episodes.jsonl"):
        for task in line.get("tasks") or []:
            if task not in listed:
                raise DatasetError(
                    f"'{root}/meta/tasks.jsonl' lacks the task '{task}' of episode "
                    f"{line.get('episode_index')}; copy the dataset again from its source"
                )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(
            f"'{path}' is truncated or damaged ({error}); copy the dataset again from its source"
        ) from error
    return [line for line in lines if isinstance(line, dict)]


def _link(source: str, target: str) -> str:
    try:
        os.link(Path(source).resolve(), target)
    except OSError:  # another disk
        shutil.copy2(source, target)
    return target
