"""The accounts of an episode on a walk whose every number can be worked out by hand."""

import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from embodied_reward.errors import EnvError, ShapingError
from embodied_reward.rewards.detector import Detector
from embodied_reward.shaping import MODES, mode_named
from embodied_reward.shaping.frames import FramesInInfo, ProgressInInfo, stack_frames
from embodied_reward.shaping.ledger import EPISODE, RUN, Ledger, Totals
from embodied_reward.shaping.vector import LearnedRewardVecEnv
from embodied_reward.shaping.watch import DetectedSuccess, SuccessWatch
from embodied_reward.shaping.wrapper import LearnedReward
from embodied_reward.types import Scores

GAMMA = 0.9


class Eye:
    """Phi = brightness / 200; success probability 0.9 from `sees` on, else 0.1."""

    def __init__(self, count, sees=1.0, views=("eye",)):
        self.count, self.sees, self.views = count, sees, views

    def start(self, rows, frames):
        return self._scores(frames)

    def step(self, frames, rows=None):
        assert len(frames["eye"]) == (self.count if rows is None else len(rows))
        return self._scores(frames)

    def _scores(self, frames):
        phi = frames["eye"].mean(axis=(1, 2, 3)) / 200
        success = np.where(phi >= self.sees - 1e-9, 0.9, 0.1)
        return Scores(phi, success, np.zeros_like(phi), np.isfinite(phi))


def vectorise(envs, mode="potential", *, kappa=1.0, watch=None, hold=0, cls=LearnedRewardVecEnv):
    mode = mode_named(mode)
    made = [Monitor(FramesInInfo(ProgressInInfo(env), hold=hold)) for env in envs]
    vector = DummyVecEnv([lambda env=env: env for env in made])
    scorer = Eye(len(envs)) if mode.source == "scorer" else None
    return cls(vector, mode, gamma=GAMMA, kappa=kappa, scorer=scorer, watch=watch)


def walk(env, actions):
    """Step every environment alike; returns the accounts in the order in which they closed."""
    env.reset()
    entries = []
    for action in actions:
        _, _, _, infos = env.step(np.full((env.num_envs, 1), action))
        entries += [info[EPISODE] for info in infos if EPISODE in info]
    return entries


def test_a_terminated_and_a_truncated_episode_by_hand(corridor):
    # Row 0 begins at 3 and succeeds after two steps; row 1 begins at 0 and is cut off after three.
    env = vectorise([corridor(start=3), corridor(horizon=3)], kappa=2.0)
    done, cut = walk(env, [1, 1, 1])
    assert done["length"] == 2
    assert (done["base_return"], done["true_success"]) == (1.0, 1.0)
    # F = 2 (0.9 * 0.8 - 0.6), 2 (0 - 0.8): discounted, and as it telescopes: -2 * 0.6.
    assert done["shaping_sum"] == pytest.approx(2 * (0.9 * 0.8 - 0.6) + 0.9 * 2 * -0.8)
    assert done["shaping_sum"] == pytest.approx(-1.2)
    assert done["telescoped_sum"] == pytest.approx(-1.2)
    assert done["learned_return"] == pytest.approx(1 + 2 * (0.9 * 0.8 - 0.6) - 1.6)
    assert done["final_potential"] == pytest.approx(1.0)
    assert done["hover"] == 0.0
    assert cut["length"] == 3
    assert cut["telescoped_sum"] == pytest.approx(2 * 0.9**3 * 0.6)  # Phi_0 = 0, Phi_3 = 0.6
    assert abs(cut["residual"]) < 1e-9
    assert (cut["true_success"], cut["hover"]) == (0.0, 0.0)
    assert np.isnan(cut["detected_success"])


@pytest.mark.parametrize("name", list(MODES))
def test_single_and_vector_wrapper_keep_the_same_accounts(name, corridor):
    mode, rng = mode_named(name), np.random.default_rng(0)
    detector = Detector(0.5, 2)
    env = vectorise([corridor()], name, watch=SuccessWatch(detector, Eye(1, 0.8), 1), hold=1)
    scorer = Eye(1) if mode.source == "scorer" else None
    watch = SuccessWatch(detector, Eye(1, 0.8), 1)
    single = LearnedReward(
        FramesInInfo(corridor(), hold=1), mode, gamma=GAMMA, scorer=scorer, watch=watch
    )
    env.reset()
    single.reset()
    episodes = 0
    for _ in range(80):
        action = rng.choice([-1.0, 1.0, 1.0], size=1)
        *_, infos = env.step(action[None])
        *_, terminated, truncated, info = single.step(action)
        for key in ("success_score", "detected_success"):
            assert infos[0][key] == info[key], key
        if terminated or truncated:
            single.reset()
            episodes += 1
            assert set(infos[0][EPISODE]) == set(info[EPISODE])
            for key, value in info[EPISODE].items():
                assert infos[0][EPISODE][key] == pytest.approx(value, abs=1e-6, nan_ok=True), key
            assert infos[0][RUN] == info[RUN]
    assert episodes > 8


class KeepsPhiAtTheTerminal(LearnedRewardVecEnv):
    def _extra(self, phi, terminated):
        return super()._extra(phi, np.zeros_like(terminated))


class Clips(LearnedRewardVecEnv):
    def _extra(self, phi, terminated):
        return np.clip(super()._extra(phi, terminated), -0.1, 0.1)


class ShapesWithAnotherGamma(LearnedRewardVecEnv):
    def _extra(self, phi, terminated):
        return self.mode.added(self._phi, phi, terminated, 1.0, self.kappa)


@pytest.mark.parametrize("wrong", [KeepsPhiAtTheTerminal, Clips, ShapesWithAnotherGamma])
def test_a_wrong_wrapper_is_stopped_at_the_end_of_its_first_episode(wrong, corridor):
    env = vectorise([corridor(start=2)], cls=wrong)
    with pytest.raises(ShapingError, match=r"episode 1 \(environment 0, 3 decisions, terminated\)"):
        walk(env, [1] * 3)


def test_modes_that_are_not_invariant_are_not_held_to_it(corridor):
    (entry,) = walk(vectorise([corridor(start=2)], "absolute"), [1] * 3)
    assert np.isnan(entry["telescoped_sum"])
    assert entry["learned_return"] == pytest.approx(1 + 0.6 + 0.8 + 1.0)


def test_exchanging_the_potential_keeps_the_books_straight():
    rng = np.random.default_rng(0)
    ledger = Ledger(1, mode_named("potential"), gamma=GAMMA, kappa=1.0)
    old, new = rng.random(9), rng.random(9)
    ledger.start([0], old[:1], [{}])
    for t in range(8):
        if t == 4:
            ledger.exchange(new[4:5])
        phi = old if t < 4 else new
        ledger.step(
            np.zeros(1), GAMMA * phi[t + 1 : t + 2] - phi[t : t + 1], phi[t + 1 : t + 2], [{}]
        )
    assert abs(ledger.close(0, terminated=False).residual) < 1e-9


def test_false_and_missed_successes_are_counted_against_the_truth(corridor):
    # A detector that already fires at x = 3 is wrong about walks that are cut off there.
    watch = SuccessWatch(Detector(0.5, 2), Eye(2, 0.6), 2)
    env = vectorise([corridor(start=2, horizon=2), corridor(start=3)], watch=watch)
    entries = walk(env, [1, 1])
    wrong, right = entries
    assert (wrong["true_success"], wrong["detected_success"], wrong["false_success"]) == (0, 1, 1)
    assert (right["true_success"], right["detected_success"], right["false_success"]) == (1, 1, 0)
    assert wrong["hover"] == 0.0  # it ended at Phi = 0.8, not above
    assert vars(env.ledger.totals) == {
        "successes": 1, "missed": 0, "failures": 1, "false": 1, "judged": 2, "hovering": 0,
    }  # fmt: skip


def test_an_episode_that_ends_at_success_is_seen_because_the_arm_is_held(corridor):
    for hold, detected in ((0, 0.0), (1, 0.0), (2, 1.0)):
        watch = SuccessWatch(Detector(0.5, 3), Eye(1, 1.0), 1)
        (entry,) = walk(vectorise([corridor(start=4)], watch=watch, hold=hold), [1])
        assert (entry["true_success"], entry["detected_success"]) == (1.0, detected)
        assert entry["length"] == 1  # the held steps are nobody's decisions
        assert entry["missed_success"] == 1 - detected


def test_rows_are_watched_on_their_own_after_resets(corridor):
    """Two frames in a row, but from two episodes, are not two frames in a row."""
    watch = SuccessWatch(Detector(0.5, 2), Eye(2, 0.8), 2)
    env = vectorise([corridor(start=3, horizon=1), corridor(start=0)], watch=watch)
    entries = walk(env, [1, 1, 1, 1])
    assert len(entries) == 4  # each of one step: x = 3, then 4
    assert all(e["detected_success"] == 0 for e in entries)


def test_a_shared_scorer_is_asked_once_per_step(corridor):
    class Counting(Eye):
        calls = 0

        def step(self, frames, rows=None):
            self.calls += rows is None
            return super().step(frames, rows)

    scorer = Counting(1)
    made = Monitor(FramesInInfo(corridor(start=3), hold=1))
    env = LearnedRewardVecEnv(
        DummyVecEnv([lambda: made]), mode_named("potential"), gamma=GAMMA, scorer=scorer,
        watch=SuccessWatch(Detector(0.5, 2), scorer, 1, shared=True),
    )  # fmt: skip
    (entry,) = walk(env, [1, 1])
    assert entry["detected_success"] == 1.0
    assert scorer.calls == 2


def test_hover_is_ending_near_the_goal_without_success(corridor):
    watch = SuccessWatch(Detector(0.5, 1), Eye(1, 2.0), 1)
    env = vectorise([corridor(start=4, horizon=2, terminates=False)], watch=watch)
    env.reset()
    env.venv.envs[0].unwrapped.x = 4
    scorer = env.scorer
    scorer._scores = lambda frames: Scores(
        np.full(1, 0.9), np.full(1, 0.1), np.zeros(1), np.ones(1, bool)
    )
    env.reset()
    for action in (-1, -1):
        *_, infos = env.step(np.full((1, 1), action))
    assert infos[0][EPISODE]["hover"] == 1.0
    assert infos[0][RUN]["hover_rate"] == 1.0
    assert infos[0][RUN]["hover_rate_low"] < 0.5  # one episode proves little


def test_rates_over_a_run_have_intervals_and_leave_out_what_was_never_judged():
    rates = Totals(successes=10, missed=2, failures=90, false=9).rates()
    assert rates["false_positive_rate"] == 0.1
    assert rates["false_positive_rate_low"] == pytest.approx(0.0535, abs=1e-3)
    assert rates["false_positive_rate_high"] == pytest.approx(0.1794, abs=1e-3)
    assert rates["false_negative_rate"] == 0.2
    assert "hover_rate" not in rates


def test_a_detector_that_pays_ends_the_episode_and_does_not_hide_the_truth(corridor):
    env = DetectedSuccess(
        FramesInInfo(corridor(terminates=False)), SuccessWatch(Detector(0.5, 2), Eye(1, 0.6), 1)
    )
    _, info = env.reset()
    assert not info["detected_success"]
    rewards = []
    for _ in range(4):
        _, reward, terminated, _, info = env.step(np.ones(1))
        rewards.append(reward)
    assert rewards == [0.0, 0.0, 0.0, 1.0]  # x = 3 and 4 look like success
    assert terminated
    assert info["detected_success"]
    assert not info["is_success"]


def test_a_view_that_is_not_rendered_is_left_out_with_a_warning():
    infos = [{"frames": {"eye": np.zeros((2, 2, 3), np.uint8)}}] * 2
    with pytest.warns(UserWarning, match=r"does not render \['wrist'\].*\['eye'\] alone"):
        stacked = stack_frames(infos, ("eye", "wrist"))
    assert {view: frames.shape for view, frames in stacked.items()} == {"eye": (2, 2, 2, 3)}
    with pytest.raises(EnvError, match=r"environment 0 rendered \['eye'\].*\['wrist'\]"):
        stack_frames(infos, ("wrist",))
    with pytest.raises(EnvError, match="environment 1 rendered no frames"):
        stack_frames([infos[0], {}], ("eye",))


def test_held_frames_are_taken_out_of_the_infos(corridor):
    watch = SuccessWatch(Detector(0.5, 2), Eye(1), 1)
    env = vectorise([corridor(start=4)], watch=watch, hold=1)
    env.reset()
    *_, infos = env.step(np.ones((1, 1)))
    assert not {"frames", "held_frames"} & set(infos[0])
