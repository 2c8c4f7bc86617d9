"""What all conditions of a task and seed share: one demonstration, and one reward model of it."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward import config as configs
from embodied_reward.cli.collect import robot_type
from embodied_reward.cli.collect_episodes import record_rows
from embodied_reward.cli.env_config import make_env
from embodied_reward.cli.headline.cells import (
    Clock,
    Folders,
    Scene,
    env_of,
    read_json,
    write_json,
)
from embodied_reward.cli.headline.config import HeadlineConfig
from embodied_reward.cli.headline.learner import opened
from embodied_reward.cli.resumable import run_to_end
from embodied_reward.data import EpisodeRecorder, staging
from embodied_reward.policies.evaluate import Acts

DEMO, REWARD = "demo.json", "reward.json"
"""Written last, when the demonstration or the reward model is complete."""

_METRICS = ("spearman", "voc_min", "mae", "success_auc")
_UNSEEN_SEED = 1000


def prepare_demo(config: HeadlineConfig, scene: Scene) -> None:
    """Record one demonstration of the scripted expert."""
    clock, folders = Clock(), Folders(Path(config.output_dir))
    settings = ["--episodes=1", "--quality=expert", f"--seed={scene.seed}"]
    _collect(config, scene, folders.demo(scene), settings)
    write_json(folders.prepared(scene, DEMO), clock.seconds())


def prepare_reward(config: HeadlineConfig, scene: Scene) -> None:
    """Train a reward model on the demonstration and on failures, and measure it."""
    clock, folders = Clock(), Folders(Path(config.output_dir))
    negatives = folders.prepared(scene, "negatives")
    kept = _negatives(config, scene, negatives) if config.negatives else []
    roots = [folders.demo(scene), *([negatives] if kept else [])]
    run = folders.prepared(scene, "reward")
    _train(config, scene, roots, run)
    report = {"negatives": kept, **clock.seconds()}
    report["unseen"] = _measure(config, scene, run) if config.unseen else {}
    write_json(folders.prepared(scene, REWARD), report)


def _collect(config: HeadlineConfig, scene: Scene, root: Path, settings: list[str]) -> None:
    env = env_of(config, scene)
    words = [f"--env.id={env.id}", f"--env.horizon={env.horizon}"]
    words += [f"--env.action_repeat={env.action_repeat}", f"--size={config.size}"]
    words += [f"--views={','.join(config.views)}"] if config.views else []
    run_to_end("collect", [*words, *settings], root)


def _negatives(config: HeadlineConfig, scene: Scene, root: Path) -> list[str]:
    """Record failures of the clone and of wandering; returns who failed, by name.

    None of this asks the expert. A rollout that happens to succeed is thrown away: what the
    reward model knows of success comes from the demonstration.
    """
    from embodied_reward.envs import make_behaviour

    for stale in (root, staging.folder_of(root)):
        shutil.rmtree(stale, ignore_errors=True)
    settings, kept = env_of(config, scene), []
    env = make_env(settings, views=config.views, size=config.size, seed=scene.seed)
    facts = {"env": env.fingerprint(), "seed": scene.seed}
    with (
        opened(config, scene, "none", root.with_name("clone")) as run,
        closing(env),
        EpisodeRecorder(
            root,
            fps=env.metadata["render_fps"],
            robot_type=robot_type(settings.id),
            info=facts,
        ) as recorder,
    ):
        for index in range(config.negatives):
            source = np.random.SeedSequence([scene.seed, index])
            obs, _ = env.reset(seed=int(source.generate_state(1)[0]))
            wander = make_behaviour(env, "wander", np.random.default_rng(source))
            who, act = ("wander", wander) if index % 2 else ("clone", _sampled(run.acting()))
            if record_rows(env, obs, act, recorder, longest=config.horizon):
                recorder.discard()
                continue
            recorder.save_episode(env.task_description, behaviour=who)
            kept.append(who)
        if kept:
            recorder.finish()
    return kept


def _sampled(policy: Acts) -> Any:
    return lambda obs: policy.predict(obs, deterministic=False)


def _train(config: HeadlineConfig, scene: Scene, roots: list[Path], run: Path) -> None:
    steps = config.reward_steps
    words = [f"--dataset.root={','.join(map(str, roots))}", "--val_fraction=0", "--threads=1"]
    words += [f"--steps={steps}", f"--save_freq={steps}", f"--seed={scene.seed}", "--device=cpu"]
    words += _words(configs.encode(config.reward_model), "--reward_model.")
    if config.views:
        words += [f"--reward_model.views={','.join(config.views)}"]
    run_to_end("train-reward", words, run)


def _words(tree: dict[str, Any], prefix: str) -> list[str]:
    """Return the settings that say something as command-line words."""
    words = []
    for key, value in tree.items():
        if isinstance(value, dict):
            words += _words(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
            words.append(f"{prefix}{key}={shown}")
    return words


def _measure(config: HeadlineConfig, scene: Scene, run: Path) -> dict[str, float | None]:
    """Return the reward model's metrics on episodes that nothing learns from."""
    root = run.with_name("unseen")
    seed = _UNSEEN_SEED + scene.seed
    settings = [f"--episodes={config.unseen}", "--quality=mixed", f"--seed={seed}"]
    _collect(config, scene, root, settings)
    report = run.with_name("measured")
    shutil.rmtree(report, ignore_errors=True)
    words = [f"--reward_model.path={run}", f"--dataset.root={root}"]
    words += [f"--reference.root={run.with_name('demo')}", "--videos=0", "--resamples=0"]
    from embodied_reward import cli

    cli.main(["eval-reward", *words, "--threads=1", f"--output_dir={report}"])
    metrics = read_json(report / "metrics.json")["metrics"]
    return {name: metrics[name]["value"] for name in _METRICS if name in metrics}
