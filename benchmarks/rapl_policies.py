"""What SAC learns from the rewards of `benchmarks/rapl.py`, and from the true one.

    uv run python benchmarks/rapl_policies.py [--tasks=Avoid] [--seeds=3] [--budgets 50 150 600]
        [--methods=rapl,rlhf,unaligned,tcc] [--modes=level,potential] [--decisions=4000]
        [--plot=FILE.png] [--finished] [--cell=METHOD:BUDGET:SEED:MODE]

SAC starts from five cloned demonstrations and learns by `er train-policy`, from the learned reward
as a potential beside the success (the order of policies is kept) or as a level in place of it (then
the learned reward alone decides). `true` and `success` need no preferences: `true:0:0:alone`.

Rewards and runs are kept in `--out`, beside those of `benchmarks/rapl.py`, and every finished run's
curve in `--results`, so a stopped command goes on where it was. `--cell` trains one reward and one
SAC run on it, so that many processes can share the work; `--finished` then shows all of it.
"""

import argparse
import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from rapl import COLOURS, HORIZON, LEARNER, METHODS, TITLES, collected, figure, spread, trained
from runs import er

ALONE = ("true", "success")
"""Rewards of SAC that learned nothing; they have the budget 0 and their own mode."""


def policy_study(options: argparse.Namespace) -> list[dict]:
    """SAC from five demonstrations on every reward, and on the true one and the bare success."""
    kinds = [(method, 0, "alone") for method in ALONE]
    for budget in options.budgets:
        for mode in options.modes.split(","):
            kinds += [(method, budget, mode) for method in options.methods.split(",")]
    rows = []
    for task in options.tasks.split(","):
        for seed in range(options.seeds):
            for method, budget, mode in kinds:
                row = cell(task, method, budget, seed, mode, options)
                rows += [row] if row else []
    return rows


def cell(
    task: str, method: str, budget: int, seed: int, mode: str, options: argparse.Namespace
) -> dict | None:
    """Train one reward and one SAC run on it, unless that is done; None: not done."""
    name = f"{task}_{method}_{budget}_{mode}_{seed}_{options.decisions}"
    path = options.results / f"{name}.json"
    if not path.exists():
        if options.finished:
            return None
        options.results.mkdir(parents=True, exist_ok=True)
        # Other cells need the same episodes, rewards and encoders.
        with locked(options.out / f"{task}.lock"):
            collected(task, LEARNER, "demos", options.out)
            root = collected(task, LEARNER, "train", options.out)
        if method not in ALONE:
            with locked(options.out / f"{task}_{method}_{seed}.lock"):
                trained(method, root, budget, seed, options.steps, options.out / task)
        row = {"task": task, "method": method, "budget": budget, "seed": seed, "mode": mode}
        row["curve"] = learned(task, method, budget, mode, seed, options)
        path.write_text(json.dumps(row) + "\n")
        print(path.read_text(), end="", flush=True)
    return json.loads(path.read_text())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def learned(
    task: str, method: str, budget: int, mode: str, seed: int, options: argparse.Namespace
) -> list[list[float]]:
    """Return [decisions, success rate] of every evaluation of one SAC run."""
    folder = options.out / task / f"sac_{method}_{budget}_{mode}_{seed}_{options.decisions}"
    started = (folder / "checkpoints").exists()
    fresh = [] if started else sac(task, method, budget, mode, seed, options)
    er("train-policy", f"--output_dir={folder}", *(fresh or ["--resume=true"]))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines if "eval/success_rate" in line]
    return [[row["step"], row["eval/success_rate"]] for row in found]


def sac(
    task: str, method: str, budget: int, mode: str, seed: int, options: argparse.Namespace
) -> list[str]:
    run = options.out / task / f"{method}_{budget}_{seed}_{options.steps}"
    reward = {"true": ["--reward.mode=oracle"], "success": ["--reward.mode=success"]}
    return [
        f"--env.id=embodied_reward/{task}-{LEARNER}-v0",
        f"--env.horizon={HORIZON}",
        f"--dataset.root={collected(task, LEARNER, 'demos', options.out)}",
        "--policy.type=sac",
        "--policy.gradient_steps=2",
        *reward.get(method, [f"--reward.path={run}", f"--reward.mode={mode}"]),
        f"--steps={options.decisions}",
        f"--eval.freq={options.decisions // 4}",
        "--eval.n_episodes=20",
        f"--seed={seed}",
        "--threads=1",
    ]


def policy_table(rows: Sequence[dict]) -> str:
    """Success at the end and on average over the evaluations after the start, per reward."""
    lines = ["| SAC on | mode | preferences | seeds | start | over the run | end |"]
    lines.append("|---" * 7 + "|")
    for key in dict.fromkeys(label(r) for r in rows):
        chosen = [r for r in rows if key == label(r)]
        start, end = ([r["curve"][k][1] for r in chosen] for k in (0, -1))
        cells = map(spread, (start, [over_the_run(r) for r in chosen], end))
        task, method, mode, budget = key
        name = f"{task}: {TITLES[method]} | {mode} | {budget or ''} | {len(chosen)}"
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def label(row: dict) -> tuple[str, str, str, int]:
    return row["task"], row["method"], row["mode"], row["budget"]


def plot(rows: Sequence[dict], path: Path) -> None:
    tasks = list(dict.fromkeys(r["task"] for r in rows))
    modes = list(dict.fromkeys(r["mode"] for r in rows if r["mode"] != "alone"))
    with figure(len(tasks), len(modes), path) as axes:
        for line, task in zip(axes, tasks, strict=True):
            for axis, mode in zip(line, modes, strict=True):
                _draw_success(axis, [r for r in rows if r["task"] == task], mode, task)


def _draw_success(axis, rows: Sequence[dict], mode: str, task: str) -> None:  # noqa: ANN001
    """Mean success over the evaluations of SAC, over the budget of its reward."""
    budgets = sorted({r["budget"] for r in rows if r["mode"] == mode})
    for method in TITLES:
        style = {"color": COLOURS[method], "label": TITLES[method]}
        chosen = [r for r in rows if r["method"] == method and r["mode"] in (mode, "alone")]
        if method in ALONE and chosen:
            axis.axhline(np.mean([over_the_run(r) for r in chosen]), ls="--", **style)
        elif chosen:
            at = sorted({r["budget"] for r in chosen})  # an unfinished study lacks some
            found = [[over_the_run(r) for r in chosen if r["budget"] == b] for b in at]
            low, mean, high = (np.array([f(v) for v in found]) for f in (min, np.mean, max))
            axis.plot(at, mean, "o-", **style)
            axis.fill_between(at, low, high, alpha=0.12, color=COLOURS[method])
    axis.set(xscale="log", xticks=budgets, xticklabels=budgets, ylim=(-0.02, 1.02))
    axis.minorticks_off()
    axis.set_title(f"{task}: SAC, '{mode}'", fontsize=9)
    axis.set_xlabel("preferences", fontsize=8)
    axis.set_ylabel("success over the run", fontsize=8)


def over_the_run(row: dict) -> float:
    return float(np.array(row["curve"])[1:, 1].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="Avoid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 150, 600])
    parser.add_argument("--steps", type=int, default=150, help="of the rewards")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--modes", default="level,potential", help="of `er train-policy`")
    parser.add_argument("--decisions", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/rapl"))
    parser.add_argument("--results", type=Path, default=Path("outputs/benchmarks/rapl/policies"))
    parser.add_argument("--cell", help="METHOD:BUDGET:SEED:MODE, one reward and one SAC run")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--finished", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.cell:
        method, budget, seed, mode = options.cell.split(":")
        for task in options.tasks.split(","):
            cell(task, method, int(budget), int(seed), mode, options)
        return
    rows = policy_study(options)
    print(policy_table(rows))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
