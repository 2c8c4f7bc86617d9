"""Training a reward model on a frozen encoder: every batch encoded anew, against once and kept.

    uv run python benchmarks/frozen_training.py [--steps=60] [--repeats=5] [--json=FILE]

A `dopamine` model on a random vision transformer (64 px, patch 8, 4 layers of width 64) learns from
24 noise episodes of 60 frames and two cameras, 4 episodes a batch. `direct` runs the encoder on
every batch; `cold` begins with an empty cache and pays for every picture once; `warm` is a second
run, or another method on the same encoder, whose features are all there. Sides alternate; medians
and ratios are printed. One thread. The gain grows with the size of the encoder: here it is tiny.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from pair_throughput import VIEWS, episode
from transformers import ViTConfig, ViTModel

from embodied_reward.rewards import DopamineConfig, DopamineModel
from embodied_reward.scoring import FeatureCache, ScoringCore
from embodied_reward.vision.encoders import TransformersEncoder

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}


def frozen_model() -> DopamineModel:
    torch.manual_seed(0)
    settings = ViTConfig(**SIZES, intermediate_size=128, image_size=64, patch_size=8)
    vit = ViTModel(settings, add_pooling_layer=False)
    encoder = TransformersEncoder(vit, mean=[0.5] * 3, std=[0.5] * 3, image_size=64)
    model = DopamineModel.create(DopamineConfig(views=VIEWS, dim=64))
    model.network.encoder = encoder
    return model


def train(model: DopamineModel, data: Any, steps: int, seed: int) -> float:
    """Return steps per second."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    model.train()
    began = time.perf_counter()
    for step in range(steps):
        optimizer.zero_grad()
        model.loss(data.batch(4, seed, step))[0].backward()
        optimizer.step()
    return steps / (time.perf_counter() - began)


def measure(steps: int, repeats: int) -> dict:
    torch.set_num_threads(1)
    model = frozen_model()
    data = model.dataset([episode(i) for i in range(24)])
    train(model, data, 2, 0)
    rates: dict[str, list[float]] = {"direct": [], "cold": [], "warm": []}
    encoded = 0.0
    for seed in range(repeats):
        model.use(None)
        rates["direct"].append(train(model, data, steps, seed))
        with ScoringCore(cache=FeatureCache()) as core:
            model.use(core)
            rates["cold"].append(train(model, data, steps, seed))
            encoded = core.stats()["trunk_images"]
            rates["warm"].append(train(model, data, steps, seed))
            assert core.stats()["trunk_images"] == encoded
    median = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[name], rates["direct"], strict=True))
        for name in ("cold", "warm")
    }
    return {
        "steps_per_second": median,
        "ratio_to_direct": ratios,
        "pictures_encoded_cold": encoded,
        "steps": steps,
        "repeats": repeats,
        "threads": 1,
        "torch": torch.__version__,
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = measure(options.steps, options.repeats)
    for side, rate in result["steps_per_second"].items():
        print(f"{side:>7}: {rate:8.2f} steps/s")
    for side, ratio in result["ratio_to_direct"].items():
        print(f"{side:>7} / direct: {ratio:5.2f}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
