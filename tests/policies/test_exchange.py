"""T11: the potential is exchanged mid-training; nothing of the old one stays, nothing mixes."""

import dataclasses

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import ConfigError, EnvError, NonFiniteError
from embodied_reward.policies.ppo import build_ppo
from embodied_reward.policies.sac import build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.shaping.cache import PotentialCache
from embodied_reward.shaping.frames import FramesInInfo
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.types import Scores

GAMMA = 0.95
MODE = mode_named("potential")


class PowerScorer:
    """Phi = (brightness / 200) ** power: another power is another version."""

    views = ("eye",)

    def __init__(self, power):
        self.power = power

    def start(self, rows, frames):
        return self.step(frames)

    def step(self, frames):
        phi = (frames["eye"].mean(axis=(1, 2, 3)) / 200) ** self.power
        return Scores(phi, phi, np.zeros_like(phi), np.isfinite(phi))


def exchange(env, scorer, version):
    """What a caller does: show the new model the current frames, then let it pay."""
    pictures = np.stack([frames["eye"] for frames in env.env_method("frames")])
    env.exchange(scorer, scorer.start(range(2), {"eye": pictures}).potential, version)


def learner(reach):
    class Camera(reach):
        def frames(self):
            return {"eye": np.full((2, 2, 3), round(40 + 160 * self.progress()), np.uint8)}

    from gymnasium.wrappers import FlattenObservation, RescaleAction

    def one():
        unit = RescaleAction(Camera(horizon=15), np.float32(-1), np.float32(1))
        return FramesInInfo(Monitor(FlattenObservation(unit)))

    vector = DummyVecEnv([one, one])
    vector.seed(0)
    return LearnedRewardVecEnv(vector, MODE, gamma=GAMMA, scorer=PowerScorer(1))


class Exchange(BaseCallback):
    """Square the potential at decision `at`: first the cache, then buffer and environment."""

    def __init__(self, at, demos):
        super().__init__()
        self.at, self.demos, self.cache, self.seen = at, demos, PotentialCache("v1"), {}
        self.online = {}

    def _on_step(self):
        buffer, version = self.model.replay_buffer, self.cache.version
        for row, info in enumerate(self.locals["infos"]):
            episode = int(buffer.running[row])  # of the transition that is about to be stored
            if episode not in self.cache:
                self.cache.append(episode, info["previous_potential"], version)
            self.cache.append(episode, info["potential"], version)
            extra = self.locals["rewards"][row] - info["base_reward"]
            self.online.setdefault(episode, []).append(float(extra))
        return True

    def _on_rollout_start(self):
        if self.cache.version == "v2" or self.model.num_timesteps < self.at:
            return
        buffer = self.model.replay_buffer
        known = [e for e in range(int(buffer.running.max()) + 1) if e in self.cache]
        old = {e: self.cache.trajectory(e) for e in known}
        self.spanning = [e for e in known if e in buffer.running]
        assert self.spanning, "the exchange must meet episodes under way"
        self.before = {n: a.copy() for n, a in buffer.arrays().items()}
        self.renewal = self.cache.renew("v2", lambda e: old[e] ** 2)
        demo = [self.demos.episode == e for e in range(3)]
        paths = [
            np.append(self.demos.potential[m], self.demos.next_potential[m][-1]) ** 2 for m in demo
        ]
        self.jump = self.model.exchange_potential(
            self.cache.trajectory, "v2", demo=lambda e: paths[e]
        )
        exchange(self.training_env, PowerScorer(2), "v2")


def run(reach, small_sac, demos):
    def relabel(base, phi, after, ended):
        return MODE.total(base, phi, after, ended, GAMMA)

    model = build_sac(small_sac(bc_steps=0), learner(reach), demos=demos, relabel=relabel, seed=0)
    model.set_logger(Logger(None, []))
    callback = Exchange(51, demos)
    model.learn(130, callback)
    return model, callback


def residues(buffer, pays, phi):
    """|discounted shaping - telescoped value| of every whole episode in the buffer."""
    out = {}
    for episode in np.unique(buffer.episode_ids[: buffer.size()]):
        rows = np.argwhere(buffer.episode_ids == episode)
        order = buffer.episode_steps[tuple(rows.T)].argsort()
        at = tuple(rows[order].T)
        n, ended = len(order), bool(buffer.dones[at][-1] > 0 and not buffer.timeouts[at][-1] > 0)
        path = phi(int(episode))
        total = (GAMMA ** np.arange(n) * pays(int(episode), at)).sum()
        out[int(episode)] = abs(total - (GAMMA**n * (not ended) * path[n] - path[0]))
    return out


def test_exchanging_mid_training_keeps_base_rewards_and_every_telescope(reach, small_sac, demos):
    model, callback = run(reach, small_sac, demos)
    buffer, count = model.replay_buffer, len(callback.before["rewards"])
    assert callback.cache.version == buffer.version == "v2"
    for name, stored in callback.before.items():
        same = (getattr(buffer, name)[:count] == stored).all()
        assert same == ("potentials" not in name), name  # base rewards and the rest untouched
    np.testing.assert_allclose(
        buffer.potentials[:count], callback.before["potentials"] ** 2, atol=1e-12
    )

    def replayed(_episode, at):
        ended = (buffer.dones[at] > 0) & ~(buffer.timeouts[at] > 0)
        return MODE.added(buffer.potentials[at], buffer.next_potentials[at], ended, GAMMA, 1.0)

    errors = residues(buffer, replayed, callback.cache.trajectory)
    assert len(errors) > 6
    assert max(errors.values()) < 1e-9
    # The usual mistake: keep the shaping that was paid at collection time.
    mixed = residues(buffer, lambda e, _at: np.array(callback.online[e]), callback.cache.trajectory)
    assert max(mixed[e] for e in callback.spanning) > 1e-2
    assert callback.jump == pytest.approx(callback.renewal.jump, abs=0.1)
    assert 0.1 < callback.jump <= 0.25 + 1e-9
    np.testing.assert_allclose(buffer.demos.potential, demos.potential**2)
    assert (buffer.demos.base_reward == demos.base_reward).all()


def stored(reach, small_sac, demos, steps=12):
    model = build_sac(small_sac(bc_steps=0), learner(reach), demos=demos, seed=0)
    model.set_logger(Logger(None, []))
    model.learn(steps)
    return model.replay_buffer


def test_a_failed_exchange_changes_nothing(reach, small_sac, demos):
    buffer = stored(reach, small_sac, demos)
    before = {name: a.copy() for name, a in buffer.arrays().items()}
    for own, demo, error, says in (
        (lambda e: np.ones(20), None, ConfigError, "demonstrations"),
        (lambda e: np.ones(20 if e == 0 else 2), np.ones, ConfigError, "its new potential 2"),
        (lambda e: np.full(20, np.nan if e else 1.0), np.ones, NonFiniteError, "episode 1"),
        (lambda e: np.ones(20), lambda e: np.full(30, np.inf), NonFiniteError, "episode 0"),
    ):
        with pytest.raises(error, match=says):
            buffer.exchange(own, "v2", demo)
        assert buffer.version == ""
        assert buffer.demos is demos
        assert all((a == before[name]).all() for name, a in buffer.arrays().items())


def test_a_transition_of_another_version_is_refused(reach, small_sac, demos):
    buffer = stored(reach, small_sac, None)
    buffer.exchange(lambda e: np.linspace(0, 1, 20), "v2")
    obs = np.zeros((2, 4), np.float32)
    infos = [{"potential_version": "", "potential": 0.1, "previous_potential": 0.1}] * 2
    with pytest.raises(EnvError, match="version '', the replay buffer's is 'v2'"):
        buffer.add(obs, obs, np.zeros((2, 2)), np.zeros(2), np.zeros(2, bool), infos)


def test_ppo_refuses_two_potentials_in_one_rollout(reach, small_ppo):
    def model(at, start):
        class Change(BaseCallback):
            def _on_step(self):
                return self._exchange("step")

            def _on_rollout_start(self):
                self._exchange("rollout")

            def _exchange(self, when):
                env = self.training_env
                if when == at and self.num_timesteps >= start and env.potential_version == "":
                    exchange(env, PowerScorer(2), "v2")
                return True

        config = dataclasses.replace(small_ppo, bc_steps=0)
        ppo = build_ppo(config, learner(reach), seed=0)
        ppo.set_logger(Logger(None, []))
        ppo.learn(200, Change())
        return ppo

    assert model("rollout", 64).env.potential_version == "v2"
    with pytest.raises(ConfigError, match="within a rollout"):
        model("step", 70)
