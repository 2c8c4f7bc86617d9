import json
import pickle

import numpy as np
import pytest
import torch
from stable_baselines3.common.logger import Logger

from embodied_reward.errors import CheckpointError
from embodied_reward.policies.checkpoint import Policy, load_policy, save_policy, spec_of
from embodied_reward.policies.ppo import ClonedPPO, build_ppo
from embodied_reward.policies.resume import load_training_state, save_training_state
from embodied_reward.policies.sac import DemoSAC, build_sac
from embodied_reward.shaping import mode_named
from embodied_reward.training.checkpoint import save_checkpoint


def relabel(base, phi, after, ended):
    return mode_named("oracle").total(base, phi, after, ended, 0.95)


@pytest.fixture
def build(make_learner, demos, small_sac, small_ppo):
    def make(kind, *, seed=0, cloning=True):
        if kind == "ppo":
            return build_ppo(small_ppo, make_learner(), demos=demos, seed=seed, cloning=cloning)
        config = small_sac()
        return build_sac(
            config, make_learner(), demos=demos, relabel=relabel, seed=seed, cloning=cloning
        )

    return make


@pytest.fixture
def saved(build, small_sac, small_ppo, reach, tmp_path):
    """A trained model, its spec, and the checkpoint folder it was written to."""

    def make(kind):
        model = build(kind)
        model.learn(64)
        env = reach()
        config = small_sac() if kind == "sac" else small_ppo
        spec = spec_of(config, (env.observation_space, env.action_space), {"env": {"id": "reach"}})

        def write(folder):
            save_policy(model, spec, folder)
            save_training_state(model, folder, {"note": [1.0, 2]})

        return model, spec, save_checkpoint(tmp_path / "checkpoints", 64, write)

    return make


def observations(reach, count=10):
    env = reach()
    return [env.reset(seed=i)[0] for i in range(count)]


def no_pickle(*args, **kwargs):
    raise AssertionError("a pickle was opened")


@pytest.mark.parametrize("kind", ["sac", "ppo"])
def test_a_loaded_policy_acts_identically_and_needs_no_pickle(kind, saved, reach, monkeypatch):
    model, spec, folder = saved(kind)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, no_pickle)
    monkeypatch.setattr(torch, "load", no_pickle)
    loaded, original = load_policy(folder), Policy(model.policy, spec)
    assert loaded.spec.config == spec.config
    for obs in observations(reach):
        action = loaded.predict(obs)
        np.testing.assert_array_equal(action, original.predict(obs))
        flat = np.concatenate([obs["agent_pos"], obs["environment_state"]])
        np.testing.assert_array_equal(action, loaded.predict(flat))
        assert action.dtype == np.float32
        assert reach().action_space.contains(action)


@pytest.mark.parametrize("where", [".", "../..", "pretrained_model"])
def test_runs_checkpoints_and_folders_are_all_accepted(where, saved, reach):
    _, _, folder = saved("sac")
    obs = observations(reach, 1)[0]
    expected = load_policy(folder).predict(obs)
    np.testing.assert_array_equal(load_policy((folder / where).resolve()).predict(obs), expected)


@pytest.mark.parametrize("kind", ["sac", "ppo"])
def test_the_zip_loads_in_stable_baselines3(kind, saved, reach):
    model, _, folder = saved(kind)
    again = {"sac": DemoSAC, "ppo": ClonedPPO}[kind].load(folder / "sb3_model.zip", device="cpu")
    for obs in observations(reach, 3):
        flat = np.concatenate([obs["agent_pos"], obs["environment_state"]])
        np.testing.assert_array_equal(
            again.predict(flat, deterministic=True)[0], model.predict(flat, deterministic=True)[0]
        )


def test_altered_and_missing_files_are_named(saved, tmp_path):
    _, _, folder = saved("sac")
    weights = folder / "pretrained_model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match="model.safetensors.*sha256"):
        load_policy(folder)
    with pytest.raises(CheckpointError, match="er train-policy"):
        load_policy(tmp_path / "nowhere")


def test_a_reward_checkpoint_is_not_a_policy(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"type": "dopamine"}))
    with pytest.raises(CheckpointError, match="does not describe a policy"):
        load_policy(tmp_path)


def test_weights_of_another_size_are_refused(saved):
    _, _, folder = saved("sac")
    config = folder / "pretrained_model" / "config.json"
    tree = json.loads(config.read_text())
    tree["policy"]["net_arch"] = [16, 16]
    config.write_text(json.dumps(tree))
    (folder / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="weights"):
        load_policy(folder)


def test_a_missing_observation_key_is_named(saved):
    _, _, folder = saved("sac")
    with pytest.raises(CheckpointError, match="environment_state"):
        load_policy(folder).predict({"agent_pos": np.zeros(2, np.float32)})


def train_on(model, updates):
    """Continue learning from the buffer alone: no environment takes part."""
    model.set_logger(Logger(None, []))
    for _ in range(updates):
        model.train(gradient_steps=2, batch_size=32)
    return [p.detach().clone() for p in model.policy.parameters()]


def test_a_restored_sac_continues_bit_by_bit(saved, build):
    model, _, folder = saved("sac")
    other = build("sac", seed=5, cloning=False)
    assert load_training_state(other, folder) == {"note": [1.0, 2]}
    assert other.num_timesteps == model.num_timesteps == 64
    assert list(other.ep_success_buffer) == list(model.ep_success_buffer)
    restored = train_on(other, 5)
    load_training_state(other, folder)  # brings the generators back for the second continuation
    expected = train_on(model, 5)
    assert all(torch.equal(a, b) for a, b in zip(restored, expected, strict=True))


def test_a_restored_ppo_has_parameters_optimiser_and_generators(saved, build):
    model, _, folder = saved("ppo")
    other = build("ppo", seed=5, cloning=False)
    load_training_state(other, folder)
    drawn = (torch.rand(3), np.random.random(3))  # noqa: NPY002
    load_training_state(other, folder)
    assert torch.equal(torch.rand(3), drawn[0])
    assert (np.random.random(3) == drawn[1]).all()  # noqa: NPY002
    states = [m.policy.optimizer.state_dict()["state"] for m in (model, other)]
    for index, entry in states[0].items():
        for key, value in entry.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][index][key]))
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.policy.parameters(), other.policy.parameters(), strict=True)
    )


def test_a_policy_without_training_state_cannot_be_resumed(saved, build):
    _, _, folder = saved("sac")
    (folder / "training_state" / "state.json").unlink()
    with pytest.raises(CheckpointError, match="training_state"):
        load_training_state(build("sac"), folder)
