import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from embodied_reward.data import open_dataset
from embodied_reward.rewards import (
    DopamineConfig,
    RemainingTimeConfig,
    SuccessConfig,
    TccConfig,
    registry,
)
from embodied_reward.vision.encoders import EncoderConfig

TINY = Path(__file__).parents[2] / "datasets" / "window_open_tiny"  # `er collect` wrote it
SIZE = 32
KINDS = {
    "dopamine": DopamineConfig,
    "remaining_time": RemainingTimeConfig,
    "success": SuccessConfig,
    "tcc": TccConfig,
}


def lerobot(script, *arguments):
    """Run one of LeRobot's commands in a process of its own; returns everything it printed."""
    ran = subprocess.run(
        [str(Path(sys.executable).parent / script), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:]
    return ran.stdout


def reward_arguments(method, folder, *more, steps=3):
    return [
        f"--reward_model.type=er_{method}",
        "--reward_model.discover_packages_path=embodied_reward.lerobot_plugin",
        "--reward_model.device=cpu",
        f"--reward_model.config.encoder.image_size={SIZE}",
        "--reward_model.config.dim=32",
        "--dataset.repo_id=local/tiny",
        f"--dataset.root={TINY}",
        "--num_workers=0",
        "--batch_size=6",
        "--log_freq=1",
        f"--steps={steps}",
        f"--output_dir={folder}",
        *more,
    ]


def train_reward(method, folder, *more, steps=3):
    return lerobot("lerobot-train", *reward_arguments(method, folder, *more, steps=steps))


def lerobot_train_here(monkeypatch, arguments):
    """What `lerobot-train` runs, in this process, because importing torch takes long."""
    from lerobot.scripts.lerobot_train import main

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(sys, "argv", ["lerobot-train", *arguments])
    main()


def train_reward_here(monkeypatch, method, folder, *more, steps=3):
    lerobot_train_here(monkeypatch, reward_arguments(method, folder, *more, steps=steps))


def trained(method, steps=8):
    """Train with our own loop on the tiny data set."""
    torch.manual_seed(0)
    episodes = list(open_dataset(TINY))
    views = ("corner2", "gripperPOV")
    config = KINDS[method](views=views, encoder=EncoderConfig(image_size=SIZE), dim=32)
    model = registry()[method].create(config, task="slide the window open")
    data = model.dataset(episodes)
    model.set_references(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss, _ = model.train().loss(data.batch(2, 0, step))
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Checkpoints as `er train-reward` writes them, method -> folder; read only."""
    root = tmp_path_factory.mktemp("checkpoints")
    for method in KINDS:
        trained(method).save(root / method)
    return {method: root / method for method in KINDS}
