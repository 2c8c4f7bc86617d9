"""Roll a saved policy out: success rate with its confidence interval, videos with reward curves.

er eval-policy --policy.path=RUN [--reward.path=REWARD_RUN] [--success.path=DETECTOR]
    [--episodes=50] [--videos=3]

The environment is the one the policy was trained in, unless --env.* says otherwise.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from embodied_reward import config as configs
from embodied_reward.cli.cache_config import CacheConfig
from embodied_reward.cli.command import run_verb
from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.files import replacing
from embodied_reward.types import Episode, UInt8

if TYPE_CHECKING:
    from embodied_reward.cli.eval_detector import DetectorJudge
    from embodied_reward.policies.evaluate import Evaluation


@dataclass(frozen=True)
class PolicyPath:
    """Which trained policy."""

    path: str | None = None
    """run folder (its best checkpoint), checkpoint or pretrained_model folder"""


@dataclass(frozen=True)
class RewardPath:
    """Which reward model draws its curves into the videos."""

    path: str | None = None
    """run folder, checkpoint or pretrained_model folder; empty draws true progress only"""


@dataclass(frozen=True)
class DetectorPath:
    """Which success detector is held against the simulator's truth."""

    path: str | None = None
    """run folder, checkpoint or pretrained_model folder; all episodes are rendered for it"""


@dataclass(frozen=True)
class EvalPolicyConfig:
    """Everything `er eval-policy` can be told."""

    policy: PolicyPath = field(default_factory=PolicyPath)
    reward: RewardPath = field(default_factory=RewardPath)
    success: DetectorPath = field(default_factory=DetectorPath)
    env: EnvConfig = field(default_factory=EnvConfig)
    episodes: int = 20
    """episodes to roll out"""
    videos: int = 3
    """how many of them, the first ones, become mp4 files"""
    views: tuple[str, ...] = ()
    """cameras of the videos; default: the reward model's, else the environment's own"""
    size: int = 0
    """height and width of the rendered pictures [px]; 0 takes the reward model's, else 128"""
    seed: int = 20_000
    """reset seed of the first episode; training evaluates on other seeds"""
    deterministic: bool = True
    """act with the policy's mean instead of a sample"""
    cache: CacheConfig = field(default_factory=CacheConfig)
    output_dir: str | None = None
    """folder to write to; default: outputs/eval-policy/<date>_<task>"""


def main(argv: list[str]) -> int:
    """Entry point of `er eval-policy`."""
    return run_verb("eval-policy", EvalPolicyConfig, eval_policy, with_trained_env(argv), __doc__)


def with_trained_env(argv: list[str]) -> list[str]:
    """Put the environment that the policy was trained in before the given arguments.

    Explicit `--env.*` arguments come later and win; so does a file or preset with an `env`.
    """
    given = dict(token[2:].split("=", 1) for token in argv if token[:2] == "--" and "=" in token)
    files = [configs.load_preset("eval-policy", given["preset"])] if "preset" in given else []
    files += [configs.read_yaml(Path(given["config_path"]))] if "config_path" in given else []
    if not given.get("policy.path") or any("env" in tree for tree in files):
        return argv
    from embodied_reward.policies.checkpoint import load_policy

    env = load_policy(given["policy.path"]).spec.meta.get("env", {})
    return [*_words(env, "--env."), *argv]


def _words(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield a nested dict as `--group.field=value`."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _words(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={value}"


def eval_policy(config: EvalPolicyConfig) -> int:
    """Roll out, film, and print the success rate."""
    from embodied_reward.cli.eval_detector import DetectorJudge, load_detector
    from embodied_reward.rewards import load_progress
    from embodied_reward.training.run import prepare_output_dir
    from embodied_reward.training.seeding import seed_everything, set_threads

    if config.policy.path is None:
        raise ConfigError("give the policy with --policy.path=RUN, a run of `er train-policy`")
    reward = load_progress(config.reward.path) if config.reward.path else None
    judge = DetectorJudge(*load_detector(config.success.path)) if config.success.path else None
    folder = prepare_output_dir(_folder(config), resume=False)
    set_threads(0)
    seed_everything(config.seed)
    film = Film(folder, config.videos, reward)
    models = [m for m in (reward, judge and judge.model) if m is not None]
    # A detector sees one frame of every view at a time.
    batch = len(judge.model.card.views) if judge else 16
    with config.cache.shared_by(*models, batch=batch):
        result = _roll_out(config, film, judge, *_camera_settings(config, models))
    _write(folder / "metrics.json", config, result, judge)
    low, high = result.interval
    print(
        f"{config.env.id}: {sum(result.success)} of {config.episodes} succeeded, "
        f"{result.success_rate:.0%} (95 % interval {low:.0%} to {high:.0%}), "
        f"{np.mean(result.lengths):.0f} decisions on average"
    )
    if judge:
        print(judge.table())
    print(f"metrics: {folder / 'metrics.json'}")
    for path in film.written:
        print(f"video: {path}")
    return 0


def _roll_out(
    config: EvalPolicyConfig,
    film: "Film",
    judge: "DetectorJudge | None",
    views: tuple[str, ...],
    size: int | tuple[int, int],
) -> "Evaluation":
    from embodied_reward.cli.policy_env import plain_env
    from embodied_reward.cli.progress_bar import progress_bar
    from embodied_reward.policies.checkpoint import load_policy
    from embodied_reward.policies.evaluate import evaluate
    from embodied_reward.policies.finetune.actor import diffusion_spec
    from embodied_reward.shaping.frames import FramesInInfo

    policy = load_policy(str(config.policy.path))
    spec = diffusion_spec(policy)
    if spec is not None:
        views, size = spec.rendered(views, size)
    seen = spec is not None and bool(spec.views)
    plain = plain_env(config.env, config.seed, views=views, size=size, pixels=seen)
    env = FramesInInfo(plain, hold=judge.hold) if judge else plain
    with contextlib.closing(env), progress_bar() as bar:
        task = bar.add_task(config.env.id, total=config.episodes)

        def watch(index: int, env: gym.Env, info: dict[str, Any], ended: bool) -> None:
            film.watch(index, env, info, ended)
            if judge:
                judge.watch(index, info, ended)
            bar.advance(task, int(ended))

        return evaluate(
            policy,
            env,
            episodes=config.episodes,
            seed=config.seed,
            deterministic=config.deterministic,
            watch=watch,
        )


class Film:
    """Record the first episodes of an evaluation and write them as overlay videos.

    Args:
        folder: where the mp4 files go.
        count: how many episodes.
        reward: scores the finished episodes; None draws true progress only.
    """

    def __init__(self, folder: Path, count: int, reward: Any) -> None:
        self._folder, self._count, self._reward = folder, count, reward
        self._frames: list[dict[str, UInt8]] = []
        self._progress: list[float] = []
        self._success: list[bool] = []
        self.written: list[Path] = []

    def watch(self, index: int, env: gym.Env, info: dict[str, Any], ended: bool) -> None:
        """Take the frames of one step; write the video when the episode has ended."""
        if index >= self._count:
            return
        held, won = "held_frames" in info, bool(info["is_success"])
        self._frames.append(info["frames"] if "frames" in info else _frames(env))
        self._success.append(won)
        # Where the arm was held after the end, the environment has moved on.
        self._progress.append(1.0 if held and won else _true_progress(env))
        if ended:
            self.written.append(self._write(self._episode(index, env)))
            self._frames, self._progress, self._success = [], [], []

    def _episode(self, index: int, env: gym.Env) -> Episode:
        count, size = len(self._frames), int(np.prod(env.action_space.shape or ()))
        known = not np.isnan(self._progress).any()
        return Episode(
            views={v: np.stack([f[v] for f in self._frames]) for v in self._frames[0]},
            action=np.zeros((count, size), np.float32),
            fps=float(env.metadata["render_fps"]),
            task=env.get_wrapper_attr("task_description"),
            index=index,
            source=f"evaluation episode {index}",
            length=count,
            success=any(self._success),
            success_frames=np.array(self._success),
            progress=np.array(self._progress, np.float32) if known else None,
        )

    def _write(self, episode: Episode) -> Path:
        from embodied_reward.data.video import write_video
        from embodied_reward.metrics.curves import Curve, headline_curves
        from embodied_reward.metrics.overlay import overlay_frames

        lines = []
        if self._reward is not None:
            lines = headline_curves(episode, self._reward.score_episode(episode))
        elif episode.progress is not None:
            true = np.asarray(episode.progress, np.float64)
            lines = [Curve("true progress", true, "#000000", 1.4)]
        outcome = "success" if episode.success else "failure"
        frames = overlay_frames(
            episode.views,
            lines,
            fps=episode.fps,
            title=f"{episode.task} - episode {episode.index}: {outcome}",
            success_frames=episode.success_frames,
        )
        path = self._folder / "videos" / f"episode_{episode.index:03d}_{outcome}.mp4"
        return write_video(path, frames, episode.fps)


def _frames(env: gym.Env) -> dict[str, UInt8]:
    return env.get_wrapper_attr("frames")()


def _true_progress(env: gym.Env) -> float:
    try:
        return float(env.get_wrapper_attr("progress")())
    except EnvError:
        return float("nan")  # this task has no honest definition; the curve is left out


def _camera_settings(config: EvalPolicyConfig, models: list[Any]) -> tuple[tuple[str, ...], int]:
    """Return views and picture size: what the models know, unless the config says otherwise."""
    if not models:
        return config.views, config.size or 128
    views = dict.fromkeys(view for model in models for view in model.card.views)
    return config.views or tuple(views), config.size or max(m.card.image_size for m in models)


def _folder(config: EvalPolicyConfig) -> Path:
    from embodied_reward.training.run import default_output_dir

    if config.output_dir:
        return Path(config.output_dir)
    return default_output_dir("eval-policy", config.env.id.split("/")[-1])


def _write(
    path: Path, config: EvalPolicyConfig, result: "Evaluation", judge: "DetectorJudge | None"
) -> None:
    report = {
        **result.summary(),
        "episodes": len(result.success),
        "success": list(result.success),
        "lengths": list(result.lengths),
        "seeds": list(result.seeds),
        **({"detector": judge.report()} if judge else {}),
        "config": configs.encode(config),
    }
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(report, indent=1))
