"""Is a model that reads a clock in the picture found out by where it looks?

    uv run python benchmarks/saliency_clock.py [--seeds=3] [--steps=300]

A square in a corner of every demonstration's pictures brightens from black to white over the
episode: the cheapest way to tell progress. Every method is trained on such pictures and on clean
ones (those of `benchmarks/saliency.py`, reused where they are), and all are shown the same new
episodes with the clock. Printed: ratio of saliency to area on the clock, and on gripper and
objects; mean over seeds, lowest and highest in brackets. Writes `clock.json`.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from runs import train
from saliency import AUDIT, METHODS, SALIENCY, cell, collect

from embodied_reward import config as configs
from embodied_reward.cli.audit_reward import AuditRewardConfig
from embodied_reward.cli.audit_rollout import Played, play
from embodied_reward.data import EpisodeRecorder, open_dataset, schema
from embodied_reward.metrics.saliency import focus, pooled
from embodied_reward.rewards import load
from embodied_reward.rewards.saliency import explain_episode
from embodied_reward.types import Episode
from embodied_reward.vision.saliency import SaliencyOptions

TASK = "embodied_reward/SweepToGoal-MediumStick-v0"
PLACE = (slice(54, 62), slice(54, 62))  # of 64 x 64, where nothing else is but the floor


def stamped(episode: Episode) -> Episode:
    shade = np.linspace(0, 255, len(episode)).astype(np.uint8)
    views = {view: np.array(frames) for view, frames in episode.views.items()}
    for frames in views.values():
        frames[:, PLACE[0], PLACE[1]] = shade[:, None, None, None]
    return dataclasses.replace(episode, views=views)


def stamp_dataset(source: Path, target: Path) -> Path:
    if target.exists():
        return target
    episodes = open_dataset(source)
    with EpisodeRecorder(target, fps=episodes[0].fps, robot_type="sim") as recorder:
        for episode in map(stamped, episodes):
            for t in range(len(episode)):
                row = {schema.IMAGES + view: frames[t] for view, frames in episode.views.items()}
                row |= {schema.STATE: episode.state[t], schema.ACTION: episode.action[t]}
                row |= {schema.PROGRESS: episode.progress[t]}
                row |= {schema.SUCCESS: episode.success_frames[t]}
                recorder.add({**row, schema.DONE: t + 1 == len(episode)})
            recorder.save_episode(episode.task)
        return recorder.finish()


def measure(run: Path, episodes: list[Played], method: str) -> dict[str, float]:
    model, found = load(run), {"clock": [], "gripper+objects": []}
    for played in episodes:
        maps = explain_episode(model, played.episode, SaliencyOptions(method))["top"]
        clock = np.zeros(maps.values.shape, bool)
        clock[:, PLACE[0], PLACE[1]] = True
        found["clock"].append(focus(maps, clock))
        things = np.isin(played.labels["top"], (2, 3)) & ~clock
        found["gripper+objects"].append(focus(maps, things))
    return {name: pooled(parts).ratio for name, parts in found.items()}


def one(seed: int, options: argparse.Namespace) -> dict[str, dict]:
    folder = options.out / f"{TASK.rpartition('/')[2]}_{seed}"
    demos = collect(folder / "demos", TASK, seed)
    with_clock = stamp_dataset(demos, folder / "demos_clock")
    words = [f"--env.id={TASK}", *AUDIT[TASK], "--episodes=5", "--stride=2", f"--seed={100 + seed}"]
    audit = configs.parse(AuditRewardConfig, words, verb="audit-reward")
    episodes = [
        dataclasses.replace(played, episode=stamped(played.episode))
        for played in play(audit, views=("top",), size=64)
    ]
    found = {}
    for name in METHODS:
        kind = f"--reward_model.type={name}"
        clean = train(folder / name, demos, seed, options.steps, kind)
        cheat = train(folder / f"{name}_clock", with_clock, seed, options.steps, kind)
        for label, run in ((name, clean), (f"{name}, trained with the clock", cheat)):
            found[label] = {method: measure(run, episodes, method) for method in SALIENCY}
    return found


def table(runs: list[dict[str, dict]]) -> str:
    heads = [f"{place}, {method}" for place in ("clock", "gripper+objects") for method in SALIENCY]
    lines = ["| model | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in sorted(runs[0], key=lambda n: ("clock" in n, n)):
        cells = [
            cell([run[name][method][place] for run in runs])
            for place in ("clock", "gripper+objects")
            for method in SALIENCY
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks/saliency"))
    options = parser.parse_args()
    runs = [one(seed, options) for seed in range(options.seeds)]
    (options.out / "clock.json").write_text(json.dumps(runs, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
