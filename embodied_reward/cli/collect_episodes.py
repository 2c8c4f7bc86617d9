"""Roll scripted behaviours out and hand the rows to a recorder."""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward.data import EpisodeRecorder, schema
from embodied_reward.errors import EnvError

if TYPE_CHECKING:
    from embodied_reward.cli.collect import CollectConfig
    from embodied_reward.envs import VisualEnv

ATTEMPTS = 20  # failed attempts at one episode before giving up


def check_behaviour(config: "CollectConfig", env: "VisualEnv") -> None:
    """Try the behaviour's name on a fresh scene. Raises EnvError with the nearest names."""
    from embodied_reward.envs import make_behaviour

    env.reset(seed=config.seed)
    make_behaviour(env, config.quality, np.random.default_rng(config.seed))


def collect_episodes(
    config: "CollectConfig", env: "VisualEnv", recorder: EpisodeRecorder, on_done: Callable[[], Any]
) -> int:
    """Record episodes until the recorder holds `config.episodes`; returns repeated failures.

    Episode i depends on (seed, i) alone, so a resumed recording equals an uninterrupted one.

    Raises:
        EnvError: the behaviour failed `ATTEMPTS` times on one episode.
        DatasetError: the disk refused an episode.
    """
    from embodied_reward.cli.collect import only_success

    retried = 0
    while len(recorder) < config.episodes:
        for attempt in range(ATTEMPTS):
            won, behaviour = _attempt(config, env, recorder, attempt)
            if won or not only_success(config):
                break
            recorder.discard()
            retried += 1
        else:
            raise EnvError(
                f"'{config.quality}' failed {ATTEMPTS} times on episode {recorder.next_index} of "
                f"'{config.env.id}'; raise --env.horizon or add --only_success=false"
            )
        facts = {"attempt": attempt, "behaviour": behaviour, **_variant(env)}
        recorder.save_episode(env.task_description, **facts)
        on_done()
    return retried


def _variant(env: "VisualEnv") -> dict[str, int]:
    """Return the number of the variant that the episode showed, where something varies."""
    from embodied_reward.envs.variation import VariedEnv

    return {"variant": env.variant} if isinstance(env, VariedEnv) else {}


def _attempt(
    config: "CollectConfig", env: "VisualEnv", recorder: EpisodeRecorder, attempt: int
) -> tuple[bool, str]:
    """Roll out one attempt at the next episode; returns whether it succeeded, and its behaviour."""
    from embodied_reward.envs import make_behaviour

    source = np.random.SeedSequence([config.seed, recorder.next_index, attempt])
    scene, behaviour, lead_in = source.spawn(3)
    obs = _begin(config, env, int(scene.generate_state(1)[0]), np.random.default_rng(lead_in))
    act = make_behaviour(env, config.quality, np.random.default_rng(behaviour))
    longest, held = config.env.horizon, config.hold_steps
    won = record_rows(env, obs, act, recorder, longest=longest, hold_steps=held)
    return won, getattr(act, "name", config.quality)


def record_rows(
    env: "VisualEnv",
    obs: dict[str, Any],
    act: Callable[[dict[str, Any]], Any],
    recorder: EpisodeRecorder,
    *,
    longest: int,
    hold_steps: int = 0,
) -> bool:
    """Act from the first observation `obs` to the episode's end, adding its rows to `recorder`.

    Args:
        env: was just reset.
        obs: what the reset returned.
        act: observation -> action in the environment's units.
        recorder: its unfinished episode is empty; saving or discarding it is the caller's.
        longest: rows after which the episode is cut.
        hold_steps: rows recorded after the first success.

    Returns:
        Whether the task was solved at any time.
    """
    left, won, done = hold_steps, False, False
    while not done:
        row, action = _observe(env, obs), act(obs)
        obs, reward, terminated, truncated, info = env.step(action)
        left -= won
        won = won or bool(info["is_success"])
        done = terminated or truncated or (won and left <= 0)
        done = done or recorder.rows + 1 == longest
        recorder.add({**row, **_outcome(action, float(reward), done, bool(info["is_success"]))})
    return won


def _begin(
    config: "CollectConfig", env: "VisualEnv", seed: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Reset, then move about for at most `config.lead_in` unrecorded decisions.

    Scripted arms start every episode from one pose, which people do not; a reward model that
    never saw the arm elsewhere reads its position as progress. A lead-in that solves the task
    by accident is undone.
    """
    from embodied_reward.envs import make_behaviour

    obs, _ = env.reset(seed=seed)
    wander = make_behaviour(env, "wander", rng) if config.lead_in else None
    for _ in range(rng.integers(0, config.lead_in + 1)):
        assert wander is not None
        obs, _, _, _, info = env.step(wander(obs))
        if info["is_success"]:
            return env.reset(seed=seed)[0]
    return obs


def _observe(env: "VisualEnv", obs: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {schema.IMAGES + v: frame for v, frame in env.frames().items()}
    row[schema.STATE] = obs["agent_pos"]
    row[schema.ENVIRONMENT_STATE] = obs["environment_state"]
    # Where the task has no honest progress, the column is left out.
    with contextlib.suppress(EnvError):
        row[schema.PROGRESS] = np.float32(env.progress())
    return row


def _outcome(action: Any, reward: float, done: bool, success: bool) -> dict[str, Any]:
    return {
        schema.ACTION: action,
        schema.REWARD: reward,
        schema.DONE: done,
        schema.SUCCESS: success,
    }
