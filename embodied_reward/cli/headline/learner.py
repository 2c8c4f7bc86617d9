"""How a cell's policy is trained: the configuration of `er train-policy`, and its run."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from embodied_reward.cli.dataset_config import DatasetConfig
from embodied_reward.cli.headline.cells import Folders, Scene, env_of
from embodied_reward.cli.headline.config import CONDITIONS, HeadlineConfig
from embodied_reward.cli.policy_run import PolicyRun
from embodied_reward.cli.train_policy import (
    EvalConfig,
    RewardConfig,
    TrainPolicyConfig,
    checked,
)
from embodied_reward.policies.config import SACConfig
from embodied_reward.training.seeding import seed_everything, set_threads


def learner_config(
    config: HeadlineConfig, scene: Scene, condition: str, folder: Path
) -> TrainPolicyConfig:
    """Return what `er train-policy` is told for a condition."""
    folders, about = Folders(Path(config.output_dir)), CONDITIONS[condition]
    left = config.rollouts - spent_before(config, condition)
    assert isinstance(config.policy, SACConfig)
    # Self-imitation clones everything again and again; nothing is frozen that it could correct.
    bound = 0.0 if condition == "self_imitation" else config.policy.residual_bound
    return TrainPolicyConfig(
        env=env_of(config, scene),
        policy=dataclasses.replace(config.policy, residual_bound=bound),
        reward=RewardConfig(
            mode=about.mode or "success",
            path=str(folders.prepared(scene, "reward")) if about.scored else None,
            kappa=config.kappa if about.blend == "fixed" else 1.0,
            blend=about.blend,
        ),
        dataset=DatasetConfig(root=(str(folders.demo(scene)),)),
        eval=EvalConfig(freq=0, rollouts=config.eval_every, n_episodes=config.eval_episodes),
        steps=left * config.horizon,
        rollouts=left,
        seed=scene.seed,
        threads=1,
        output_dir=str(folder),
    )


def spent_before(config: HeadlineConfig, condition: str) -> int:
    """Return the rollouts that are spent before fine-tuning begins."""
    return config.negatives if CONDITIONS[condition].scored else 0


@contextlib.contextmanager
def opened(
    config: HeadlineConfig, scene: Scene, condition: str, folder: Path
) -> Iterator[PolicyRun]:
    """Yield the prepared run, its policy cloned and not yet trained; nothing is left of it."""
    settings = learner_config(config, scene, condition, folder)
    folder.mkdir(parents=True, exist_ok=True)
    set_threads(1)
    seed_everything(scene.seed)
    run = PolicyRun(settings, checked(settings), folder)
    try:
        run.prepare()
        yield run
    finally:
        run.close()
