"""Does it pay to ask what an ensemble disputes? Active against random pairs at equal budgets.

    uv run python benchmarks/active_queries.py [--task=Avoid] [--seeds=3] [--members=rlhf,rapl]
        [--budgets 20 40 80] [--steps=100] [--json=FILE]

The episodes, the oracle (true return, no mistakes) and the measure are those of
`benchmarks/rapl.py`: Spearman's correlation of the episode return with the true return on unseen
episodes of the medium stick. An ensemble of three members (initial weights and batches of their
own, all answers) learns from the first budget of random pairs. For the next one `random` answers
more random pairs, while `active` asks the ensemble for the most disputed of `--pool` random pairs
(`er label-preferences --strategy=disagreement`), all at once, and trains anew. The ensemble's
return is the mean of its members', each in units of its own spread. Nothing is held out, so the
last checkpoint counts. Finished trainings are kept in `--out`.
"""

import argparse
import json
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from rapl import LEARNER, SHARED, collected, episodes, spread, truth

from embodied_reward.cli.label_disagreement import disagreement
from embodied_reward.data import open_dataset
from embodied_reward.data.preferences import read_preferences
from embodied_reward.envs.tasks.preferences import Teacher
from embodied_reward.labelling.queries import Query, most_disputed, random_queries
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards import RaplConfig, RlhfConfig
from embodied_reward.rewards import load as load_model
from embodied_reward.rewards.ensemble import EnsembleConfig, EnsembleModel
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from embodied_reward.training.seeding import seed_everything

KINDS = {"rlhf": RlhfConfig, "rapl": RaplConfig}
WAYS = ("random", "active")
COUNT, BATCH = 3, 16


def answered(queries: list[Query], root: str, path: Path) -> Path:
    """Write the oracle's answers."""
    answer, rewards = {"first": 0, "second": 1, "same": None}, truth(root)[1]
    rows = []
    for query in queries:
        i, j = query.left, query.right
        preferred = answer[Teacher().prefer(rewards[i], rewards[j], np.random.default_rng(0))]
        rows.append({"type": "pair", "episodes": [i, j], "preferred": preferred})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def trained(kind: str, queries: list[Query], root: str, seed: int, steps: int, run: Path) -> Path:
    """Train an ensemble on the answers unless it is finished."""
    if not (run / "done").exists():
        seed_everything(seed)
        member = KINDS[kind](**SHARED)
        config = EnsembleConfig(views=SHARED["views"], member=member, count=COUNT, bootstrap=False)
        model = EnsembleModel.create(config)
        answers = answered(queries, root, run / "preferences.jsonl")
        model.learn_from(read_preferences(answers, range(len(episodes(root)))))
        settings = OptimizationConfig(steps=steps, batch_size=BATCH, val_freq=1000, save_freq=1000)
        every = episodes(root)
        RewardTrainer(model, every, [], config=settings, folder=run, seed=seed).run(progress=False)
        (run / "done").touch()
    return run


def rank(run: Path, root: str) -> float:
    """Return Spearman's correlation of the ensemble's return with the true return."""
    path = run / "rank.json"
    if not path.exists():
        model = load_model(run)
        worth = np.array([[m.episode_return(e) for m in model.members] for e in episodes(root)])
        found = spearman((worth / worth.std(0)).mean(1), np.array(truth(root)[0]))
        path.write_text(json.dumps(float(found)))
    return json.loads(path.read_text())


def study(kind: str, seed: int, train: str, test: str, options: argparse.Namespace) -> dict:
    """Return way -> budget -> rank."""
    tasks = [(e.index, "one task") for e in episodes(train)]
    found: dict[str, dict[int, float]] = {}
    for way in WAYS:
        order = random_queries(tasks, "pair", seed)
        asked: list[Query] = []
        run = None
        for budget in options.budgets:
            if run is not None and way == "active":
                doubt = disagreement(str(run), open_dataset(train))
                order = most_disputed(order, doubt, options.pool)
            asked += islice(order, budget - len(asked))
            # The first budget is the same for both.
            name = f"{kind}_{way if run else 'random'}_{budget}_{seed}_{options.steps}"
            run = trained(kind, asked, train, seed, options.steps, options.out / name)
            found.setdefault(way, {})[budget] = rank(run, test)
            print(kind, way, seed, budget, f"{found[way][budget]:.3f}", flush=True)
            if way == "active":
                order = fresh(tasks, seed + 1000 + budget, asked)
    return found


def fresh(tasks: list[tuple[int, str]], seed: int, asked: list[Query]):  # noqa: ANN201
    """Yield random pairs that were not asked."""
    known = {query.key for query in asked}
    return (q for q in random_queries(tasks, "pair", seed) if q.key not in known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="Avoid")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--members", default="rlhf,rapl")
    parser.add_argument("--budgets", type=int, nargs="+", default=[20, 40, 80])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--pool", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/active_queries"))
    parser.add_argument("--data", type=Path, default=Path("outputs/benchmarks/rapl"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, test = (
        collected(options.task, LEARNER, part, options.data) for part in ("train", "test")
    )
    rows = [
        {"task": options.task, "member": kind, "seed": seed}
        | study(kind, seed, train, test, options)
        for kind in options.members.split(",")
        for seed in range(options.seeds)
    ]
    print(f"\n| {options.task} | pairs | " + " | ".join(WAYS) + " |\n|---|---|---|---|")
    for kind in options.members.split(","):
        for budget in options.budgets:
            cells = [spread([r[w][budget] for r in rows if r["member"] == kind]) for w in WAYS]
            print(f"| {kind} | {budget} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
