"""Sample weights on varied environments: a reward model, four ways of training.

    uv run python benchmarks/sgfd.py [--seeds=5] [--steps=100]
        [--factors=texture,light,friction,object_size]

The table's push task is recorded in two variants of one factor (`--env.variation`)
whose recordings differ in what they cover: in 90 % of those in the second variant, and 10 % in the
first, the recording begins half-way. So the variant goes with progress, which the scene decides.
`remaining_time` (one 32 px view, 32 features, no augmentation) is trained on 12 recordings of
each and asked for progress on new recordings: linked as in training, linked the other way round
(10 % and 90 %), and whole ones in four variants of the held-out half of the world. `bias` is by how
much whole recordings in the second variant look further than in the first, before half-way: 0
where the variant tells the model nothing.

For policies see `benchmarks/sgfd_policy.py`.

Episodes are drawn once per factor; a seed decides which are used, cut and held out, and the
weights. Finished runs are kept; the tables of docs/decorrelation.md: median over seeds, in brackets
the smallest and the largest.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from embodied_reward.envs import make, make_behaviour
from embodied_reward.envs.variation import Variation, vary
from embodied_reward.math.statistics import spearman
from embodied_reward.rewards import RemainingTimeConfig, RemainingTimeModel
from embodied_reward.training.decorrelation import BatchWeights
from embodied_reward.training.decorrelation_config import DecorrelationConfig
from embodied_reward.training.reward_loop import OptimizationConfig, RewardTrainer
from embodied_reward.types import Episode
from embodied_reward.vision.encoders import EncoderConfig

TASK, VIEW, SIZE = "embodied_reward/TablePush-v0", "front", 32
FACTORS = ("texture", "light", "friction", "object_size")
METHODS = ("plain", "random shift", "StableNet", "SGFD")
SETS = ("as trained", "link reversed", "unseen variants")
DEMOS, FRESH = 18, 6  # recordings per training variant, and per kind of evaluation
USED = 12
LINK = 0.9
WEIGHTS = {"steps": 5, "columns": 16, "memory": 384, "warmup": 20}


# --- recordings ---


def record(factor: str, split: str, variant: int, seed: int) -> Episode:
    """Record the expert once in one variant."""
    env = make(TASK, views=(VIEW,), size=SIZE)
    env = vary(env, **{factor: 1.0}, split=split, variant=variant)
    observation, info = env.reset(seed=seed)
    act = make_behaviour(env, "expert", np.random.default_rng(seed))
    frames, progress, won = [env.frames()[VIEW]], [env.progress()], [bool(info["is_success"])]
    over = False
    while not over:
        observation, _, terminated, truncated, info = env.step(act(observation))
        frames.append(env.frames()[VIEW])
        progress.append(env.progress())
        won.append(bool(info["is_success"]))
        over = terminated or truncated
    env.close()
    return episode(np.stack(frames), np.array(progress), np.array(won), variant, seed)


def episode(frames, progress, won, variant, index) -> Episode:
    return Episode(
        views={VIEW: frames},
        action=np.zeros((len(frames), 1), np.float32),
        fps=20.0,
        task="push",
        index=int(index),
        source=f"variant {variant}#{index}",
        length=len(frames),
        success=bool(won.any()),
        success_frames=won,
        progress=progress.astype(np.float32),
        variant=int(variant),
    )


def variants(factor: str) -> tuple[int, int]:
    """The two of eight training variants that differ most; for looks, the first two."""
    if factor in Variation(**{factor: 1.0}).looks:
        return 0, 1
    env = vary(make(TASK, size=SIZE), **{factor: 1.0}, split="train")
    sizes = {}
    for seed in range(40):
        env.reset(seed=seed)
        sizes[env.variant] = env.multipliers[factor]
    env.close()
    order = sorted(sizes, key=sizes.get)
    return order[0], order[-1]


def recordings(factor: str, out: Path) -> dict[str, list[Episode]]:
    """Record once per factor, or read what was recorded."""
    path = out / f"{factor}.npz"
    if not path.exists():
        first, second = variants(factor)
        jobs = [("train", v, s) for v in (first, second) for s in range(DEMOS + FRESH)]
        jobs += [("test", k % 4, 1000 + k) for k in range(FRESH)]
        found = [record(factor, *job) for job in jobs]
        parts = {}
        for k, (e, (split, variant, _)) in enumerate(zip(found, jobs, strict=True)):
            parts[f"{k}.frames"], parts[f"{k}.progress"] = e.views[VIEW], e.progress
            parts[f"{k}.won"] = e.success_frames
            parts[f"{k}.which"] = np.array([split == "test", variant == second])
        np.savez_compressed(path.with_suffix(".tmp.npz"), **parts)
        path.with_suffix(".tmp.npz").rename(path)
    data = np.load(path)
    kinds: dict[str, list[Episode]] = {"first": [], "second": [], "unseen": []}
    for k in range(len(data.files) // 4):
        unseen, second = data[f"{k}.which"]
        name = "unseen" if unseen else ("second" if second else "first")
        fields = (data[f"{k}.{n}"] for n in ("frames", "progress", "won"))
        kinds[name].append(episode(*fields, int(second), k))
    return kinds


def late(e: Episode) -> Episode:
    """Begin the recording half-way."""
    at = int(np.argmax(e.progress >= 0.5))
    return episode(e.views[VIEW][at:], e.progress[at:], e.success_frames[at:], e.variant, e.index)


def linked(first, second, agree, rng) -> list[Episode]:
    """Cut `agree` of the second variant's recordings and `1 - agree` of the first one's."""
    cut = [
        (e, share * len(group) > k)
        for group, share in ((first, 1 - agree), (second, agree))
        for k, e in enumerate(rng.permutation(np.array(group, object)))
    ]
    return [late(e) if short else e for e, short in cut]


# --- reward models ---


def model_of(method: str) -> RemainingTimeModel:
    config = RemainingTimeConfig(
        views=(VIEW,),
        encoder=EncoderConfig(name="conv64", image_size=SIZE),
        dim=32,
        hidden=64,
        view_dropout=0.0,
        shift=2 if method == "random shift" else 0,
        jitter=0.0,
        erase=0.0,
    )
    return RemainingTimeModel.create(config, task="push")


def weights_of(method: str, seed: int) -> BatchWeights | None:
    kind = {"StableNet": "stablenet", "SGFD": "sgfd"}.get(method)
    if kind is None:
        return None
    return BatchWeights(DecorrelationConfig(type=kind, **WEIGHTS), variants=2, seed=seed)


def trained(method: str, training: list[Episode], seed: int, steps: int, folder: Path):
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(seed)
    weights = weights_of(method, seed)
    config = OptimizationConfig(
        steps=steps, batch_size=4, val_freq=steps, save_freq=steps, log_freq=10**6, lr=2e-3
    )
    trainer = RewardTrainer(
        model_of(method), training, [], config=config, folder=folder, seed=seed, weights=weights
    )
    trainer.run(progress=False)
    shutil.rmtree(folder)
    return trainer.model.eval(), weights


def measured(model, episodes: list[Episode]) -> dict[str, float]:
    """Spearman with true progress, over all frames together and as a mean of episodes."""
    found = [model.score_episode(e).potential for e in episodes]
    true = [e.progress for e in episodes]
    alone = [spearman(a, b) for a, b in zip(found, true, strict=True)]
    return {
        "pooled": float(spearman(np.concatenate(found), np.concatenate(true))),
        "within": float(np.nanmean(alone)),
    }


def early(model, episodes: list[Episode]) -> float:
    """Mean progress that the model sees before half-way."""
    found = [model.score_episode(e).potential[e.progress < 0.5] for e in episodes]
    return float(np.concatenate(found).mean())


def reward_run(factor: str, method: str, seed: int, steps: int, out: Path) -> dict:
    path = out / f"{factor}_{method.replace(' ', '_')}_{seed}_{steps}.json"
    if path.exists():
        return json.loads(path.read_text())
    data, rng = recordings(factor, out), np.random.default_rng(seed)
    groups = [rng.permutation(np.array(data[k], object)) for k in ("first", "second")]
    demos, fresh = [g[:USED] for g in groups], [g[USED : USED + FRESH] for g in groups]
    training = linked(*demos, LINK, rng)
    tests = [linked(*fresh, LINK, rng), linked(*fresh, 1 - LINK, rng), data["unseen"]]
    model, weights = trained(method, training, seed, steps, out / "run")
    result: dict = {name: measured(model, t) for name, t in zip(SETS, tests, strict=True)}
    result["bias"] = early(model, fresh[1]) - early(model, fresh[0])
    result["weights"] = weights.logs if weights else {}
    path.write_text(json.dumps(result) + "\n")
    return result


def cell(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f}, {max(values):.2f})"


def reward_table(factor: str, runs: dict[str, list[dict]], kind: str) -> list[str]:
    return [
        f"| {factor} | {method} | "
        + " | ".join(cell([r[name][kind] for r in rows]) for name in SETS)
        + f" | {cell([r['bias'] for r in rows])} |"
        for method, rows in runs.items()
    ]


def reward_study(options: argparse.Namespace) -> dict:
    results = {f: {m: [] for m in METHODS} for f in options.factors}
    for seed in range(options.seeds):
        for factor in options.factors:
            for method in METHODS:
                run = reward_run(factor, method, seed, options.steps, options.out)
                results[factor][method].append(run)
    for kind in ("pooled", "within"):
        print(f"\nSpearman with true progress, {kind}\n")
        print(f"| factor | method | {' | '.join(SETS)} | bias |")
        print("|---" * (3 + len(SETS)) + "|")
        for factor, runs in results.items():
            print("\n".join(reward_table(factor, runs, kind)))
    for factor, runs in results.items():
        for method in ("StableNet", "SGFD"):
            logs = [r["weights"] for r in runs[method]]
            kept = {k: round(float(np.median([log[k] for log in logs])), 4) for k in logs[0]}
            print(f"{factor}, {method}, newest batch, median: {kept}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--factors", default=",".join(FACTORS))
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/sgfd"))
    options = parser.parse_args()
    options.factors = options.factors.split(",")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = {"reward": reward_study(options)}
    (options.out / "sgfd.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
