"""The stages of `er benchmark trap`, and what it can be told."""

import dataclasses
import json
import multiprocessing
import shlex
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_reward import config as configs
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.trap import chain
from embodied_reward.cli.trap.conditions import CONDITIONS, optimal_policy
from embodied_reward.cli.trap.learner import LearnerConfig, learn
from embodied_reward.cli.trap.mdp import Outcome, evaluate
from embodied_reward.errors import ConfigError
from embodied_reward.files import replacing
from embodied_reward.types import Float64, Int64

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_FREE = ("seeds", "jobs", "output_dir")  # may differ when a benchmark is continued


@dataclass(frozen=True)
class TrapConfig:
    """What `er benchmark trap` can be told."""

    seeds: int = 5
    """seeds 0, 1, ...; each has its own demonstrations, reward model and learners"""
    success_probability: float = 0.2
    """chance that one attempt locks the peg; a failed one costs eight decisions"""
    horizon: int = 40
    """decisions per episode, enough for four attempts"""
    gamma: float = 0.97
    """discount of learner and shaping in the picture version (the chain has 0.99)"""
    hover_above: float = 0.8
    """an episode hovers if it ends above this learned potential without success"""
    demos: int = 12
    """demonstrations per reward model"""
    reward_steps: int = 150
    """gradient steps per reward model"""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    jobs: int = 1
    """learners that run at a time, one core each"""
    output_dir: str = "outputs/benchmark/trap"
    """folder of all results; what is finished there is kept"""


def main(argv: list[str]) -> int:
    """Entry point of `er benchmark trap`."""
    about = sys.modules[__package__ or ""].__doc__
    return run_verb("benchmark trap", TrapConfig, benchmark, argv, about)


def benchmark(config: TrapConfig) -> int:
    """Run what is missing, then report. Raises ConfigError for bad or changed settings."""
    from embodied_reward.cli.trap.report import write_report

    folder = _prepare(config)
    try:
        potentials = [_potential(config, seed) for seed in range(config.seeds)]
        _learn_all(config, potentials)
    except KeyboardInterrupt:
        again = f"er benchmark trap --output_dir={shlex.quote(str(folder))}"
        print(f"\ninterrupted; what is finished is kept. Continue with the same settings:\n{again}")
        return 130
    runs = {
        name: [_read(_run_path(config, name, seed)) for seed in range(config.seeds)]
        for name in CONDITIONS
    }
    write_report(folder, configs.encode(config), chain.table(), runs, potentials[0])
    return 0


def _prepare(config: TrapConfig) -> Path:
    for name in ("seeds", "horizon", "demos", "reward_steps", "jobs"):
        if getattr(config, name) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {getattr(config, name)}")
    if config.learner.steps < 100:
        raise ConfigError(f"--learner.steps must be at least 100, got {config.learner.steps}")
    if not (0.0 < config.success_probability <= 1.0 and 0.0 < config.gamma < 1.0):
        raise ConfigError("--success_probability must lie in (0, 1] and --gamma in (0, 1)")
    folder = Path(config.output_dir)
    saved = folder / "config.yaml"
    if saved.is_file():
        _refuse_changes(configs.encode(config), configs.read_yaml(saved), folder)
    with replacing(saved) as temporary:
        configs.write_yaml(config, temporary)
    return folder


def _refuse_changes(now: dict[str, Any], then: dict[str, Any], folder: Path) -> None:
    changed = [k for k in now if k not in _FREE and now[k] != then.get(k)]
    if changed:
        key = changed[0]
        raise ConfigError(
            f"'{folder}' holds runs with {key}={then.get(key)}, now {now[key]}; choose another "
            "--output_dir or the old settings"
        )


def _potential(config: TrapConfig, seed: int) -> Float64:
    from embodied_reward.cli.trap.potentials import learned_potential

    folder = Path(config.output_dir) / "potentials" / f"seed{seed}"
    return learned_potential(folder, seed=seed, demos=config.demos, steps=config.reward_steps)


def _learn_all(config: TrapConfig, potentials: list[Float64]) -> None:
    from embodied_reward.cli.progress_bar import progress_bar

    todo = [
        (name, seed)
        for seed in range(config.seeds)
        for name in CONDITIONS
        if not _run_path(config, name, seed).is_file()
    ]
    total = config.seeds * len(CONDITIONS)
    with progress_bar() as progress:
        bar = progress.add_task("learning", total=total, completed=total - len(todo))
        if config.jobs == 1:
            for name, seed in todo:
                _one_run(config, name, seed, potentials[seed], _share(progress, bar, config))
        else:
            for _ in _in_parallel(config, todo, potentials):
                progress.advance(bar)


def _share(progress: "Progress", bar: "TaskID", config: TrapConfig) -> Any:
    before = progress.tasks[0].completed
    return lambda steps: progress.update(bar, completed=before + steps / config.learner.steps)


def _in_parallel(
    config: TrapConfig, todo: list[tuple[str, int]], potentials: list[Float64]
) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(config.jobs, max(1, len(todo))), mp_context=context)
    try:
        jobs = [pool.submit(_one_run, config, n, seed, potentials[seed]) for n, seed in todo]
        for job in as_completed(jobs):
            yield job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _one_run(
    config: TrapConfig, name: str, seed: int, potential: Float64, on_steps: Any = lambda _: None
) -> None:
    """Learn under one reward and write what policy and reward attain, exactly evaluated."""
    from embodied_reward.cli.trap.lattice import insert_process, start_distribution
    from embodied_reward.training.seeding import set_threads

    set_threads(1)
    policy = learn(
        CONDITIONS[name], potential, config.learner, chance=config.success_probability,
        horizon=config.horizon, gamma=config.gamma, seed=seed, on_steps=on_steps,
    )  # fmt: skip
    process = insert_process(potential, config.success_probability, config.gamma)

    def attained(table: Int64) -> dict[str, float]:
        outcome: Outcome = evaluate(process, table, start_distribution(), config.hover_above)
        return dataclasses.asdict(outcome)

    best = {
        kind: attained(optimal_policy(CONDITIONS[of], process, config.horizon))
        for kind, of in (("asked_for", name), ("optimum", "sparse"))
    }
    row = {"condition": name, "seed": seed, "learned": attained(policy), **best}
    with replacing(_run_path(config, name, seed)) as temporary:
        temporary.write_text(json.dumps(row, indent=1))
    on_steps(config.learner.steps)


def _run_path(config: TrapConfig, name: str, seed: int) -> Path:
    return Path(config.output_dir) / "runs" / f"{name}_seed{seed}.json"


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
