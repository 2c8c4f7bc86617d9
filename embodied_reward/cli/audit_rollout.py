"""Play episodes of a simulated task and keep, frame by frame, what every pixel shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embodied_reward.cli.env_config import make_env
from embodied_reward.types import Episode, UInt8

if TYPE_CHECKING:
    from embodied_reward.cli.audit_reward import AuditRewardConfig
    from embodied_reward.envs import VisualEnv


@dataclass(frozen=True)
class Played:
    """One episode with its labels: view -> UInt8["t h w"], an index into `envs.parts.PARTS`."""

    episode: Episode
    labels: Mapping[str, UInt8]


def play(config: "AuditRewardConfig", *, views: Sequence[str], size: int) -> Iterator[Played]:
    """Yield the configured episodes; episode i depends on (seed, i) alone.

    Raises:
        EnvError: no such environment, view or behaviour, or one that cannot tell its parts.
    """
    env = make_env(config.env, views=views, size=size, seed=config.seed)
    try:
        for index in range(config.episodes):
            yield _play(config, env, index)
    finally:
        env.close()


def _play(config: "AuditRewardConfig", env: "VisualEnv", index: int) -> Played:
    from embodied_reward.envs import make_behaviour

    scene, behaviour = np.random.SeedSequence([config.seed, index]).spawn(2)
    observation, info = env.reset(seed=int(scene.generate_state(1)[0]))
    act = make_behaviour(env, config.quality, np.random.default_rng(behaviour))
    frames, parts, done, success = [env.frames()], [env.parts()], [bool(info["is_success"])], False
    step, over = 0, False
    while not over:
        observation, _, terminated, truncated, info = env.step(act(observation))
        step, over = step + 1, terminated or truncated
        success = success or bool(info["is_success"])
        if step % config.stride == 0 or over:
            frames.append(env.frames())
            parts.append(env.parts())
            done.append(bool(info["is_success"]))
    episode = Episode(
        views={view: np.stack([f[view] for f in frames]) for view in env.views},
        action=np.zeros((len(frames), 0), np.float32),
        fps=env.metadata["render_fps"] / config.stride,
        task=env.task_description,
        index=index,
        source=f"{config.env.id}#{index}",
        length=len(frames),
        success=success,
        success_frames=np.array(done),
    )
    return Played(episode, {view: np.stack([p[view] for p in parts]) for view in env.views})
