"""Run jobs that need each other's results, each in a process of its own."""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from embodied_reward.errors import EmbodiedRewardError

_POLL_S = 0.5


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        name: unique.
        work: importable function of a module; called with `arguments`.
        arguments: for `work`.
        log: file that takes what it prints.
        needs: names of jobs that must have finished before.
    """

    name: str
    work: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path
    needs: tuple[str, ...] = field(default=())


def run_jobs(
    jobs: Sequence[Job], count: int, on_poll: Callable[[list[str]], None] = lambda _: None
) -> dict[str, str]:
    """Run all jobs, `count` at a time, the earliest one that can run first.

    A job that fails takes those that need it with it; the others go on. On an exception, Ctrl-C
    included, running jobs are ended before it is passed on, and they end by themselves if this
    process is killed.

    Args:
        jobs: a job that is needed but not among these counts as finished.
        count: at least one.
        on_poll: called twice a second with the names of the running jobs.

    Returns:
        name -> last line of the log, of the jobs that failed or could not run.
    """
    context = multiprocessing.get_context("spawn")
    waiting, running, failed = list(jobs), {}, {}
    try:
        while waiting or running:
            _drop(waiting, failed)
            for job in _ready(waiting, running, count):
                waiting.remove(job)
                job.log.parent.mkdir(parents=True, exist_ok=True)
                given = (job.work, job.arguments, str(job.log))
                running[job.name] = (job, context.Process(target=_process, args=given))
                running[job.name][1].start()
            time.sleep(_POLL_S)
            for job in [j for j, p in running.values() if not p.is_alive()]:
                process = running.pop(job.name)[1]
                if process.exitcode != 0:
                    failed[job.name] = _last_line(job.log, process)
            on_poll(list(running))
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(10)
            process.kill()
    return failed


def _drop(waiting: list[Job], failed: dict[str, str]) -> None:
    """Give up what needs a failed job."""
    for job in list(waiting):
        if lost := [name for name in job.needs if name in failed]:
            waiting.remove(job)
            failed[job.name] = f"needs '{lost[0]}', which failed"


def _ready(waiting: list[Job], running: dict[str, Any], count: int) -> list[Job]:
    undone = {job.name for job in waiting} | set(running)
    ready = [job for job in waiting if not undone & set(job.needs)]
    return ready[: max(0, count - len(running))]


def _last_line(log: Path, process: BaseProcess) -> str:
    lines = log.read_text().strip().splitlines() if log.is_file() else []
    said = lines[-1] if lines else "it printed nothing"
    return f"{said} (exit code {process.exitcode}, see {log})"


def _process(work: Callable[..., None], arguments: tuple[Any, ...], log: str) -> None:
    # Ctrl-C is for the course, which ends its jobs; and the system shares its cores by sessions.
    os.setsid()
    # Before anything imports torch: two threads of two jobs on two cores are slower than one each.
    os.environ["OMP_NUM_THREADS"] = "1"
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    with (
        open(log, "w", buffering=1) as stream,
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
    ):
        try:
            work(*arguments)
        except EmbodiedRewardError as error:
            print(error)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted")
            sys.exit(130)
        except Exception:  # noqa: BLE001 (its traceback is what the log is for)
            traceback.print_exc()
            sys.exit(1)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
