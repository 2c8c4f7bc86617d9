"""`er benchmark trap`: thresholds of the chain, exact solver, rewards, and the whole verb."""

import dataclasses
import json
import math

import numpy as np
import pytest

from embodied_reward.cli import main
from embodied_reward.cli.trap import chain, run
from embodied_reward.cli.trap.conditions import CONDITIONS, optimal_policy, rewarded
from embodied_reward.cli.trap.lattice import (
    CELLS,
    GOAL,
    MOVES,
    SOCKET_CELL,
    LatticeEnv,
    insert_process,
    start_distribution,
)
from embodied_reward.cli.trap.learner import LearnerConfig, learn
from embodied_reward.cli.trap.mdp import evaluate

PRESS, STAY = list(MOVES).index("press"), list(MOVES).index("stay")
# What an honest progress model reads: a tenth per column, 1 when locked.
IDEAL = np.append(np.round(CELLS[:, 0], 6), 1.0)
HORIZON, CHANCE, GAMMA = 40, 0.2, 0.97

# The published thresholds (a scan over p in steps, so rounded up to the next step of 0.005 or
# 0.01), and "any" / "never" as 0 / inf.
ANY, NEVER = 0.0, math.inf
PUBLISHED = {
    "sparse": (ANY, ANY, ANY, ANY),
    "PBRS": (ANY, ANY, ANY, ANY),
    "difference, no success reward": (0.22, 0.22, 0.22, 0.22),
    "difference + success": (0.03, 0.005, ANY, ANY),
    "absolute + success": (NEVER, NEVER, NEVER, 0.20),
}


def agrees(found, published):
    if published in (ANY, NEVER):
        return found == published or (published == ANY and found < 0.001)
    return published - 0.01 < found <= published


@pytest.mark.parametrize("row", chain.ROWS)
def test_thresholds_of_the_chain(row):
    for bonus, published in zip(chain.BONUSES, PUBLISHED[row], strict=True):
        assert agrees(chain.infinite_threshold(row, bonus), published), (row, bonus)


def test_thresholds_of_the_time_out_mistake_and_of_its_correction():
    for steps, published in zip(chain.STEPS_LEFT, (0.87, 0.84, 0.67, ANY), strict=True):
        assert agrees(chain.timeout_threshold(steps, keep_potential=True), published), steps
        assert chain.timeout_threshold(steps, keep_potential=False) == 0.0


def test_thresholds_equal_their_closed_forms():
    g = chain.GAMMA
    fall = 0.7 - g * 0.1 * (1 - g**7) / (1 - g)  # what a failed attempt costs "difference"
    assert chain.infinite_threshold("difference, no success reward", 1.0) == pytest.approx(
        fall / (0.1 + fall), abs=1e-7
    )
    assert chain.infinite_threshold("difference + success", 10.0) == pytest.approx(
        fall / (10.1 + fall), abs=1e-7
    )
    hover, failed, won = 0.9 * (g - 1), 0.2 * g - 0.9, 1 - 0.9
    assert chain.timeout_threshold(1, keep_potential=True) == pytest.approx(
        (hover - failed) / (won - failed), abs=1e-7
    )


def follow(env, policy, seed):
    """Play one episode of a policy table; returns (success, discounted success)."""
    env.reset(seed=seed)
    for t in range(HORIZON):
        *_, terminated, _, _ = env.step(policy[t, env.state])
        if terminated:
            return True, GAMMA**t
    return False, 0.0


def test_the_process_moves_as_the_environment_does():
    process = insert_process(IDEAL, 0.5, GAMMA)
    for chance, share in ((0.0, 0.5), (1.0, 0.5)):
        env = LatticeEnv(IDEAL, chance=chance, horizon=5)
        for cell, place in enumerate(CELLS):
            for action in range(len(MOVES)):
                env.reset(seed=0)
                env.env.reset(options={"place": tuple(place)})
                env.step(action)
                uncertain = (cell, action) == (SOCKET_CELL, PRESS)
                assert process.chances[cell, action, env.state] == (share if uncertain else 1.0)
                assert (env.state == GOAL) == (uncertain and chance == 1.0)
    np.testing.assert_allclose(process.chances.sum(axis=2), 1.0)


def test_evaluation_agrees_with_episodes_of_the_environment():
    process = insert_process(IDEAL, CHANCE, GAMMA)
    policy = optimal_policy(CONDITIONS["sparse"], process, HORIZON)
    exact = evaluate(process, policy, start_distribution(), 0.8)
    assert exact.success == pytest.approx(1 - (1 - CHANCE) ** 4)  # four attempts fit
    env = LatticeEnv(IDEAL, chance=CHANCE, horizon=HORIZON)
    won, value = np.mean([follow(env, policy, seed) for seed in range(600)], axis=0)
    assert won == pytest.approx(exact.success, abs=0.06)
    assert value == pytest.approx(exact.value, abs=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_pbrs_asks_for_the_sparse_optimum_whatever_the_potential(seed):
    potential = np.random.default_rng(seed).uniform(0, 1, GOAL + 1)
    process = insert_process(potential, CHANCE, GAMMA)
    best, shaped = (
        evaluate(process, optimal_policy(CONDITIONS[n], process, HORIZON), start_distribution(), 2)
        for n in ("sparse", "pbrs")
    )
    assert shaped.value == pytest.approx(best.value, abs=1e-9)


def test_what_each_reward_asks_for_with_an_honest_potential():
    process = insert_process(IDEAL, CHANCE, GAMMA)
    got = {
        name: evaluate(
            process, optimal_policy(condition, process, HORIZON), start_distribution(), 0.8
        )
        for name, condition in CONDITIONS.items()
    }
    assert got["absolute"].hover == got["difference"].hover == pytest.approx(1.0)
    assert got["difference_gold"].value == pytest.approx(got["sparse"].value)
    # The mistake shows at the end of time: the last attempt is not made.
    assert got["pbrs_timeout"].success == pytest.approx(1 - (1 - CHANCE) ** 3)
    assert got["pbrs_timeout"].hover == pytest.approx((1 - CHANCE) ** 3)


@pytest.mark.parametrize("name", CONDITIONS)
def test_the_learner_is_paid_what_the_process_says(name):
    """Ties the library's wrapper, with its masks, to the rewards that are solved exactly."""
    condition, rng = CONDITIONS[name], np.random.default_rng(0)
    potential = rng.uniform(0.5, 1, GOAL + 1)
    process = insert_process(potential, 0.5, GAMMA)
    table = process.rewards(condition.reward_mode(), process.success_pays())
    lattice = LatticeEnv(potential, chance=0.5, horizon=8, explore=0)
    env, ends, goals = rewarded(lattice, condition, GAMMA), set(), 0
    env.reset(seed=0)
    for _ in range(1500):
        before = lattice.state
        action = PRESS if before == SOCKET_CELL else int(rng.integers(len(MOVES)))
        _, reward, terminated, truncated, _ = env.step(action)
        assert reward == pytest.approx(table[before, action, lattice.state])
        goals += lattice.state == GOAL
        if terminated or truncated:
            ends.add((lattice.state == GOAL, terminated))
            env.reset()
    assert goals > 5
    assert ends == {(True, True), (False, condition.timeout_terminal)}


def test_the_same_seed_learns_the_same_policy():
    def again(seed):
        config = LearnerConfig(steps=600)
        return learn(
            CONDITIONS["pbrs"], IDEAL, config, chance=CHANCE, horizon=10, gamma=GAMMA, seed=seed
        )

    first = again(3)
    assert first.shape == (10, GOAL + 1)
    assert len(np.unique(first)) > 1
    np.testing.assert_array_equal(first, again(3))
    assert not np.array_equal(first, again(4))


@pytest.mark.slow
def test_dqn_finds_the_optimum_under_pbrs_and_hovers_under_absolute_progress():
    process = insert_process(IDEAL, CHANCE, GAMMA)
    for name, success, hover in (("pbrs", 1 - (1 - CHANCE) ** 4, 0.0), ("absolute", 0.0, 1.0)):
        policy = learn(
            CONDITIONS[name], IDEAL, LearnerConfig(), chance=CHANCE, horizon=HORIZON, gamma=GAMMA,
            seed=0,
        )  # fmt: skip
        outcome = evaluate(process, policy, start_distribution(), 0.8)
        assert (outcome.success, outcome.hover) == pytest.approx((success, hover), abs=0.02)


TINY = ("--seeds=1", "--demos=2", "--reward_steps=2", "--learner.steps=200")


def trap(folder, *more):
    return main(["benchmark", "trap", *TINY, f"--output_dir={folder}", *more])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trap") / "out"
    assert trap(folder) == 0
    return folder


def test_writes_table_json_and_pictures(finished):
    results = json.loads((finished / "results.json").read_text())
    assert results["conditions"].keys() == CONDITIONS.keys()
    assert results["chain"]["absolute + success"]["B=1"] == "never"
    # What is possible does not depend on the potential.
    assert results["optimum"] == pytest.approx(0.338, abs=0.01)
    for metrics in results["conditions"].values():
        assert 0 <= metrics["success"]["mean"] <= 1
        assert metrics["success"]["low"] is None  # one seed has no interval
        assert metrics["gap"]["mean"] >= -1e-9
    table = (finished / "table.md").read_text()
    assert all(condition.label in table for condition in CONDITIONS.values())
    for name in ("results.png", "scene.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")
    potential = json.loads((finished / "potentials" / "seed0" / "potential.json").read_text())
    assert len(potential) == GOAL + 1
    assert len(list((finished / "runs").iterdir())) == len(CONDITIONS)


def test_a_second_call_keeps_what_is_finished(finished, monkeypatch, capsys):
    before = (finished / "results.json").read_bytes()
    (finished / "runs" / "pbrs_seed0.json").unlink()
    learned = []

    def counted(condition, *args, learn=run.learn, **kwargs):
        learned.append(condition.label)
        return learn(condition, *args, **kwargs)

    monkeypatch.setattr(run, "learn", counted)
    assert trap(finished) == 0
    assert learned == [CONDITIONS["pbrs"].label]
    assert (finished / "results.json").read_bytes() == before
    assert "er collect" not in capsys.readouterr().out


def test_an_interrupted_benchmark_says_how_to_continue(finished, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    (finished / "runs" / "sparse_seed0.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(run, "learn", interrupted)
        assert trap(finished) == 130
    assert f"er benchmark trap --output_dir={finished}" in capsys.readouterr().out
    assert trap(finished) == 0


@pytest.mark.slow
def test_two_jobs_give_the_same_numbers(finished):
    before = (finished / "results.json").read_text()
    for name in ("pbrs", "difference"):
        (finished / "runs" / f"{name}_seed0.json").unlink()
    assert trap(finished, "--jobs=2") == 0
    now, then = (
        json.loads(t)["conditions"] for t in ((finished / "results.json").read_text(), before)
    )
    assert now == then


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["benchmark", "trp"], "unknown benchmark 'trp'; did you mean 'trap'"),
        (["benchmark", "trap", "--seed=3"], "unknown configuration key '--seed'"),
        (["benchmark", "trap", "--seeds=0"], "--seeds must be at least 1"),
        (["benchmark", "trap", "--gamma=1.0"], "--gamma in (0, 1)"),
        (["benchmark", "trap", "--learner.steps=5"], "--learner.steps must be at least 100"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_other_settings_in_the_same_folder_are_refused(finished, capsys):
    assert trap(finished, "--horizon=30") == 2
    assert "holds runs with horizon=40, now 30" in capsys.readouterr().err


def test_help(capsys):
    assert main(["benchmark", "--help"]) == 0
    assert "er benchmark trap" in capsys.readouterr().out
    assert main(["benchmark", "trap", "--help"]) == 0
    printed = capsys.readouterr().out
    for field in dataclasses.fields(run.TrapConfig):
        assert f"--{field.name}" in printed
