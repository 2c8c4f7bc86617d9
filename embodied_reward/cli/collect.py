"""Record scripted episodes of a simulated task as a LeRobot v3 dataset.

Every finished episode is on disk at once: interrupt or kill the recording at any moment and
continue it with --resume=true, or assemble what is there with 'er data recover PATH'.
"""

import contextlib
import dataclasses
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embodied_reward import config as configs
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.env_config import EnvConfig, make_env
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.files import replacing

if TYPE_CHECKING:
    from embodied_reward.data import EpisodeRecorder
    from embodied_reward.envs import VisualEnv


@dataclass
class CollectConfig:
    """What `er collect` records."""

    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: int = 20  # episodes in the dataset
    views: tuple[str, ...] = ()  # cameras; default: the environment's own choice
    size: int = 64  # picture height and width [px]; up to 128 stored lossless, above as video
    quality: str = "expert"  # expert, noisy, random (failing), mixed, or one behaviour by name
    seed: int = 0  # episode i depends on (seed, i) alone
    hold_steps: int = 5  # rows recorded after the first success, so that the goal is seen
    lead_in: int = 0  # up to so many unrecorded random decisions first, so that starts vary
    only_success: bool | None = None  # repeat failed episodes; default: true for expert only
    output_dir: str | None = None  # the dataset's folder; default outputs/collect/<date>_<env>
    resume: bool = False  # continue the unfinished recording at output_dir


def main(argv: list[str]) -> int:
    """Run `er collect`."""
    return run_verb("collect", CollectConfig, collect, recorded_config(argv), __doc__)


def recorded_config(argv: list[str]) -> list[str]:
    """Let `--resume=true --output_dir=PATH` alone continue a recording with its own settings."""
    from embodied_reward.data import staging

    given = dict(word[2:].split("=", 1) for word in argv if word[:2] == "--" and "=" in word)
    if given.get("resume") != "true" or "config_path" in given:
        return argv
    if not given.get("output_dir"):
        raise ConfigError("--resume=true needs --output_dir=PATH, the recording to continue")
    root = Path(given["output_dir"])
    saved = staging.folder_of(root) / "config.yaml"
    if saved.is_file():
        return [*argv, f"--config_path={saved}"]
    # Nothing was recorded yet: a script may always say --resume=true.
    return argv if root.exists() else [word for word in argv if word != "--resume=true"]


def collect(config: CollectConfig) -> int:
    """Record the configured episodes; returns the exit status.

    Raises:
        ConfigError: a value out of range.
        DatasetError: the path is taken, or the disk refused the files.
        EnvError: the environment does not exist or cannot do what was asked.
    """
    _check(config)
    root = _output_dir(config)
    if (root / "meta" / "info.json").is_file() and config.resume:
        return _complete_already(root, config)
    try:
        retried = _record(config, root)
    except KeyboardInterrupt:
        print(f"\ninterrupted; finished episodes are safe. Continue with:\n  {_again(root)}")
        return 130
    _report(root, config, retried)
    return 0


def _check(config: CollectConfig) -> None:
    for name, least in (("episodes", 1), ("hold_steps", 0), ("lead_in", 0)):
        if getattr(config, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, got {getattr(config, name)}")


def _output_dir(config: CollectConfig) -> Path:
    if config.output_dir:
        return Path(config.output_dir)
    from embodied_reward.training.run import default_output_dir

    return default_output_dir("collect", config.env.id)


def _complete_already(root: Path, config: CollectConfig) -> int:
    from embodied_reward.data import open_dataset

    count = len(open_dataset(root))
    if count >= config.episodes:
        print(f"'{root}' is complete: {count} episodes")
        return 0
    raise DatasetError(
        f"'{root}' is a finished dataset of {count} episodes; collect the other "
        f"{config.episodes - count} into another --output_dir with another --seed and open both "
        "with --dataset.root=FIRST,SECOND"
    )


def _record(config: CollectConfig, root: Path) -> int:
    """Record what is missing and assemble the dataset; returns how many failures were redone."""
    from embodied_reward.cli.collect_episodes import check_behaviour, collect_episodes
    from embodied_reward.cli.progress_bar import progress_bar

    with contextlib.ExitStack() as stack:
        longest = config.env.horizon + config.lead_in
        env = make_env(
            dataclasses.replace(config.env, horizon=longest),
            views=config.views,
            size=config.size,
            seed=config.seed,
            terminate_on_success=False,
        )
        stack.callback(env.close)
        check_behaviour(config, env)  # before anything is on the disk
        recorder = stack.enter_context(_recorder(config, root, env))
        progress = stack.enter_context(progress_bar())
        bar = progress.add_task(config.env.id, total=config.episodes, completed=len(recorder))
        retried = collect_episodes(config, env, recorder, lambda: progress.advance(bar))
        last = progress.add_task("assembling", total=len(recorder))
        recorder.finish(lambda done, _: progress.update(last, completed=done))
    return retried


def _recorder(config: CollectConfig, root: Path, env: "VisualEnv") -> "EpisodeRecorder":
    from embodied_reward.data import EpisodeRecorder

    recorder = EpisodeRecorder(
        root,
        fps=env.metadata["render_fps"],
        robot_type=robot_type(config.env.id),
        info=_facts(config, env.fingerprint()),
        resume=config.resume,
    )
    with replacing(recorder.folder / "config.yaml") as temporary:
        configs.write_yaml(dataclasses.replace(config, resume=False), temporary)
    return recorder


def robot_type(env_id: str) -> str:
    """Return LeRobot's name of the embodiment in an environment."""
    return _ROBOTS.get(env_id.split("/")[0], "unknown")


_ROBOTS = {
    "metaworld": "sawyer",
    "robosuite": "panda",
    "trap": "peg_hand",
    "embodied_reward": "primitive",
}


def _facts(config: CollectConfig, fingerprint: dict[str, Any]) -> dict[str, Any]:
    return {
        "env": fingerprint,
        "quality": config.quality,
        "seed": config.seed,
        "hold_steps": config.hold_steps,
        "only_success": only_success(config),
    }


def only_success(config: CollectConfig) -> bool:
    """Whether failed episodes are repeated until one succeeds."""
    return config.quality == "expert" if config.only_success is None else config.only_success


def _again(root: Path) -> str:
    return f"er collect --resume=true --output_dir={shlex.quote(str(root))}"


def _report(root: Path, config: CollectConfig, retried: int) -> None:
    from embodied_reward.data import open_dataset

    episodes = open_dataset(root)
    rate = sum(map(bool, episodes.successes)) / len(episodes)
    path = shlex.quote(str(root))
    print(
        f"{len(episodes)} episodes, {sum(episodes.lengths)} frames, {rate:.0%} successful: {root}"
    )
    if retried:
        print(f"{retried} failed attempts were repeated (--only_success=false keeps them)")
    print(f"next:\n  er data inspect {path}\n  er train-reward --dataset.root={path}")
