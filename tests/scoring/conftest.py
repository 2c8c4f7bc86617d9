"""A tiny random ViT, heads that depend on everything they may depend on, pictures.

The engine's tests run on another device with SCORING_TEST_DEVICE=cuda, in fp32 and without graphs,
because their trunks look at the pictures; graphs and 16 bits are tested in `test_cuda.py`.
"""

import os

import numpy as np
import pytest
import torch
from torch import nn

from embodied_reward.scoring import Head, Output, Scorer, ScorerCard
from embodied_reward.scoring.scorer import digest_of, joint_digest
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import TransformersEncoder

SIZE = 32
DEVICE = os.environ.get("SCORING_TEST_DEVICE", "cpu")

if DEVICE != "cpu":
    torch.backends.cudnn.allow_tf32 = False  # the tolerances are those of fp32


class MeanHead(Head):
    """Mean feature of an item to a score; per frame too."""

    def __init__(self, dim=64, seed=0):
        super().__init__()
        self.linear = nn.Linear(dim, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.linear.weight.normal_(generator=generator)
            self.linear.bias.zero_()

    def forward(self, items):
        per_frame = self.linear(items.features).squeeze(-1)
        return Output(score=self.linear(items.mean_features()).squeeze(-1), per_frame=per_frame)


class ConstantHead(Head):
    """Says which version it is."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(float(value)))

    def forward(self, items):
        return Output(score=self.value.detach().expand(len(items)))


@pytest.fixture(scope="session")
def encoder():
    from transformers import ViTConfig, ViTModel

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=SIZE,
        patch_size=8,
    )
    model = ViTModel(config, add_pooling_layer=False)
    made = TransformersEncoder(model, mean=[0.5] * 3, std=[0.25] * 3, image_size=SIZE)
    return made.to(DEVICE)


@pytest.fixture(autouse=True, scope="session")
def _without_graphs():
    """`CountingTrunk` counts calls, which a graph does not make."""
    if DEVICE == "cpu":
        yield
        return
    from embodied_reward.scoring import ScoringCore

    defaults = ScoringCore.__init__.__kwdefaults__
    defaults["graphs"] = False
    yield
    defaults["graphs"] = True


class CountingTrunk(EncoderTrunk):
    """Counts the pictures that were really encoded; may fail on marked ones."""

    def __init__(self, encoder, hook=None):
        super().__init__(encoder, torch.float32)
        self.batches, self.hook = [], hook

    def forward(self, inputs):
        self.batches.append(len(inputs))
        if self.hook is not None:
            self.hook(inputs)
        return super().forward(inputs)


@pytest.fixture
def trunk(encoder):
    return CountingTrunk(encoder)


def scorer_of(trunk, head=None, name="mean"):
    head = (head or MeanHead()).to(trunk.device)
    digest = digest_of(head)
    card = ScorerCard(
        name=name,
        type="test",
        trunk_sha256=trunk.digest,
        head_sha256=digest,
        weights_sha256=joint_digest(trunk.digest, digest),
        preprocess=trunk.preprocess_id,
    )
    return Scorer(card, trunk, head)


@pytest.fixture
def scorer(trunk):
    return scorer_of(trunk)


def pictures(n, seed=0, size=SIZE):
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
