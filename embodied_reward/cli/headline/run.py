"""The study's course: which jobs there are, what is finished, what is reported."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_reward import config as configs
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.headline.cells import (
    Cell,
    Folders,
    Scene,
    cells_of,
    read_json,
    write_json,
)
from embodied_reward.cli.headline.config import CONDITIONS, HeadlineConfig, residual_sac
from embodied_reward.cli.jobs import Job, run_jobs
from embodied_reward.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def main(argv: list[str]) -> int:
    """Entry point of `er benchmark headline`."""
    about = sys.modules[__package__ or ""].__doc__
    return run_verb("benchmark headline", HeadlineConfig, benchmark, argv, about, recipe)


def recipe(given: dict[str, Any]) -> dict[str, Any]:
    """Return what stands beneath given words, so that `--policy.x=...` changes x alone."""
    other = (given.get("policy") or {}).get("type", "sac") != "sac"
    return {} if other else {"policy": configs.encode(residual_sac())}


def benchmark(config: HeadlineConfig) -> int:
    """Run what is missing, then report; 1 if a cell failed.

    Raises:
        ConfigError, EnvError: settings that cannot be used, or other ones than in the folder.
    """
    config.check()
    folders, cells = Folders(Path(config.output_dir)), cells_of(config)
    _check_settings(config, folders.root)
    if config.known:
        _take_over(config, folders)
    try:
        failed = _run(config, folders, cells)
    except KeyboardInterrupt:
        again = f"er benchmark headline --output_dir={shlex.quote(str(folders.root))}"
        print(f"\ninterrupted; what is finished is kept. Continue with the same settings:\n{again}")
        return 130
    finally:
        _report(config, folders)
    for name, why in failed.items():
        print(f"failed: {name}: {why}", file=sys.stderr)
    return 1 if failed else 0


def _check_settings(config: HeadlineConfig, root: Path) -> None:
    path = root / "settings.json"
    if path.is_file():
        _refuse_other(config, read_json(path), f"'{root}' holds cells")
    write_json(path, config.settings())


def _refuse_other(config: HeadlineConfig, then: dict[str, Any], where: str) -> None:
    now = config.settings()
    for key in now:
        if now[key] != then.get(key):
            raise ConfigError(
                f"{where} with {key}={then.get(key)}, now {now[key]}; choose another --output_dir "
                "or the old settings"
            )


def _take_over(config: HeadlineConfig, folders: Folders) -> None:
    """Write the cells of an earlier study's results where none are yet."""
    tree = read_json(Path(config.known))
    for result in tree["cells"] if isinstance(tree, dict) and "cells" in tree else ():
        _refuse_other(config, tree["settings"], f"'{config.known}' holds cells")
        cell = Cell(Scene(result["task"], result["seed"]), result["condition"])
        if not folders.result(cell).is_file():
            write_json(folders.result(cell), {**result, "settings": tree["settings"]})


def _run(config: HeadlineConfig, folders: Folders, cells: list[Cell]) -> dict[str, str]:
    from embodied_reward.cli.progress_bar import progress_bar

    todo = [cell for cell in cells if not folders.result(cell).is_file()]
    with progress_bar() as progress:
        bar = progress.add_task("rollouts", total=config.rollouts * len(cells))

        def poll(running: list[str]) -> None:
            _show(progress, bar, config, folders, cells)

        return run_jobs(jobs_of(config, folders, todo), config.jobs, poll)


def jobs_of(config: HeadlineConfig, folders: Folders, todo: list[Cell]) -> list[Job]:
    """Return the jobs that are left, in the order of the cells, preparations before their use."""
    from embodied_reward.cli.headline.cell import run_cell
    from embodied_reward.cli.headline.prepare import DEMO, REWARD, prepare_demo, prepare_reward

    jobs: dict[str, Job] = {}

    def prepare(work: Any, scene: Scene, file: str, needs: tuple[str, ...] = ()) -> str:
        name = f"{scene.name}_{file.removesuffix('.json')}"
        if not folders.prepared(scene, file).is_file():
            jobs.setdefault(name, Job(name, work, (config, scene), folders.log(name), needs))
        return name

    for cell in todo:
        needs = [prepare(prepare_demo, cell.scene, DEMO)]
        if CONDITIONS[cell.condition].scored:
            needs.append(prepare(prepare_reward, cell.scene, REWARD, (needs[0],)))
        log = folders.log(cell.name)
        jobs[cell.name] = Job(cell.name, run_cell, (config, cell), log, tuple(needs))
    return list(jobs.values())


def _show(
    progress: "Progress", bar: "TaskID", config: HeadlineConfig, folders: Folders, cells: list[Cell]
) -> None:
    """Let the bar count rollouts: all of a finished cell, the logged ones of a running one."""
    done = 0
    for cell in cells:
        log = folders.run(cell) / "metrics.jsonl"
        if folders.result(cell).is_file():
            done += config.rollouts
        elif log.is_file():
            done += log.read_text().count('"episode/length"')
    progress.update(bar, completed=done)


def _report(config: HeadlineConfig, folders: Folders) -> None:
    """Report every finished cell in the folder, not only those asked for now."""
    from embodied_reward.cli.headline.report import write_report

    results = [read_json(path) for path in sorted((folders.root / "cells").glob("*.json"))]
    if results:
        write_report(folders.root, config.settings(), results)
