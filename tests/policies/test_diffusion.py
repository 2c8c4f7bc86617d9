"""Windows, RA-BC weights and the memory of diffusion policies."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from gymnasium import spaces

from embodied_reward.errors import CheckpointError, ConfigError, NonFiniteError
from embodied_reward.policies.config import DiffusionConfig
from embodied_reward.policies.diffusion.actor import (
    History,
    create_actor,
    load_actor,
    spec_for,
)
from embodied_reward.policies.diffusion.cloning import Cloning, step_size
from embodied_reward.policies.diffusion.weighting import progress_deltas, progress_weights
from embodied_reward.policies.diffusion.windows import (
    as_input,
    build_windows,
    observed_space,
    statistics,
)
from embodied_reward.types import Episode

SPACE = spaces.Dict(
    {
        "agent_pos": spaces.Box(-1, 1, (2,), np.float32),
        "environment_state": spaces.Box(-1, 1, (1,), np.float32),
    }
)
ACTION = spaces.Box(-2.0, 2.0, (1,), np.float32)
SMALL = DiffusionConfig(
    horizon=4, n_action_steps=2, n_obs_steps=2, down_dims=(8, 8), diffusion_step_embed_dim=8,
    num_train_timesteps=20, num_inference_steps=5, batch_size=16,
)  # fmt: skip


def episode(length=6, first_success=None, views=(), seed=0):
    rng = np.random.default_rng(seed)
    success = np.zeros(length, bool)
    if first_success is not None:
        success[first_success:] = True
    return Episode(
        views={v: rng.integers(0, 255, (length, 64, 64, 3), np.uint8) for v in views},
        action=np.arange(length, dtype=np.float32)[:, None] / 10,
        fps=10.0,
        task="t",
        index=0,
        source="demo#0",
        length=length,
        state=rng.uniform(-1, 1, (length, 2)).astype(np.float32),
        environment_state=np.arange(length, dtype=np.float32)[:, None],
        success=first_success is not None,
        success_frames=success,
    )


def windows_of(*episodes, potential=None, config=SMALL):
    return build_windows(
        episodes,
        SPACE,
        ACTION,
        views=config.views,
        n_obs_steps=config.n_obs_steps,
        horizon=config.horizon,
        n_action_steps=config.n_action_steps,
        potential=potential,
    )


def actor_of(windows, config=SMALL, sizes=None):
    spec = spec_for(config, observed_space(SPACE, config.views), ACTION, sizes or {}, {"env": "x"})
    return create_actor(spec, statistics(windows, ACTION))


def test_windows_repeat_the_ends_and_never_reach_into_another_episode():
    windows = windows_of(episode(3), episode(4, seed=1))
    assert len(windows) == 7
    batch = windows.batch(np.array([0, 2, 3]))
    time = batch["observation.environment_state"][..., 0]
    assert time.tolist() == [[0, 0], [1, 2], [0, 0]]
    # The first action belongs to the oldest observation, as LeRobot's indices say.
    actions = batch["action"][..., 0]
    assert torch.allclose(actions[0], torch.tensor([0.0, 0.0, 0.1, 0.2]))
    assert torch.allclose(actions[1], torch.tensor([0.1, 0.2, 0.2, 0.2]))
    assert batch["action_is_pad"][1].tolist() == [False, False, True, True]
    assert batch["action_is_pad"][2].tolist() == [True, False, False, False]


def test_nothing_after_the_first_success_is_learned():
    assert len(windows_of(episode(6, first_success=4))) == 4


def test_progress_weights_follow_the_equations():
    deltas = np.array([0.5, 0.005, -0.2, np.nan, 0.0])
    known = deltas[[0, 1, 2, 4]]
    mean, spread = max(known.mean(), 0), known.std()
    soft = np.clip((deltas - (mean - 2 * spread)) / (4 * spread + 1e-6), 0, 1)
    assert progress_weights(deltas) == pytest.approx([1.0, soft[1], 0.0, 1.0, soft[4]])
    assert progress_deltas(np.array([0.0, 0.1, 0.4, 0.9]), 2) == pytest.approx([0.4, 0.8, 0.5, 0.0])


def test_windows_that_lose_progress_are_never_drawn():
    phi = np.array([0.0, 0.3, 0.6, 0.2, 0.1, 0.0])
    windows = windows_of(episode(6), potential=lambda e: phi)
    assert (windows.probability[[1, 2, 3]] == 0).all()
    assert windows.probability[0] > 0
    assert windows.probability.sum() == pytest.approx(1)


def test_the_first_observation_fills_the_memory():
    windows = windows_of(episode())
    history = History(actor_of(windows).spec)
    rows = [{"agent_pos": np.full(2, i), "environment_state": np.full(1, i)} for i in range(3)]
    history.add(rows[0])
    assert history.stacked()["observation.state"][0, :, 0].tolist() == [0, 0]
    history.add(rows[1])
    history.add(rows[2])
    assert history.stacked()["observation.state"][0, :, 0].tolist() == [1, 2]
    with pytest.raises(CheckpointError, match="observes 'environment_state'"):
        history.add({"agent_pos": np.zeros(2)})


def test_the_files_are_lerobots_own(tmp_path):
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    windows = windows_of(episode(), episode(seed=1))
    actor = actor_of(windows)
    actor.save(tmp_path)
    theirs = DiffusionPolicy.from_pretrained(tmp_path).eval()
    before, after = make_pre_post_processors(theirs.config, pretrained_path=str(tmp_path))
    batch = windows.batch(np.array([2]))
    obs = {k: v for k, v in batch.items() if k.startswith("observation")}
    noise = torch.randn(1, *actor.noise_shape)
    ours = actor.plan(obs, noise)
    # LeRobot's own way through its queue: one observation after the other.
    for step in range(2):
        theirs._queues["action"].clear()
        seen = before({key: value[:, step] for key, value in obs.items()})
        action = after(theirs.select_action(seen, noise=noise.clone()))
    assert action.numpy()[0] == pytest.approx(ours[0, 0].clip(-2, 2), abs=1e-5)
    assert np.array_equal(load_actor(tmp_path).plan(obs, noise), ours)


def test_foreign_files_are_refused_with_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match=r"embodied_reward\.json"):
        load_actor(tmp_path)


@pytest.mark.slow
def test_cloning_learns_the_action_and_resumes_bit_by_bit(tmp_path):
    windows = windows_of(episode(), episode(seed=1))

    def fresh():
        torch.manual_seed(0)
        return Cloning(actor_of(windows), windows, steps=300, seed=0)

    whole = fresh()
    losses = [whole.step() for _ in range(300)]
    assert np.mean(losses[-30:]) < 0.8 * np.mean(losses[:30])
    half = fresh()
    for _ in range(150):
        half.step()
    half.actor.save(_folder(tmp_path / "pretrained_model"))
    half.save_state(tmp_path)
    torch.manual_seed(99)
    rest = fresh()
    rest.load_state(tmp_path)
    assert rest.done == 150
    assert [rest.step() for _ in range(150)] == losses[150:]
    pairs = zip(whole.actor.model.parameters(), rest.actor.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_nan_changes_no_parameter():
    windows = windows_of(episode())
    cloning = Cloning(actor_of(windows), windows, steps=10, seed=0)
    windows.columns["observation.state"][:] = float("nan")
    before = [p.clone() for p in cloning.actor.model.parameters()]
    with pytest.raises(NonFiniteError, match="at step 0"):
        cloning.step()
    assert all(
        torch.equal(a, b) for a, b in zip(before, cloning.actor.model.parameters(), strict=True)
    )


def test_one_seed_gives_one_episode_and_another_another():
    actor = actor_of(windows_of(episode()))
    obs = {"agent_pos": np.zeros(2, np.float32), "environment_state": np.zeros(1, np.float32)}

    def rollout(seed):
        actor.reset(seed)
        return np.concatenate([actor.predict(obs) for _ in range(5)])

    assert np.array_equal(rollout(1), rollout(1))
    assert not np.array_equal(rollout(1), rollout(2))


def test_denoising_has_the_gradient_of_its_plan():
    torch.manual_seed(0)
    actor = actor_of(windows_of(episode()))
    history = History(actor.spec)
    history.add({"agent_pos": np.zeros(2), "environment_state": np.zeros(1)})
    torch.manual_seed(0)
    obs, noise = history.stacked(), torch.randn((1, *actor.noise_shape))
    low, high = torch.tensor(actor.spec.low), torch.tensor(actor.spec.high)
    plan = actor.denoise(obs, noise).detach()
    assert np.allclose(plan.clamp(low, high).numpy(), actor.plan(obs, noise))

    # The scheduler clips what it predicts: a difference may straddle a kink, so many small ones.
    leaf, directions = noise.clone().requires_grad_(True), torch.randn((40, *noise.shape))
    slope = torch.autograd.grad(actor.denoise(obs, leaf).sum(), leaf)[0]
    with torch.no_grad():
        up, down = (
            torch.stack([actor.denoise(obs, noise + s * 3e-5 * d).sum() for d in directions])
            for s in (1, -1)
        )
    expected, found = (up - down) / 6e-5, (slope * directions).flatten(1).sum(dim=1)
    assert torch.corrcoef(torch.stack([expected, found]))[0, 1] > 0.99


def test_pictures_are_learned_and_acted_on():
    config = DiffusionConfig(
        horizon=4, n_action_steps=2, n_obs_steps=1, down_dims=(8, 8), views=("top",), batch_size=4,
        diffusion_step_embed_dim=8, num_train_timesteps=20, num_inference_steps=2,
    )  # fmt: skip
    windows = windows_of(episode(views=("top",)), config=config)
    assert "observation.environment_state" not in windows.columns
    torch.manual_seed(0)
    actor = actor_of(windows, config, sizes={"top": (64, 64)})
    assert np.isfinite(Cloning(actor, windows, steps=2, seed=0).step())
    obs = {"agent_pos": np.zeros(2, np.float32)}
    frames = np.random.default_rng(0).integers(0, 255, (2, 64, 64, 3), np.uint8)
    one, other = ({**obs, "pixels": {"top": frame}} for frame in frames)
    # One untrained action can stand at the end of the range for any picture.
    assert any(not np.array_equal(first(actor, one, n), first(actor, other, n)) for n in range(10))
    assert as_input(torch.tensor([255], dtype=torch.uint8)).item() == 1.0


def test_agents_see_every_camera_of_every_step():
    config = dataclasses.replace(SMALL, views=("top", "front"))
    windows = windows_of(episode(views=config.views), config=config)
    torch.manual_seed(0)
    actor = actor_of(windows, config, sizes=dict.fromkeys(config.views, (64, 64)))

    def seen(changed=None):
        frames = {(view, t): 100 for view in config.views for t in range(2)}
        frames |= {changed: 200} if changed else {}
        actor._history.clear()
        for t in range(2):
            pixels = {v: np.full((64, 64, 3), frames[v, t], np.uint8) for v in config.views}
            actor._history.add({"agent_pos": np.zeros(2, np.float32), "pixels": pixels})
        return actor._history.stacked()

    plain, noise = seen(), torch.randn(1, *actor.noise_shape)
    flat = torch.from_numpy(actor.flat(plain))[None]
    assert flat.shape == (1, actor.width)
    unit = torch.from_numpy(actor.plan(plain, noise)).flatten(1) / 2  # actions lie in [-2, 2]
    torch.testing.assert_close(actor.unit_plans(flat, noise), unit, atol=1e-5, rtol=0)
    for camera_and_step in itertools.product(config.views, range(2)):
        other = actor.flat(seen(camera_and_step))
        assert not np.array_equal(other, actor.flat(plain)), camera_and_step


def first(actor, obs, seed=0):
    actor.reset(seed)
    return actor.predict(obs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"horizon": 6}, "horizon must be a multiple of 4"),
        ({"n_action_steps": 8}, "n_action_steps=8 does not fit"),
        ({"num_inference_steps": 500}, "denoises more often"),
        ({"down_dims": (12,)}, "multiples of --policy.n_groups=8"),
        ({"weighting": "progres"}, "did you mean 'progress'"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        DiffusionConfig(**fields).check()


def test_the_step_size_rises_and_falls():
    sizes = [step_size(i, 100) for i in range(101)]
    assert sizes[0] < sizes[4] == max(sizes) == 1.0
    assert sizes[-1] == pytest.approx(0, abs=1e-9)


def _folder(path):
    path.mkdir(parents=True)
    return path
