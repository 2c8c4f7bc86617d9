import numpy as np
import pytest
import torch

from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.types import Episode
from embodied_reward.vision.encoders import EncoderConfig

VIEWS = ("front", "side")


def square_episode(index, *, success=True, length=30, back=False):
    """A square travels towards a line, seen from two sides; failures stop or turn back."""
    rng = np.random.default_rng(index)
    goal, row = int(rng.integers(18, 24)), int(rng.integers(2, 22))
    end = length - 4
    progress = np.minimum(np.arange(length) / end, 1.0)
    if not success:
        progress = 0.6 * np.minimum(progress * 1.5, 1.0)
    if back:
        progress = np.sin(np.linspace(0, np.pi, length)) * 0.8
    views = {view: np.full((length, 32, 32, 3), 40, np.uint8) for view in VIEWS}
    for t, at in enumerate((2 + progress * (goal - 2)).astype(int)):
        views["front"][t, row : row + 6, at : at + 6] = (250, 90, 0)
        views["front"][t, :, goal + 6 : goal + 8] = (0, 250, 0)
        views["side"][t, at : at + 6, row : row + 6] = (0, 180, 250)
    return Episode(
        views=views,
        action=np.zeros((length, 2), np.float32),
        fps=10.0,
        task="push the square to the line",
        index=index,
        source=f"squares#{index}",
        length=length,
        success=success and not back,
        success_frames=progress >= 1.0,
        progress=progress.astype(np.float32),
    )


def small_config(**fields):
    encoder = EncoderConfig(name="conv64", image_size=32)
    defaults = {
        "encoder": encoder,
        "dim": 32,
        "hidden": 64,
        "pairs": 120,
        "shift": 1,
        "jitter": 0.1,
    }
    return DopamineConfig(views=VIEWS, **{**defaults, **fields})


@pytest.fixture
def demos():
    return [square_episode(i) for i in range(6)]


@pytest.fixture(scope="session")
def trained():
    """A model after 90 steps on six squares, about ten seconds of one core."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DopamineModel.create(small_config(), task="squares")
    data = model.dataset([square_episode(i) for i in range(6)])
    model.set_references(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(90):
        optimizer.zero_grad()
        loss, _ = model.loss(data.batch(3, 0, step))
        loss.backward()
        optimizer.step()
    return model.eval()
