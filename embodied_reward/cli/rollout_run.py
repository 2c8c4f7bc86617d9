"""One run of `er rollout`: connects the robot, lets somebody act, sums up."""

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied_reward import config as configs
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.rollout_crew import (
    KEYS,
    Operator,
    Person,
    Scripted,
    SessionEnd,
    Teleoperated,
    Unattended,
)
from embodied_reward.cli.rollout_display import make_display
from embodied_reward.cli.rollout_record import LiveScores, RecordedEnv, recover
from embodied_reward.data import EpisodeRecorder
from embodied_reward.envs.robots import arm as arms
from embodied_reward.envs.robots import lerobot_robots
from embodied_reward.envs.robots.arm_env import ArmEnv, Station
from embodied_reward.errors import ConfigError, EnvError
from embodied_reward.files import replacing
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.evaluate import Acts, Evaluation
from embodied_reward.policies.evaluate import evaluate as roll_out
from embodied_reward.rewards import load_progress
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.training.run import default_output_dir, prepare_output_dir, save_config
from embodied_reward.training.seeding import seed_everything, set_threads

if TYPE_CHECKING:
    from embodied_reward.cli.rollout import RolloutConfig

ATTEMPTS = 20  # failed demonstrations in a row before giving up


def run(config: "RolloutConfig", limits: dict[str, Any]) -> int:
    """Run one mode from connecting the robot to the summary; returns the exit status."""
    folder = prepare_output_dir(_folder(config), resume=config.resume)
    set_threads(config.threads)
    seed_everything(config.seed)
    with contextlib.ExitStack() as stack:
        session = Session(config, limits, folder, stack)
        status = {"record": record, "evaluate": evaluate, "finetune": finetune}[config.mode](
            session
        )
        session.finish(status)
    return 130 if status is None or status.get("interrupted") else 0


class Session:
    """The robot, its crew and the recorder of one run.

    Args:
        config: checked.
        limits: content of the limits file.
        folder: run folder.
        stack: closes everything, the robot first.
    """

    def __init__(
        self,
        config: "RolloutConfig",
        limits: dict[str, Any],
        folder: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self.config, self.folder = config, folder
        self._policy = load_policy(config.policy.path) if config.policy.path else None
        self.motors = config.motors or self._trained_motors()
        self.reward = load_progress(config.reward.path) if config.reward.path else None
        if self.reward is not None and not self.reward.card.streaming:
            raise ConfigError(f"'{config.reward.path}' scores whole episodes only")
        self.arm = arms.connect(
            config.robot,
            limits,
            packages=config.packages,
            dry_run=config.dry_run,
            deadman=config.deadman,
            keys=not config.unattended,
            log=str(folder / "safety.jsonl"),
        )
        stack.callback(self.arm.close)
        self._check_rate()
        operator = self._operator(stack)
        self.station = Station(self.arm, self._crew(operator))
        self.operator = operator
        self.task = config.task or self.arm.task
        if not self.task:
            raise ConfigError("say in words what is to be done: --task='put the cup on the plate'")
        self.recorder = self._recorder(folder)
        stack.callback(self.recorder.close)
        rows = recover(self.recorder, self.task)
        if rows:
            self.say(f"kept {rows} rows of the episode that was cut off")
        self.show = make_display(config.display, self.say)
        if self.reward is not None and not self.reward.task:
            self.reward.task = self.task
        save_config(dataclasses.replace(config, resume=False), folder)

    def say(self, line: str) -> None:
        """Show one line that stays."""
        print(("\n" if sys.stdout.isatty() else "") + line, flush=True)

    def env(
        self, *, hold_steps: int = 0, seed: int = 0, terminate_on_success: bool = True
    ) -> RecordedEnv:
        """Return an environment on the arm that records what happens."""
        config = self.config
        plain = ArmEnv(
            self.station,
            config.robot.type,
            task=self.task,
            horizon=config.horizon,
            seed=seed,
            motors=self.motors,
            terminate_on_success=terminate_on_success and not hold_steps,
        )
        scorer = StreamScorer(self.reward, 1) if self.reward else None
        return RecordedEnv(
            plain,
            self.station,
            self.recorder,
            LiveScores(scorer),
            self.show,
            hold_steps=hold_steps,
            facts={"mode": config.mode},
        )

    @property
    def policy(self) -> Acts:
        """The policy of --policy.path. Raises ConfigError if it moves other motors than the arm."""
        assert self._policy is not None
        spec, count = self._policy.spec, len(self.motors or self.arm.limits.motors)
        if len(spec.low) != count:
            raise ConfigError(
                f"the policy moves {len(spec.low)} motors, and an action here moves {count}: give "
                "the --motors=... with which it was trained"
            )
        return self._policy

    def _check_rate(self) -> None:
        meta = self._policy.spec.meta if self._policy else {}
        rate = self.arm.limits.rate
        if abs(meta.get("rate_hz", rate) - rate) > 0.01 * rate:
            raise ConfigError(
                f"'{self.config.policy.path}' decides {meta['rate_hz']:g} times per second, and "
                f"the limits have rate_hz: {rate:g}; its actions would move the arm by other "
                "amounts: give the --limits with which it was trained"
            )

    @property
    def moved(self) -> tuple[str, ...]:
        """The motors that an action moves."""
        return tuple(m for m in self.arm.limits.motors if m in self.motors or not self.motors)

    def _trained_motors(self) -> tuple[str, ...]:
        return tuple(self._policy.spec.meta.get("motors", ())) if self._policy else ()

    def finish(self, status: dict[str, Any] | None) -> None:
        """Assemble what was recorded, write the report, say what came out."""
        safety = self.arm.report()
        self.arm.close()
        count = len(self.recorder)
        root = self.recorder.root
        if count:
            self.recorder.finish()
        report = {
            **(status or {"interrupted": True}),
            "recorded_episodes": count,
            "missed_ticks": self.arm.missed,
            "safety": safety,
            "config": configs.encode(self.config),
        }
        with replacing(self.folder / "rollout.json") as temporary:
            temporary.write_text(json.dumps(report, indent=1))
        self.say(_summary(safety, self.arm.missed))
        for hold in safety.get("holds", [])[:5]:
            print(f"  {hold['check']}: {hold['reason']}")
        if count:
            print(f"{count} episodes: {root}\nreport: {self.folder / 'rollout.json'}")
        if status is None and self.config.mode != "evaluate":
            print(f"continue with\n  er rollout --output_dir={self.folder} --resume=true")
        elif self.config.mode == "record" and count:
            roots = ",".join(shlex.quote(str(r)) for r in [*self._earlier(), root])
            print(f"next:\n  er data inspect {root}\n  er train-reward --dataset.root={roots}")

    @property
    def earlier(self) -> int:
        """Episodes that this run recorded before it was resumed."""
        infos = [root / "meta" / "info.json" for root in self._earlier()]
        return sum(json.loads(info.read_text())["total_episodes"] for info in infos)

    def _earlier(self) -> list[Path]:
        found = sorted(self.folder.glob("episodes_[0-9]*"))
        return [f for f in found if f.is_dir() and f.suffix == "" and f != self.recorder.root]

    def _operator(self, stack: contextlib.ExitStack) -> Operator | None:
        config = self.config
        if config.teleop is not None:
            from lerobot.teleoperators import make_teleoperator_from_config

            teleop = make_teleoperator_from_config(config.teleop)
            teleop.connect()
            stack.callback(teleop.disconnect)
            return Teleoperated(teleop, self.arm.limits)
        if config.robot.type == lerobot_robots.SIMULATED:
            return Scripted(config.robot.task, config.seed)  # type: ignore[attr-defined]
        return None

    def _crew(self, operator: Operator | None) -> Person | Unattended:
        simulated = self.config.robot.type == lerobot_robots.SIMULATED
        if not self.config.unattended and not self.arm.terminal and not simulated:
            raise EnvError(
                "a real robot needs a person with keys, and there is no terminal; "
                "--unattended=true runs without, and ends at the first hold"
            )
        if not self.arm.terminal:
            return Unattended(operator)

        def finish() -> None:
            os.kill(os.getpid(), signal.SIGINT)  # the trainer stops between two updates

        self.say(KEYS + ("; hold d down to let it move" if self.config.deadman else ""))
        return Person(operator, self.say, finish if self.config.mode == "finetune" else None)

    def _recorder(self, folder: Path) -> EpisodeRecorder:
        """Return a recorder: of the unfinished recording when resuming, else of a new one."""
        number = 0
        while (folder / f"episodes_{number:02d}").exists():
            number += 1
        config = self.config
        facts = {"robot": lerobot_robots.encode(config.robot), "mode": config.mode}
        return EpisodeRecorder(
            folder / f"episodes_{number:02d}",
            fps=self.arm.limits.rate,
            robot_type=config.robot.type,
            info=json.loads(json.dumps(facts, default=str)),
            resume=config.resume,
        )


def _summary(safety: dict[str, Any], missed: int) -> str:
    counts = {
        "command": safety.get("commands_sent", 0),
        "hold": len(safety.get("holds", ())),
        "late tick": missed,
    }
    said = [f"{n} {word}{'' if n == 1 else 's'}" for word, n in counts.items()]
    return "door: " + ", ".join(said)


def record(session: Session) -> dict[str, Any] | None:
    """Let the operator demonstrate; None where the person had enough."""
    config, operator = session.config, session.operator
    assert operator is not None
    env = session.env(hold_steps=max(config.hold_steps, 1), seed=config.seed)
    earlier, done = session.earlier, session.earlier + len(session.recorder)
    with _bar(config.mode, config.episodes, done) as advance:
        try:
            while (done := earlier + len(session.recorder)) < config.episodes:
                _demonstrate(session, env, operator, done)
                advance()
        except KeyboardInterrupt:
            env.close()
            return None
    return {"episodes": done}


def _demonstrate(session: Session, env: RecordedEnv, operator: Operator, index: int) -> None:
    before, crew = len(session.recorder), session.station.crew
    for attempt in range(ATTEMPTS):
        # Episode i depends on (seed, i) alone, so a resumed recording equals another one.
        source = np.random.SeedSequence([session.config.seed, index, attempt])
        env.reset(seed=int(source.generate_state(1)[0]))
        won = ended = False
        while not ended:
            reading = env.env._known_reading()
            _, _, terminated, truncated, info = env.step_towards(operator.wish(reading))
            won, ended = won or info["is_success"], terminated or truncated
            if ended and session.config.only_success and not won:
                crew.discarded = True  # type: ignore[attr-defined]
        env.keep()
        if len(session.recorder) > before:
            return
    raise EnvError(f"{ATTEMPTS} demonstrations in a row failed; raise --horizon")


def evaluate(session: Session) -> dict[str, Any] | None:
    """Roll the policy out."""
    config, policy = session.config, session.policy
    env, done = session.env(seed=config.seed), []
    with _bar(config.mode, config.episodes, 0) as advance:
        try:
            for index in range(config.episodes):
                seed = 20_000 + config.seed + index
                how = {"seed": seed, "deterministic": config.deterministic}
                done.append(roll_out(policy, env, episodes=1, **how))
                advance()
        except KeyboardInterrupt:
            env.close()
    if not done:
        return None
    columns = ([x for one in done for x in getattr(one, f.name)] for f in fields(Evaluation))
    result = Evaluation(*map(tuple, columns))
    low, high = result.interval
    print(
        f"{sum(result.success)} of {len(done)} succeeded, {result.success_rate:.0%} "
        f"(95 % interval {low:.0%} to {high:.0%}), {np.mean(result.lengths):.0f} decisions on "
        "average"
    )
    found = {"success": list(result.success), "lengths": list(result.lengths)}
    return {**result.summary(), **found, "interrupted": len(done) < config.episodes}


def finetune(session: Session) -> dict[str, Any] | None:
    """Fine-tune a policy with the simulator's own trainer: between episodes, or elsewhere."""
    if session.config.pair.url:
        from embodied_reward.cli.pair.actor import act

        return act(session)
    from embodied_reward.cli.rollout_finetune import ArmPolicyRun, training_config
    from embodied_reward.cli.train_policy import checked

    training = training_config(session.config)
    run = ArmPolicyRun(training, checked(training), session)
    try:
        done = run.prepare()
        save_config(dataclasses.replace(session.config, resume=False), session.folder)
        print(run.opening())
        if done:
            print(f"resuming at decision {done}")
        run.learn()
    except KeyboardInterrupt as end:
        if isinstance(end, SessionEnd) and hasattr(run, "callback"):
            run.callback.save_now()  # raised at a reset, where no update is under way
        return None
    finally:
        run.close()
    print(run.closing())
    history = {str(k): v.summary() for k, v in run.callback.history.items()}
    return {"evaluations": history}


@contextlib.contextmanager
def _bar(name: str, total: int, done: int) -> Iterator[Callable[[], Any]]:
    """Show progress where no live line is shown."""
    if sys.stdout.isatty():
        yield lambda: None
        return
    with progress_bar() as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda: bar.advance(task)


def _folder(config: "RolloutConfig") -> Path:
    if config.output_dir:
        return Path(config.output_dir)
    if config.resume:
        raise ConfigError("--resume=true needs --output_dir=RUN, the folder of the run to continue")
    return default_output_dir("rollout", f"{config.mode}_{config.robot.type}")
