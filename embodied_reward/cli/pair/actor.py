"""`er rollout --mode=finetune --pair.url=...`: the robot's side of a pair.

The arm moves with the policy it has, through its door, whatever the learner does. Between two
episodes newer parameters are taken, where there are any.
"""

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from embodied_reward.cli.env_config import EnvConfig
from embodied_reward.cli.pair.config import token
from embodied_reward.cli.pair.link import Link, linked
from embodied_reward.cli.pair.messages import Body, Terms, Weights
from embodied_reward.cli.policy_env import learner_env
from embodied_reward.cli.policy_watch import watched
from embodied_reward.cli.progress_bar import progress_bar
from embodied_reward.cli.rollout_finetune import env_maker, training_config
from embodied_reward.cli.rollout_run import Session
from embodied_reward.cli.success_table import success_table
from embodied_reward.errors import ConfigError, ScoringError
from embodied_reward.policies.callbacks import Interrupt, deferred_interrupt
from embodied_reward.policies.checkpoint import Policy, build_network, save_network
from embodied_reward.policies.evaluate import Evaluation, evaluate
from embodied_reward.policies.experience import ACCOUNTS, Experience
from embodied_reward.scoring.stream import StreamScorer
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.tiers import Tiers
from embodied_reward.training.checkpoint import point, save_checkpoint
from embodied_reward.training.run import Tracker
from embodied_reward.types import Float32

DELIVERY = 60.0
"""Seconds that a learner that is away is waited for at the end."""
_POLL = 0.1


class Actor:
    """The robot, the policy it has, and the learner elsewhere.

    Args:
        session: robot, crew and recorder.
        link: to the learner.
        terms: the learner's.
        interrupt: asks to stop.
    """

    def __init__(self, session: Session, link: Link, terms: Terms, interrupt: Interrupt) -> None:
        self._session, self._link, self._terms = session, link, terms
        self._interrupt, self._patience = interrupt, session.config.pair.patience
        self.policy = Policy(build_network(terms.spec), terms.spec)
        self.policy.network.set_training_mode(False)
        self._env, self._eval_env = _environment(session, terms), session.env(seed=0)
        self._best = _best(session.folder / "metrics.jsonl")
        self._tracker = Tracker(session.folder, step=terms.decisions + 1 if terms.decisions else 0)
        self._run, self._put = uuid.uuid4().hex[:12], 0
        self.weights: Weights | None = None
        self.decisions = terms.decisions
        self.history: dict[int, Evaluation] = {}

    def run(self, report: Callable[[int], None]) -> None:
        """Act until the run has its decisions, evaluating as `--eval.*` says.

        Raises:
            KeyboardInterrupt: stopped.
            ScoringError: the learner gave no first policy.
        """
        every = self._session.config.eval.freq
        self._link.start(self.policy.network)
        self._first()
        self.evaluate()
        obs = self._env.reset()
        while self.decisions < self._terms.steps:
            before = self.decisions
            obs = self._episode(obs)
            report(self.decisions)
            self._catch_up()
            if every and self.decisions // every > before // every:
                self.evaluate()
                obs = self._env.reset()
        self._finish()

    def evaluate(self) -> None:
        """Roll the present policy out, keep it, and point at it where it is the best so far."""
        config, weights = self._session.config, self.weights
        assert weights is not None
        step = weights.decisions

        def watch(index: int, env: Any, info: dict[str, Any], ended: bool) -> None:
            self._check()

        result = evaluate(
            self.policy,
            self._eval_env,
            episodes=config.eval.n_episodes,
            seed=config.eval.seed,
            watch=watch,
        )
        self.history[step] = result
        self._tracker.log(self.decisions, {**result.summary(), "eval/learned_decisions": step})
        score = (result.success_rate, -float(np.mean(result.lengths)))
        folder = self._session.folder / "checkpoints"
        saved = save_checkpoint(
            folder, step, lambda at: save_network(self.policy.network, self._terms.spec, at)
        )
        if score >= self._best:
            self._best = score
            point(folder, "best", saved.name)

    def close(self) -> None:
        """Close the log and the environments."""
        self._tracker.close()
        self._env.close()
        self._eval_env.close()

    def _first(self) -> None:
        end = time.monotonic() + self._patience
        while not self._swap():
            self._check()
            if time.monotonic() > end:
                raise ScoringError(
                    f"no usable policy came from the learner within {self._patience:g} s"
                )
            time.sleep(_POLL)

    def _swap(self) -> bool:
        """Take newer parameters, all of them; returns whether there were any."""
        weights = self._link.take()
        if weights is None:
            return False
        self.policy.network.load_state_dict(dict(weights.tensors))
        self.weights = weights
        return True

    def _episode(self, obs: Float32) -> Float32:
        """Act for one episode and hand it over; returns the next one's first observation."""
        seen, rows, done = [obs[0]], [], False
        info: dict[str, Any] = {}
        while not done:
            self._check()
            action, _ = self.policy.network.predict(obs, deterministic=False)
            obs, _, dones, infos = self._env.step(action)  # type: ignore[assignment]
            info, done = infos[0], bool(dones[0])
            rows.append((action[0], info))
            seen.append(info["terminal_observation"] if done else obs[0])
        self._put += 1
        name = f"{self._run}-{self._put:06d}"
        self._link.put(_experience(name, seen, rows))
        self.decisions += len(rows)
        self._log(info)
        return obs

    def _log(self, info: dict[str, Any]) -> None:
        account = info.get(ACCOUNTS[0], {})
        row = {f"episode/{key}": value for key, value in account.items()}
        weights = self.weights
        row["pair/learned_decisions"] = float(weights.decisions if weights else 0)
        row["pair/undelivered"] = float(len(self._link.waiting))
        self._tracker.log(self.decisions, row)

    def _behind(self) -> bool:
        """Whether the learner works, but has not learned from enough of what it was given."""
        ahead = self._session.config.pair.ahead
        learned = self.weights.episodes if self.weights else 0
        given = self._terms.episodes + self._put
        return bool(ahead) and self._link.alive and given - learned > ahead

    def _catch_up(self) -> None:
        """Take newer parameters; the arm rests meanwhile, at the start of the next episode."""
        end = time.monotonic() + self._patience
        self._swap()
        while self._behind() and time.monotonic() < end:
            self._check()
            time.sleep(_POLL)
            self._swap()

    def _check(self) -> None:
        if self._interrupt.asked:
            raise KeyboardInterrupt

    def _finish(self) -> None:
        """Deliver what is left, and evaluate the learner's last policy."""
        heard = news = time.monotonic()
        while not (self.weights and self.weights.final):
            self._check()
            now = time.monotonic()
            news = now if self._swap() else news
            heard = now if self._link.alive else heard
            if now - heard > DELIVERY or now - news > self._patience:
                break
            time.sleep(_POLL)
        self.evaluate()


def act(session: Session) -> dict[str, Any] | None:
    """Run the actor; None where it was stopped."""
    config = session.config
    link = Link(config.pair.url, token(), session.folder / "outbox", session.say)
    with deferred_interrupt() as interrupt, linked(link):
        try:
            session.say(f"waiting for the learner's policy at {config.pair.url}")
            terms = link.meet(_body(session), config.pair.patience, lambda: interrupt.asked)
        except KeyboardInterrupt:
            return None
        actor = Actor(session, link, terms, interrupt)
        stopped = False
        try:
            _run(actor, terms)
        except KeyboardInterrupt:
            stopped = True
        finally:
            actor.close()
        return _summary(session, actor, link, stopped=stopped)


def _run(actor: Actor, terms: Terms) -> None:
    with progress_bar() as bar:
        task = bar.add_task(f"sac {terms.mode}", total=terms.steps, completed=actor.decisions)
        actor.run(lambda step: bar.update(task, completed=step))


def _summary(session: Session, actor: Actor, link: Link, *, stopped: bool) -> dict[str, Any] | None:
    left = link.waiting
    if left:
        session.say(
            f"{len(left)} episodes were not delivered; they wait in {left[0].parent} and are sent "
            "with --resume=true"
        )
    if stopped:
        return None
    print(success_table(actor.history, "decisions"))
    final = bool(actor.weights and actor.weights.final)
    if not final:
        print("the learner did not finish; this is the newest policy that came")
    evaluations = {str(k): v.summary() for k, v in actor.history.items()}
    return {"evaluations": evaluations, "undelivered": len(left), "final": final}


def _best(metrics: Path) -> tuple[float, float]:
    """Return the score of the best evaluation so far, from the log of a run that was resumed."""
    if not metrics.is_file():
        return (-1.0, 0.0)
    rows = [json.loads(line) for line in metrics.read_text().splitlines() if line.endswith("}")]
    scores = [
        (float(row["eval/success_rate"]), -float(row["eval/mean_ep_length"]))
        for row in rows
        if "eval/success_rate" in row
    ]
    return max(scores, default=(-1.0, 0.0))


def _body(session: Session) -> Body:
    env = session.env().env
    reward = session.reward
    spaces: Any = env.observation_space
    return Body(
        robot=session.config.robot.type,
        task=session.task,
        rate=float(session.arm.limits.rate),
        horizon=session.config.horizon,
        observation={key: int(np.prod(box.shape)) for key, box in spaces.spaces.items()},
        motors=session.moved,
        reward=reward.card.weights_sha256 if reward else "",
    )


def _environment(session: Session, terms: Terms) -> Any:
    """Return the environment of the simulator's trainer, on this arm and on the learner's terms."""
    mode, reward = mode_named(terms.mode), session.reward
    if mode.source == "scorer" and reward is None:
        raise ConfigError(f"the learner pays --reward.mode={mode.name}: give its --reward.path")
    used = reward if mode.source == "scorer" else None
    training = training_config(session.config)
    return learner_env(
        EnvConfig(id=f"robot/{session.config.robot.type}", horizon=session.config.horizon),
        mode,
        gamma=terms.gamma,
        kappa=terms.kappa,
        tiers=Tiers(terms.tiers, terms.hysteresis) if terms.tiers else None,
        seed=int(
            np.random.SeedSequence([session.config.seed, terms.decisions]).generate_state(1)[0]
        ),
        scorer=StreamScorer(used, 1) if used else None,
        watched=watched(training, used),
        maker=env_maker(session),
    )


def _experience(
    name: str, seen: list[Float32], rows: list[tuple[Float32, dict[str, Any]]]
) -> Experience:
    infos = [info for _, info in rows]
    last = infos[-1]
    first = infos[0]["previous_potential"]
    return Experience(
        id=name,
        observations=np.stack(seen).astype(np.float32),
        actions=np.stack([action for action, _ in rows]).astype(np.float32),
        executed=np.stack([info["executed_action"] for info in infos]).astype(np.float32),
        interventions=np.array([info["intervention"] for info in infos], bool),
        rewards=np.array([info["base_reward"] for info in infos], np.float64),
        success=np.array([info["is_success"] for info in infos], bool),
        potentials=np.array([first, *(info["potential"] for info in infos)], np.float64),
        shaping=np.array([info["shaping"] for info in infos], np.float64),
        terminated=not last.get("TimeLimit.truncated", False),
        facts={key: dict(last[key]) for key in ACCOUNTS if key in last},
    )
