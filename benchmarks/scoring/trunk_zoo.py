"""The same random-weight trunks, head and text tower for every side, fixed by a seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTModel

from embodied_reward.scoring import Head, Items, Output
from embodied_reward.scoring.trunks import EncoderTrunk
from embodied_reward.vision.encoders import ConvEncoder, Encoder, TransformersEncoder

BATCH = 64
"""Largest batch of every side that batches."""

TOKENS = 16


@dataclass(frozen=True)
class Shape:
    """What a trunk is and how many pictures make a measurement of a few tenths of a second."""

    about: str
    size: int
    dim: int
    pictures: int


SHAPES = {
    "conv64": Shape("our default encoder: 4 convolutions, 64 px", 64, 64, 256),
    "vit-tiny": Shape("ViT, 64 px, patch 8, width 64, 4 layers", 64, 64, 128),
    "vit-s14": Shape("ViT-S/14, 224 px, width 384, 12 layers", 224, 384, 3),
    "vit-b16": Shape("ViT-B/16, 224 px, width 768, 12 layers", 224, 768, 1),
}

# layers, heads, side of a patch [px]
VITS = {"vit-tiny": (4, 4, 8), "vit-s14": (12, 6, 14), "vit-b16": (12, 12, 16)}


def _encoder(name: str) -> Encoder:
    shape = SHAPES[name]
    if name == "conv64":
        return ConvEncoder("conv64", shape.dim)
    layers, heads, patch = VITS[name]
    config = ViTConfig(
        hidden_size=shape.dim,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * shape.dim,
        image_size=shape.size,
        patch_size=patch,
    )
    model = ViTModel(config, add_pooling_layer=False)
    mean, std = [0.5] * 3, [0.25] * 3
    return TransformersEncoder(model, mean=mean, std=std, image_size=shape.size)


class TextTower(nn.Module):
    """A transformer of two layers on 16 byte tokens.

    Per prompt it costs about a seventh of the tiny ViT's picture, the share that the text tower of
    CLIP-H/14 has: prompts must not decide the comparison by being too dear.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(self.embed(tokens)).mean(1)


def tokenize(texts: list[str] | tuple[str, ...]) -> Tensor:
    rows = [text.encode()[:TOKENS].ljust(TOKENS, b" ") for text in texts]
    return torch.from_numpy(np.frombuffer(b"".join(rows), np.uint8).reshape(-1, TOKENS).copy())


class BenchTrunk(EncoderTrunk):
    """An image encoder with a text tower beside it."""

    def __init__(
        self, encoder: Encoder, tower: TextTower, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__(encoder, dtype)
        self.tower = tower.eval()

    def encode_texts(self, texts: tuple[str, ...]) -> Tensor:
        return self.tower(tokenize(texts).long().to(self.device))


class BenchHead(Head):
    """Mean feature times a weight; with a text, plus the cosine of picture and text."""

    def __init__(self, dim: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(dim, generator=generator) / dim**0.5)

    def forward(self, items: Items) -> Output:
        features = items.mean_features()
        text = items.text_features
        chosen = None if text is None else text[torch.from_numpy(items.text).to(text.device)]
        return Output(score=self.score(features, chosen))

    def score(self, features: Tensor, text: Tensor | None = None) -> Tensor:
        score = features @ self.weight
        if text is not None:
            score = score + nn.functional.cosine_similarity(features, text, dim=1)
        return score


@dataclass(frozen=True)
class Model:
    """Trunk and heads; the plain functions that every comparator calls."""

    name: str
    trunk: BenchTrunk
    heads: tuple[BenchHead, ...]

    @property
    def size(self) -> int:
        return SHAPES[self.name].size

    @torch.inference_mode()
    def forward(self, inputs: Tensor, texts: list[str] | None = None, head: int = 0) -> Tensor:
        """Scores of preprocessed pictures on any device; every text given is encoded."""
        inputs = inputs.to(self.trunk.device)
        encoded = None if texts is None else self.trunk.encode_texts(tuple(texts))
        return self.heads[head].score(self.trunk.forward(inputs), encoded)


def build(name: str, device: str = "cpu", dtype: torch.dtype | None = None, seed: int = 0) -> Model:
    """Make the model; the same weights in every process."""
    torch.manual_seed(seed)
    dim = SHAPES[name].dim
    trunk = BenchTrunk(_encoder(name).to(device), TextTower(dim).to(device), dtype)
    for module in (trunk.encoder, trunk.tower):
        module.requires_grad_(False)
    return Model(name, trunk, tuple(BenchHead(dim, seed + k).to(device) for k in range(3)))
