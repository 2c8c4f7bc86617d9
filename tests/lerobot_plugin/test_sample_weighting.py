"""`er label` feeds LeRobot's reward-aligned behaviour cloning, in LeRobot's own trainer."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.rewards.sarm.rabc import RABCWeights

from embodied_reward.cli import main
from embodied_reward.lerobot_plugin.configuration_er_act import ErActConfig
from embodied_reward.lerobot_plugin.configuration_er_diffusion import ErDiffusionConfig
from embodied_reward.lerobot_plugin.modeling_er_act import ErActPolicy
from embodied_reward.lerobot_plugin.modeling_er_diffusion import ErDiffusionPolicy
from tests.lerobot_plugin.conftest import TINY, lerobot, lerobot_train_here

CHUNK = 8


@pytest.fixture
def labelled(checkpoints, tmp_path):
    data = shutil.copytree(TINY, tmp_path / "data")
    arguments = [f"--dataset.root={data}", f"--reward_model.path={checkpoints['dopamine']}"]
    assert main(["label", *arguments]) == 0
    return data


def arguments(data, folder, policy="er_act"):
    small = {
        "er_act": [
            f"--policy.chunk_size={CHUNK}",
            f"--policy.n_action_steps={CHUNK}",
            "--policy.dim_model=32",
            "--policy.n_heads=2",
            "--policy.dim_feedforward=64",
            "--policy.n_encoder_layers=1",
            "--policy.use_vae=false",
            "--policy.pretrained_backbone_weights=null",
        ],
        "er_diffusion": [
            "--policy.down_dims=[16,32]",
            "--policy.n_groups=4",
            "--policy.crop_shape=[56,56]",
            "--policy.spatial_softmax_num_keypoints=4",
            "--policy.diffusion_step_embed_dim=16",
        ],
    }
    return [
        f"--policy.type={policy}",
        "--policy.discover_packages_path=embodied_reward.lerobot_plugin",
        *small.get(policy, []),
        "--policy.device=cpu",
        "--policy.push_to_hub=false",
        "--dataset.repo_id=local/tiny",
        f"--dataset.root={data}",
        "--sample_weighting.type=rabc",
        f"--sample_weighting.progress_path={data / 'er_progress.parquet'}",
        "--num_workers=0",
        "--batch_size=4",
        "--log_freq=1",
        "--steps=2",
        f"--output_dir={folder}",
    ]


def test_lerobot_trains_act_with_our_weights(labelled, tmp_path, monkeypatch, capfd):
    lerobot_train_here(monkeypatch, arguments(labelled, tmp_path / "run"))
    printed = "".join(capfd.readouterr())
    assert "sample_weight_mean_weight" in printed
    assert f"Loading SARM progress values from {labelled / 'er_progress.parquet'}" in printed
    assert (tmp_path / "run" / "checkpoints" / "last" / "pretrained_model").is_dir()


def test_the_weights_are_those_of_our_labels(labelled):
    """SARM (arXiv:2509.25358) eq. 8-9 on our progress: 1 above kappa, 0 where it falls."""
    table = pq.read_table(labelled / "er_progress.parquet")
    progress, episode = (
        table.column(name).to_numpy() for name in ("progress_sparse", "episode_index")
    )
    index = np.arange(len(progress))
    last = np.array([index[episode == e].max() for e in episode])
    delta = progress[np.minimum(index + CHUNK, last)] - progress
    kappa = float(np.median(delta[delta > 0]))
    file, device = labelled / "er_progress.parquet", torch.device("cpu")
    weigher = RABCWeights(file, chunk_size=CHUNK, kappa=kappa, device=device)
    weights, _ = weigher.compute_batch_weights({"index": torch.from_numpy(index)})
    weights = weights.numpy()
    assert (weights[delta < 0] == 0).all()
    rising = weights[delta > kappa]
    assert len(rising) > 5
    np.testing.assert_allclose(rising, weights.max())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["er_act", "er_diffusion"])
def test_the_command_trains_with_our_weights(labelled, tmp_path, policy):
    assert "sample_weight_mean_weight" in lerobot(
        "lerobot-train", *arguments(labelled, tmp_path / "run", policy)
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_lerobot_weighs_none_of_its_small_policies_yet(labelled, tmp_path, policy):
    """Why `er_act` is there; when this fails, LeRobot has caught up (docs/lerobot.md)."""
    with pytest.raises(AssertionError, match="'reduction'|'chunk_size'|diffusers"):
        lerobot("lerobot-train", *arguments(labelled, tmp_path / "run", policy=policy))


@pytest.mark.parametrize("use_vae", [False, True])
def test_the_mean_of_the_losses_per_sample_is_the_loss_of_act(use_vae):
    state = PolicyFeature(type=FeatureType.STATE, shape=(3,))
    config = ErActConfig(
        input_features={"observation.environment_state": replace(state, type=FeatureType.ENV)},
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(2,))},
        chunk_size=4,
        n_action_steps=4,
        dim_model=16,
        n_heads=2,
        dim_feedforward=16,
        n_encoder_layers=1,
        n_vae_encoder_layers=1,
        latent_dim=4,
        dropout=0.0,
        use_vae=use_vae,
        device="cpu",
    )
    torch.manual_seed(0)
    policy = ErActPolicy(config)
    batch = {
        "observation.environment_state": torch.randn(5, 3),
        "observation.state": torch.randn(5, 3),
        "action": torch.randn(5, 4, 2),
        "action_is_pad": torch.rand(5, 4) < 0.4,
    }
    torch.manual_seed(1)
    expected, logs = policy(batch)
    torch.manual_seed(1)
    losses, same = policy(batch, reduction="none")
    assert losses.shape == (5,)
    torch.testing.assert_close(losses.mean(), expected)
    assert same == pytest.approx(logs, rel=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_the_mean_of_the_losses_per_sample_is_the_loss_of_diffusion(masked):
    config = ErDiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(type=FeatureType.STATE, shape=(3,)),
            "observation.environment_state": PolicyFeature(type=FeatureType.ENV, shape=(2,)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(2,))},
        down_dims=(8, 16),
        n_groups=4,
        diffusion_step_embed_dim=8,
        horizon=16,
        n_action_steps=8,
        do_mask_loss_for_padding=masked,
        device="cpu",
    )
    assert config.chunk_size == 15
    torch.manual_seed(0)
    policy = ErDiffusionPolicy(config)
    batch = {
        "observation.state": torch.randn(5, 2, 3),
        "observation.environment_state": torch.randn(5, 2, 2),
        "action": torch.randn(5, 16, 2),
        "action_is_pad": torch.rand(5, 16) < 0.4,
    }
    torch.manual_seed(1)
    expected, _ = policy(batch)
    torch.manual_seed(1)
    losses, _ = policy(batch, reduction="none")
    assert losses.shape == (5,)
    torch.testing.assert_close(losses.mean(), expected)
