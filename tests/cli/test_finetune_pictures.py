"""Fine-tuning a diffusion policy that looks through cameras, in a real simulator."""

import numpy as np
import pytest
import torch

from embodied_reward.cli import main
from embodied_reward.policies.checkpoint import load_policy
from embodied_reward.policies.diffusion.actor import DiffusionActor
from embodied_reward.policies.finetune.actor import SteeredActor
from tests.cli.test_train_diffusion import AGENT, ENV, TINY, TUNER, rows, train

VIEWS = "--policy.views=front"


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    root = tmp_path_factory.mktemp("demos") / "reach"
    argv = (ENV[0], ENV[2], "--episodes=1", "--size=64", "--views=front,side")
    assert main(["collect", *argv, f"--output_dir={root}"]) == 0
    return root


@pytest.fixture(scope="module")
def clone(demos, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "clone"
    argv = (*TINY, VIEWS, f"--dataset.root={demos}", "--steps=3", "--eval.freq=0")
    assert train(root, *argv) == 0
    return root


def finetuned(root, clone, method, *argv):
    base = ("--policy.type=diffusion", f"--policy.path={clone}", f"--finetune.type={method}")
    argv = (*argv, "--reward.mode=oracle", "--steps=8", "--eval.freq=0")
    assert train(root, *base, *argv) == 0
    return root


def stack(actor, seed):
    """Return observations of one stack: random pictures, a constant state."""
    rng = np.random.default_rng(seed)
    actor._history.clear()
    pixels = {view: rng.integers(0, 255, (64, 64, 3), np.uint8) for view in actor.spec.views}
    state = np.zeros(actor.spec.observation["agent_pos"], np.float32)
    actor._history.add({"agent_pos": state, "pixels": pixels})
    return actor._history.stacked()


def test_what_agents_see_is_what_conditions_the_plan(clone):
    actor = load_policy(clone)
    assert isinstance(actor, DiffusionActor)
    obs, noise = stack(actor, 0), torch.randn(1, *actor.noise_shape)
    flat = torch.from_numpy(actor.flat(obs))[None]
    assert flat.shape == (1, actor.width)
    assert not np.array_equal(actor.flat(obs), actor.flat(stack(actor, 1)))
    low, high = (torch.from_numpy(x) for x in (actor.spec.low, actor.spec.high))
    plan = torch.from_numpy(actor.plan(obs, noise))
    unit = (2 * (plan - low) / (high - low) - 1).flatten(1)
    torch.testing.assert_close(actor.unit_plans(flat, noise), unit, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "method",
    [
        "dsrl",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("dsrl_na", "residual", "best_of_n")),
    ],
)
def test_a_policy_that_sees_is_steered(clone, tmp_path, method, capsys):
    root = finetuned(tmp_path / "run", clone, method, *AGENT)
    assert any("episode/shaping" in key for r in rows(root) for key in r)
    policy = load_policy(root)
    assert isinstance(policy, SteeredActor)
    assert policy.steering.base.spec.views == ("front",)
    argv = [f"--policy.path={root}", "--episodes=1", "--videos=1"]
    assert main(["eval-policy", *argv, f"--output_dir={tmp_path / 'eval'}"]) == 0
    assert "TableReach-v0: " in capsys.readouterr().out


@pytest.mark.parametrize("method", ["dppo", pytest.param("rwr", marks=pytest.mark.slow)])
def test_of_a_policy_that_sees_the_denoiser_learns(clone, demos, tmp_path, method):
    anchor = (f"--dataset.root={demos}", "--finetune.demo_fraction=0.5")
    more = anchor if method == "rwr" else ()
    root = finetuned(tmp_path / "run", clone, method, *TUNER, *more)
    before, after = (load_policy(path).model.state_dict() for path in (clone, root))
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved
    assert all("unet" in key for key in moved)
    assert main(["train-policy", f"--output_dir={root}", "--resume=true", "--steps=12"]) == 0
    assert rows(root)[-1]["step"] == 12


def test_a_reward_model_with_its_own_camera_looks_beside_the_policy(clone, demos, tmp_path):
    reward = tmp_path / "reward"
    argv = (f"--dataset.root={demos}", "--reward_model.type=dopamine", "--reward_model.views=side")
    argv += ("--steps=1", "--val_fraction=0", "--threads=1")
    assert main(["train-reward", *argv, f"--output_dir={reward}"]) == 0
    base = ("--policy.type=diffusion", f"--policy.path={clone}", "--finetune.type=dsrl", *AGENT)
    argv = (f"--reward.path={reward}", "--reward.mode=potential", "--steps=8", "--eval.freq=0")
    assert train(tmp_path / "run", *base, *argv) == 0
    assert any("episode/shaping" in key for r in rows(tmp_path / "run") for key in r)
