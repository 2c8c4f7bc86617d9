"""One cell: train its policy, evaluate the last one, write what came out."""

import json
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from embodied_reward.cli.headline.cells import (
    Cell,
    Clock,
    Folders,
    env_of,
    read_json,
    versions,
    write_json,
)
from embodied_reward.cli.headline.config import CONDITIONS, HeadlineConfig
from embodied_reward.cli.headline.imitation import imitate_itself
from embodied_reward.cli.headline.learner import learner_config, opened, spent_before
from embodied_reward.cli.headline.potential import potential_summary
from embodied_reward.cli.headline.prepare import REWARD
from embodied_reward.cli.policy_env import plain_env
from embodied_reward.cli.train_policy import train_policy
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.evaluate import Acts, evaluate
from embodied_reward.training.run import Tracker

FINAL_SEED = 20_000
"""Reset seed of the first final episode; while training, evaluation has other ones."""


def run_cell(config: HeadlineConfig, cell: Cell) -> None:
    """Run a cell from its beginning and write its result.

    What an interrupted run left is thrown away: a resumed learner would continue with other
    scenes, and the cell would not be the one that its seed names.
    """
    clock, folders = Clock(), Folders(Path(config.output_dir))
    folder = folders.run(cell)
    shutil.rmtree(folder, ignore_errors=True)
    if cell.condition in ("none", "self_imitation"):
        final = _without_reward(config, cell, folder)
    else:
        if train_policy(learner_config(config, cell.scene, cell.condition, folder)) != 0:
            raise KeyboardInterrupt
        final = _final(config, cell, load_policy(str(folder / "checkpoints" / "last")))
    result = _result(config, cell, folder) | {"final": final, **clock.seconds()}
    write_json(folders.result(cell), result)


def _without_reward(config: HeadlineConfig, cell: Cell, folder: Path) -> dict[str, Any]:
    with (
        opened(config, cell.scene, cell.condition, folder) as run,
        closing(Tracker(folder)) as tracker,
    ):
        if cell.condition == "self_imitation":
            return _final(config, cell, imitate_itself(run, config, tracker))
        policy, seed = run.acting(), run.config.eval.seed
        result = evaluate(policy, run.eval_env, episodes=config.eval_episodes, seed=seed)
        tracker.log(0, {**result.summary(), "eval/rollouts": 0})
        return _final(config, cell, policy)


def _final(config: HeadlineConfig, cell: Cell, policy: Acts) -> dict[str, Any]:
    with closing(plain_env(env_of(config, cell.scene), FINAL_SEED)) as env:
        result = evaluate(policy, env, episodes=config.final_episodes, seed=FINAL_SEED)
    return {
        "success": result.success_rate,
        "episodes": config.final_episodes,
        "mean_length": sum(result.lengths) / len(result.lengths),
    }


def _result(config: HeadlineConfig, cell: Cell, folder: Path) -> dict[str, Any]:
    """Return what the cell's logs say."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    episodes = [r for r in rows if "episode/length" in r]
    spent = spent_before(config, cell.condition)
    curve = [
        {"rollouts": int(r["eval/rollouts"]) + spent, "success": r["eval/success_rate"]}
        for r in rows
        if "eval/success_rate" in r
    ]
    result = {
        "task": cell.scene.task,
        "seed": cell.scene.seed,
        "condition": cell.condition,
        "settings": config.settings(),
        "versions": versions(),
        "curve": curve,
        "rollouts": len(episodes) + spent,
        "decisions": int(sum(r["episode/length"] for r in episodes)),
        "own_success": "".join(str(int(r["episode/true_success"])) for r in episodes),
    }
    if CONDITIONS[cell.condition].mode and (seen := potential_summary(folder)):
        result["potential"] = seen
    if spent:
        folders = Folders(Path(config.output_dir))
        result["reward"] = read_json(folders.prepared(cell.scene, REWARD))
    return result
