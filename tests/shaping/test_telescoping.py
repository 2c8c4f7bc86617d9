"""T5 as one law that every way of paying the shaping must pass, and that wrong ones fail."""

import gymnasium as gym
import numpy as np
import pytest

from embodied_reward.errors import EnvError
from embodied_reward.shaping import mode_named, shaping_reward
from embodied_reward.shaping.chunk import ActionChunk
from embodied_reward.shaping.wrapper import LearnedReward
from embodied_reward.types import Scores

GAMMA, KAPPA = 0.95, 1.7


def law_error(env, phi, episodes=12, seed=0):
    """Largest |sum gamma^k F_k - kappa (gamma^K m Phi_K - Phi_0)| over random episodes.

    Phi is read off the environment's state, not off what the wrapper says about itself.
    """
    rng, worst, ends = np.random.default_rng(seed), 0.0, set()
    shape = env.action_space.shape
    for _ in range(episodes):
        env.reset()
        first, total, power, over = phi(env), 0.0, 1.0, False
        while not over:
            action = rng.choice([-1.0, 1.0, 1.0], size=shape)
            _, reward, terminated, truncated, info = env.step(action)
            total += power * (reward - float(info["is_success"]))
            power, over = power * GAMMA, terminated or truncated
        expected = KAPPA * (power * (not terminated) * phi(env) - first)
        worst = max(worst, abs(total - expected))
        ends.add(terminated)
    assert ends == {True, False}, "the law must have met both kinds of ends"
    return worst


def position(env):
    return env.unwrapped.x / 5


def build(corridor, brightness, kind=LearnedReward, chunk=1, **fields):
    env = corridor(start=2, horizon=9, **fields)
    env = ActionChunk(env, chunk) if chunk > 1 else env
    return kind(env, mode_named("potential"), gamma=GAMMA, kappa=KAPPA, scorer=brightness(1))


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_discounted_shaping_telescopes(chunk, corridor, brightness):
    assert law_error(build(corridor, brightness, chunk=chunk), position) < 1e-9


class Wrong(LearnedReward):
    """Base of the deliberately wrong wrappers: changes the arguments of the formula."""

    learns_reward = False  # or the wrong order would be refused before it can be measured

    def step(self, action):
        phi = self._phi
        obs, reward, terminated, truncated, info = super().step(action)
        wrong = self.wrong(phi, self._phi, terminated, truncated)
        return obs, float(info["base_reward"]) + wrong, terminated, truncated, info


class KeepsPhiAtTheTerminal(Wrong):
    def wrong(self, phi, after, terminated, truncated):
        return shaping_reward(phi, after, False, GAMMA, KAPPA)


class ShapesFromDone(Wrong):
    """The time-out bug: a truncation masked like a termination."""

    def wrong(self, phi, after, terminated, truncated):
        return shaping_reward(phi, after, terminated or truncated, GAMMA, KAPPA)


class ForgetsTheDiscount(Wrong):
    def wrong(self, phi, after, terminated, truncated):
        return shaping_reward(phi, after, terminated, 1.0, KAPPA)


class ScalesOneSideOnly(Wrong):
    def wrong(self, phi, after, terminated, truncated):
        return GAMMA * (not terminated) * after - KAPPA * phi


class ClipsTheShaping(Wrong):
    def wrong(self, phi, after, terminated, truncated):
        return float(np.clip(shaping_reward(phi, after, terminated, GAMMA, KAPPA), -0.3, 0.3))


class ScoresAgainOnLeaving(Wrong):
    """A potential with dropout, evaluated twice: once as "next", once as "current"."""

    rng = np.random.default_rng(0)

    def wrong(self, phi, after, terminated, truncated):
        phi, after = phi + self.rng.normal(0, 0.05), after + self.rng.normal(0, 0.05)
        return shaping_reward(phi, after, terminated, GAMMA, KAPPA)


@pytest.mark.parametrize("kind", Wrong.__subclasses__())
def test_wrong_wrappers_fail(kind, corridor, brightness):
    assert law_error(build(corridor, brightness, kind), position) > 1e-2


def test_shaping_inside_a_chunk_fails_and_is_refused(corridor, brightness):
    class Unmarked(Wrong):
        def wrong(self, phi, after, terminated, truncated):
            return shaping_reward(phi, after, terminated, GAMMA, KAPPA)

    assert law_error(build(corridor, brightness, Unmarked), position) < 1e-9
    inside = ActionChunk(build(corridor, brightness, Unmarked), 3)
    assert law_error(inside, position) > 1e-2
    with pytest.raises(EnvError, match="put the learned reward outside"):
        ActionChunk(build(corridor, brightness), 3)


def test_a_chunk_sums_rewards_stops_at_ends_and_slows_the_clock(corridor):
    env = ActionChunk(corridor(start=3, horizon=20), 4)
    assert env.action_space.shape == (4, 1)
    assert env.metadata["render_fps"] == 2.5
    env.reset()
    obs, reward, terminated, truncated, info = env.step(np.ones((4, 1)))
    assert (obs[0], reward, terminated, truncated, info["chunk_steps"]) == (5, 1.0, True, False, 2)
    loose = ActionChunk(corridor(start=4, terminates=False), 4)
    loose.reset()
    assert loose.step(np.ones((4, 1)))[1] == 4.0
    with pytest.raises(EnvError, match="expected 4 actions"):
        loose.step(np.ones((3, 1)))


def test_a_chunk_needs_a_box(corridor):
    class Discrete(corridor):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Discrete(2)

    with pytest.raises(EnvError, match="Discrete"):
        ActionChunk(Discrete(), 2)


def test_a_history_dependent_potential_is_scored_once_per_visited_state(corridor):
    """E.6: whatever the scorer carries or drifts, the number paid on entering leaves again."""

    class Drifting:
        views, calls = ("eye",), 0

        def start(self, rows, frames):
            return self.step(frames)

        def step(self, frames):
            self.calls += 1
            phi = np.array([np.sin(self.calls) + frames["eye"].mean() / 200])
            seen.append(float(phi[0]))
            return Scores(phi, phi, np.zeros(1), np.ones(1, bool))

    seen, scorer = [], Drifting()
    env = LearnedReward(
        corridor(horizon=7, start=1), mode_named("potential"), gamma=GAMMA, kappa=KAPPA,
        scorer=scorer,
    )  # fmt: skip
    env.reset()
    total = 0.0
    for k in range(7):
        _, reward, terminated, truncated, _ = env.step(np.array([(-1.0) ** k]))
        total += GAMMA**k * reward
    assert truncated
    assert not terminated
    assert scorer.calls == 8
    assert abs(total - KAPPA * (GAMMA**7 * seen[-1] - seen[0])) < 1e-9
