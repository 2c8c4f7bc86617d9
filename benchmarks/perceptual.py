"""Perceptual rewards from five demonstrations: steps against the expert's phases, rank, seconds.

    uv run python benchmarks/perceptual.py [--tasks=a,b] [--seeds=3] [--encoders=random,dopamine]

For every task and seed: five expert demonstrations (`er collect --preset=demos`), twenty unseen
episodes of mixed quality (`--preset=held-out`) and, for every encoder, fits of the library's
`perceptual` model: with the number of steps chosen by itself, and with the expert's number of
phases under both objectives. `dopamine` is the encoder of a dopamine model trained on other tasks.
Writes `perceptual.json` and prints the tables of docs/perceptual.md.

The expert's phases are read from its own program: Meta-World's scripted policies decide by branches
what to do, so the set of lines that ran for a recorded observation names the phase.
"""

import argparse
import importlib
import inspect
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from runs import collect, train

from embodied_reward.data import open_dataset
from embodied_reward.math.statistics import spearman
from embodied_reward.metrics.baselines import trivial
from embodied_reward.rewards import PerceptualConfig, PerceptualModel
from embodied_reward.vision.encoders import EncoderConfig

TASKS = ("drawer-open", "door-open", "button-press-topdown")
OTHER_TASKS = ("window-open", "faucet-open")
VIEWS = ("corner2", "gripperPOV")
DRAWS = 1000
FITS = {
    "chosen": {},
    "variance": {"steps": "phases"},
    "paper": {"steps": "phases", "objective": "paper"},
}
BASELINES = ("time index", "pixel distance", "random")


def expert_phases(task: str, episode) -> np.ndarray:
    """Which branch of the scripted policy each row's observation takes, numbered by first visit."""
    name = "".join(word.capitalize() for word in task.split("-"))
    kind = getattr(importlib.import_module("metaworld.policies"), f"Sawyer{name}V3Policy")
    source, seen, phases = inspect.getsourcefile(kind), {}, []
    for hand, scene in zip(episode.state, episode.environment_state, strict=True):
        observation = np.concatenate([hand, scene]).astype(np.float64)
        lines = executed(kind().get_action, observation, source)
        phases.append(seen.setdefault(lines, len(seen)))
    return np.array(phases)


def executed(call: Callable, observation: np.ndarray, source: str) -> frozenset[int]:
    """Lines of a file that run during a call."""
    lines: set[int] = set()

    def trace(frame, event, _):
        if frame.f_code.co_filename != source:
            return None
        if event == "line":
            lines.add(frame.f_lineno)
        return trace

    before = sys.gettrace()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the policies ask for more speed than there is
        sys.settrace(trace)
        try:
            call(observation)
        finally:
            sys.settrace(before)
    return frozenset(lines)


def labels(bounds: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))


def jaccard(found: np.ndarray, true: np.ndarray) -> float:
    """Mean over the true phases of the overlap with the step of the same number."""
    shares = []
    for phase in range(true.max() + 1):
        mine, theirs = found == phase, true == phase
        shares.append((mine & theirs).sum() / (mine | theirs).sum())
    return float(np.mean(shares))


def cut_baselines(phases: list[np.ndarray], steps: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    chance, even = [], []
    for true in phases:
        t = len(true)
        draws = (
            np.sort(rng.choice(np.arange(1, t), steps - 1, replace=False)) for _ in range(DRAWS)
        )
        chance += [jaccard(labels(np.r_[0, cuts, t]), true) for cuts in draws]
        even.append(jaccard(labels(np.linspace(0, t, steps + 1).round().astype(int)), true))
    return {"ordered random": float(np.mean(chance)), "equal parts": float(np.mean(even))}


def ranks(score: Callable, episodes: list) -> dict[str, float]:
    """Spearman with true progress: all frames, and the mean over successes and over failures."""
    values = [np.asarray(score(e)) for e in episodes]
    pooled = spearman(np.concatenate(values), np.concatenate([e.progress for e in episodes]))
    own = np.array([spearman(v, e.progress) for v, e in zip(values, episodes, strict=True)])
    won = np.array([bool(e.success) for e in episodes])
    return {"all": pooled, "successes": mean(own[won]), "failures": mean(own[~won])}


def mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def fit(demos: list, encoder: str, seed: int, **settings) -> tuple[PerceptualModel, float]:
    torch.manual_seed(seed)
    started = time.monotonic()
    config = PerceptualConfig(views=VIEWS, encoder=EncoderConfig(name=encoder), **settings)
    model = PerceptualModel.create(config)
    model.fit(demos, progress=lambda done, total: None)
    return model, time.monotonic() - started


def run(task: str, seed: int, encoders: dict[str, str], out: Path) -> dict:
    folder = out / f"{task}_{seed}"
    demos = list(open_dataset(collect(folder / "demos", "demos", task, seed, "--episodes=5")))
    unseen = list(open_dataset(collect(folder / "unseen", "held-out", task, 1000 + seed)))
    for episode in demos:
        dict(episode.views)  # decode before the clock starts
    phases = [expert_phases(task, e) for e in demos]
    steps = max(p.max() for p in phases) + 1
    row = {"phases": int(steps), "jaccard": cut_baselines(phases, steps, seed), "fits": {}}
    predictors = trivial(unseen, demos, views=VIEWS, seed=seed)
    row["baselines"] = {
        name: ranks(lambda e, p=predictors[name]: p.score_episode(e).potential, unseen)
        for name in BASELINES
    }
    for name, encoder in encoders.items():
        for kind, settings in FITS.items():
            given = {k: steps if v == "phases" else v for k, v in settings.items()}
            model, seconds = fit(demos, encoder, seed, **given)
            found = [labels(model.cuts[e.source]) for e in demos]
            pairs = zip(found, phases, strict=True)
            row["fits"][f"{name}, {kind}"] = {
                "steps": model.steps,
                "jaccard": float(np.mean([jaccard(f, p) for f, p in pairs])),
                "seconds": seconds,
                **ranks(lambda e, m=model: m.score_episode(e).potential, unseen),
            }
    return row


def cell(values: list[float], digits: int = 2) -> str:
    """Mean, with the least and largest value."""
    known = [v for v in values if np.isfinite(v)]
    if not known:
        return "–"
    low, high = min(known), max(known)
    return f"{np.mean(known):.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def jaccard_table(results: dict[str, list[dict]]) -> str:
    kinds = [k for k in next(iter(results.values()))[0]["fits"] if not k.endswith("chosen")]
    lines = ["| steps found by | " + " | ".join(results) + " |", "|---" * (len(results) + 1) + "|"]
    for base in ("ordered random", "equal parts"):
        cells = [cell([r["jaccard"][base] for r in rows]) for rows in results.values()]
        lines.append(f"| {base} | " + " | ".join(cells) + " |")
    for kind in kinds:
        cells = [cell([r["fits"][kind]["jaccard"] for r in rows]) for rows in results.values()]
        lines.append(f"| {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rank_table(rows: list[dict]) -> str:
    lines = ["| Φ | steps | all frames | successes | failures | fit [s] |", "|---" * 6 + "|"]
    for kind in (k for k in rows[0]["fits"] if not k.endswith("paper")):
        fits = [r["fits"][kind] for r in rows]
        cells = [cell([f[k] for f in fits]) for k in ("all", "successes", "failures")]
        steps = "/".join(str(f["steps"]) for f in fits)
        seconds = cell([f["seconds"] for f in fits], 1)
        lines.append(f"| {kind} | {steps} | " + " | ".join(cells) + f" | {seconds} |")
    for base in rows[0]["baselines"]:
        found = [r["baselines"][base] for r in rows]
        cells = [cell([f[k] for f in found]) for k in ("all", "successes", "failures")]
        lines.append(f"| {base} | – | " + " | ".join(cells) + " | – |")
    return "\n".join(lines)


def pretrained(out: Path, steps: int) -> Path:
    """A dopamine model of tasks that are not in the study."""
    roots = [collect(out / "other" / t, "demos", t, 0, "--episodes=5") for t in OTHER_TASKS]
    demos = ",".join(map(str, roots))
    return train(out / f"dopamine_{steps}", Path(demos), 0, steps, "--reward_model.type=dopamine")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--encoders", default="random,dopamine")
    parser.add_argument("--pretraining", type=int, default=300, help="gradient steps of dopamine")
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/perceptual"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    makers = {"random": lambda: "conv64"}
    makers["dopamine"] = lambda: str(pretrained(options.out, options.pretraining))
    encoders = {name: makers[name]() for name in options.encoders.split(",")}
    results: dict[str, list[dict]] = {}
    for task in options.tasks.split(","):
        results[task] = [run(task, s, encoders, options.out) for s in range(options.seeds)]
        (options.out / "perceptual.json").write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"\n{task}, {results[task][0]['phases']} phases\n\n{rank_table(results[task])}",
            flush=True,
        )
    print(f"\n{jaccard_table(results)}")


if __name__ == "__main__":
    main()
