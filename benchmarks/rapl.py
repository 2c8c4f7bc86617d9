"""RAPL's main comparison on our planar tasks: which reward ranks episodes as the true one does?

    uv run python benchmarks/rapl.py [--tasks=Avoid] [--seeds=3] [--budgets 50 150 600]
        [--steps=150] [--methods=rapl,rlhf,unaligned,tcc] [--plot=FILE.png] [--finished]

Scripted episodes of a medium stick (`er collect`: 70 mixed and 30 careless ones to learn from, 40
and 20 to test) are compared in random pairs by an oracle that knows the true return. From the
first n of these pairs every method learns with the same pictures, encoder, steps, split and
seeds; `tcc` sees the successful training episodes instead. A fifth of the training episodes is
held out and chooses the checkpoint. Then Spearman's correlation is measured on test episodes of
the same stick, and of a short stick and a gripper that no reward was trained on:

    rank    of the method's episode return with the true return
    frame   of its potential with the true reward of the frame, over all frames

`benchmarks/rapl_policies.py` then trains SAC on these rewards. Finished parts are kept in `--out`,
so a stopped command goes on where it was.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import torch
from runs import er

from embodied_reward.data import open_dataset
from embodied_reward.data.preferences import read_preferences
from embodied_reward.envs.tasks.preferences import Teacher, true_return, true_rewards
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards import (
    RaplConfig,
    RaplModel,
    RewardModel,
    RlhfConfig,
    TccConfig,
    registry,
)
from embodied_reward.rewards import load as load_model
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer, split_episodes
from embodied_reward.training.seeding import seed_everything
from embodied_reward.types import Episode
from embodied_reward.vision.encoders import EncoderConfig

LEARNER, OTHERS = "MediumStick", ("ShortStick", "Gripper")
HORIZON = 60
PARTS = {
    "train": (("mixed", 70, 0), ("careless", 30, 1)),
    "test": (("mixed", 40, 1000), ("careless", 20, 1001)),
    "other": (("mixed", 30, 1000), ("careless", 15, 1001)),
    "demos": (("expert", 5, 500),),
}
METHODS = ("rapl", "rlhf", "unaligned", "tcc")
TITLES = {
    "rapl": "RAPL",
    "rlhf": "RLHF",
    "unaligned": "transport, random encoder",
    "tcc": "TCC + transport",
    "rapl_success": "RAPL, references that succeeded",
    "rapl_triplets": "RAPL, triplets, references that succeeded",
    "rapl_band": "RAPL, band 0.2",
    "true": "true progress",
    "success": "success alone",
}
COLOURS = dict(
    zip(TITLES, ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "black", "grey"), strict=True)
)
SHARED = {
    "views": ("top",),
    "encoder": EncoderConfig(image_size=32),
    "dim": 64,
    "frames": 12,
    "shift": 1,
    "erase": 0.0,
    "success_weight": 0.0,
}
# Costs in an encoder that was not trained with this entropy are smaller; of 0.1, 0.03, 0.01 and
# 0.003 this ranks held-out training episodes best for both.
SHARP = {"epsilon": 0.01, "reward_epsilon": 0.01}
VARIANTS = {
    "unaligned": SHARP,
    "tcc": SHARP,
    "rapl_success": {"reference": "success"},
    "rapl_triplets": {"reference": "success"},
    "rapl_band": {"band": 0.2},
}


# --- episodes and preferences ---


def collected(task: str, body: str, part: str, out: Path) -> str:
    """Record a part unless it is there; returns its folders joined by commas."""
    folders = []
    for quality, count, seed in PARTS[part]:
        name = "test" if part == "other" else part
        folder = out / "data" / f"{task}-{body}" / f"{name}_{quality}"
        if not (folder / "meta" / "info.json").exists():
            env = f"--env.id=embodied_reward/{task}-{body}-v0"
            more = [f"--env.horizon={HORIZON}", f"--episodes={count}", f"--seed={seed}"]
            kind = [f"--quality={quality}", "--only_success=false", f"--output_dir={folder}"]
            er("collect", env, *more, *kind)
        folders.append(str(folder))
    return ",".join(folders)


@cache
def episodes(root: str) -> list[Episode]:
    return list(open_dataset(root))


@cache
def truth(root: str) -> tuple[list[float], list[np.ndarray]]:
    """True return and true rewards of every episode."""
    rewards = [true_rewards(e) for e in episodes(root)]
    return [true_return(r, HORIZON + 1) for r in rewards], rewards


def preferences(root: str, count: int, seed: int, path: Path) -> Path:
    """Write answers about random pairs; those of a smaller budget are the first of a larger."""
    rng, answer = np.random.default_rng(seed), {"first": 0, "second": 1, "same": None}
    rewards, rows = truth(root)[1], []
    for _ in range(count):
        i, j = (int(k) for k in rng.choice(len(rewards), 2, replace=False))
        preferred = answer[Teacher().prefer(rewards[i], rewards[j], rng)]
        rows.append({"type": "pair", "episodes": [i, j], "preferred": preferred})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def likeness(root: str, count: int, seed: int, path: Path) -> Path:
    """Write answers about random triplets: whose true return is nearer to the anchor's?"""
    rng, (returns, _), rows = np.random.default_rng(seed), truth(root), []
    for _ in range(count):
        anchor, one, other = (int(k) for k in rng.choice(len(returns), 3, replace=False))
        near = [abs(returns[k] - returns[anchor]) for k in (one, other)]
        closer, farther = (one, other) if near[0] <= near[1] else (other, one)
        row = {"type": "triplet", "anchor": anchor, "closer": closer, "farther": farther}
        rows.append(row | ({"same": True} if near[0] == near[1] else {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --- methods ---


def trained(method: str, root: str, budget: int, seed: int, steps: int, folder: Path) -> Path:
    """Train one method unless it is finished; returns the run folder."""
    run = folder / f"{method}_{budget}_{seed}_{steps}"
    if not (run / "done").exists():
        model = _tcc(root, budget, seed, steps, run) if method == "tcc" else _model(method, seed)
        ask = likeness if method == "rapl_triplets" else preferences
        answers = ask(root, budget, seed, run / "preferences.jsonl")
        still = method in ("unaligned", "tcc")
        _train(model, root, seed, 0 if still else steps, run, answers)
        (run / "done").touch()
    return run


def _model(method: str, seed: int) -> RewardModel:
    seed_everything(seed)
    kinds = {"rlhf": RlhfConfig, "tcc_encoder": TccConfig}
    config = kinds.get(method, RaplConfig)(**SHARED, **VARIANTS.get(method, {}))
    return registry()[type(config).get_choice_name(type(config))].create(config)


def _train(
    model: RewardModel, root: str, seed: int, steps: int, run: Path, answers: Path | None
) -> None:
    if answers:
        model.learn_from(read_preferences(answers, range(len(episodes(root)))))
    training, validation = split_episodes(episodes(root), 0.2, seed)
    config = OptimizationConfig(
        steps=steps, batch_size=64 if answers else 4, val_freq=25, save_freq=1000
    )
    trainer = RewardTrainer(model, training, validation, config=config, folder=run, seed=seed)
    trainer.run(progress=False)


def _tcc(root: str, budget: int, seed: int, steps: int, run: Path) -> RaplModel:
    """Transport in the embedding of `tcc`, which is trained once per seed."""
    aligned = run.parent / f"tcc_encoder_{seed}_{steps}"
    if not (aligned / "done").exists():
        _train(_model("tcc_encoder", seed), root, seed, steps, aligned, None)
        (aligned / "done").touch()
    source, model = load_model(aligned), _model("tcc", seed)
    model.network.load_state_dict(source.network.state_dict())
    model.projection.load_state_dict(source.projection.state_dict())
    return model


# --- measurements ---


def measured(run: Path, root: str) -> dict[str, float]:
    """Return the correlations of a trained model on test episodes."""
    torch.set_num_threads(1)
    model, (returns, rewards) = load_model(run), truth(root)
    potentials = [model.score_episode(e).potential for e in episodes(root)]
    ours = [model.episode_return(e) for e in episodes(root)]
    pairs = np.array([(a, b) for a in range(len(ours)) for b in range(a)])
    lead = np.diff(np.array(ours)[pairs])[:, 0], np.diff(np.array(returns)[pairs])[:, 0]
    told = lead[1] != 0
    return {
        "rank": spearman(np.array(ours), np.array(returns)),
        "frame": spearman(np.concatenate(potentials), np.concatenate(rewards)),
        "pairs": float((np.sign(lead[0]) == np.sign(lead[1]))[told].mean()),
    }


def rank_study(options: argparse.Namespace) -> list[dict]:
    """Train and measure every method, budget and seed; rows are kept in `rank.json`."""
    rows = []
    for task in options.tasks.split(","):
        train = collected(task, LEARNER, "train", options.out)
        tests = {LEARNER: collected(task, LEARNER, "test", options.out)}
        tests |= {body: collected(task, body, "other", options.out) for body in OTHERS}
        for seed in range(options.seeds):
            for budget in options.budgets:
                for method in options.methods.split(","):
                    folder = options.out / task
                    name = f"{method}_{budget}_{seed}_{options.steps}"
                    if options.finished and not (folder / name / "measured.json").exists():
                        continue
                    run = trained(method, train, budget, seed, options.steps, folder)
                    row = {"task": task, "method": method, "budget": budget, "seed": seed}
                    row |= measured_once(run, tests)
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    (options.out / "rank.json").write_text(json.dumps(rows, indent=1) + "\n")
    return rows


def measured_once(run: Path, tests: dict[str, str]) -> dict[str, dict[str, float]]:
    path = run / "measured.json"
    if not path.exists():
        found = {body: measured(run, root) for body, root in tests.items()}
        path.write_text(json.dumps(found) + "\n")
    return json.loads(path.read_text())


# --- what is shown ---


def table(rows: Sequence[dict], metric: str) -> str:
    """Mean over seeds, the smallest and largest in brackets."""
    bodies = (LEARNER, *OTHERS)
    lines = []
    for task in dict.fromkeys(r["task"] for r in rows):
        lines += ["", f"| {task}, {metric} | preferences | " + " | ".join(bodies) + " |"]
        lines.append("|---" * (2 + len(bodies)) + "|")
        for method in dict.fromkeys(r["method"] for r in rows):
            for budget in dict.fromkeys(r["budget"] for r in rows):
                chosen = [
                    r
                    for r in rows
                    if (r["task"], r["method"], r["budget"]) == (task, method, budget)
                ]
                cells = [spread([r[body][metric] for r in chosen]) for body in bodies]
                lines.append(f"| {TITLES[method]} | {budget} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def plot(ranks: Sequence[dict], path: Path) -> None:
    tasks = list(dict.fromkeys(r["task"] for r in ranks))
    with figure(len(tasks), 1 + len(OTHERS), path) as axes:
        for line, task in zip(axes, tasks, strict=True):
            for axis, body in zip(line, (LEARNER, *OTHERS), strict=True):
                _draw_ranks(axis, [r for r in ranks if r["task"] == task], body, task)


@contextmanager
def figure(rows: int, columns: int, path: Path) -> Iterator[np.ndarray]:
    """Yield axes [rows, columns] to draw on, then add one legend for all and write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    size = (max(2.9 * columns, 5.8), 2.9 * rows + 0.5)  # the legend needs the width of two
    drawn, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    yield axes
    handles: dict[str, object] = {}
    for axis in axes.flat:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    drawn.tight_layout(rect=(0, 0.13 / rows, 1, 1))
    drawn.legend(
        handles.values(), handles, loc="lower center", ncol=min(4, 2 * columns + 1), fontsize=8
    )
    drawn.savefig(path, dpi=110)


def _draw_ranks(axis, rows: Sequence[dict], body: str, task: str) -> None:  # noqa: ANN001
    budgets = sorted({r["budget"] for r in rows})
    for method in dict.fromkeys(r["method"] for r in rows):
        chosen = [[r[body]["rank"] for r in rows if (r["method"], r["budget"]) == (method, b)]
                  for b in budgets]  # fmt: skip
        if all(chosen):
            low, mean, high = (np.array([f(v) for v in chosen]) for f in (min, np.mean, max))
            axis.plot(budgets, mean, "o-", color=COLOURS[method], label=TITLES[method])
            axis.fill_between(budgets, low, high, alpha=0.12, color=COLOURS[method])
    axis.set(xscale="log", xticks=budgets, xticklabels=budgets, ylim=(-0.3, 1))
    axis.minorticks_off()
    axis.axhline(0, color="grey", lw=0.5)
    same = "as trained" if body == LEARNER else "never seen"
    axis.set_title(f"{task}, {body} ({same})", fontsize=9)
    axis.set_xlabel("preferences", fontsize=8)
    axis.set_ylabel("Spearman with true return", fontsize=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="Avoid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 150, 600])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/rapl"))
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--finished", action="store_true", help="show what is there, run nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ranks = rank_study(options)
    for metric in ("rank", "frame"):
        print(table(ranks, metric))
    if options.plot:
        plot(ranks, options.plot)


if __name__ == "__main__":
    main()
