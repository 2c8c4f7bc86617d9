"""From demonstrations to the learned potential of every state, by the public verbs."""

import json
from pathlib import Path

import numpy as np

from embodied_reward.cli.resumable import run_to_end
from embodied_reward.files import replacing
from embodied_reward.types import Float64

# Demonstrations move by a quarter of a cell, so that neighbouring frames differ little. The time
# is enough for one attempt: those that fail are repeated, as people keep their good takes.
_LEAD_IN, _HORIZON = 8, 55


def learned_potential(folder: Path, *, seed: int, demos: int, steps: int) -> Float64:
    """Collect, train and read Phi of every state, Float64[31]; what is on disk is kept.

    Args:
        folder: holds `demos/`, `reward/` and, in the end, `potential.json`.
        seed: of demonstrations and reward model.
        demos: number of demonstrations.
        steps: gradient steps of the reward model.

    Raises:
        EmbodiedRewardError: one of the verbs failed.
    """
    path = folder / "potential.json"
    if not path.is_file():
        _collect(folder / "demos", seed, demos)
        _train(folder / "reward", folder / "demos", seed, steps)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(_read(folder / "reward").tolist()))
    return np.array(json.loads(path.read_text()))


def _collect(root: Path, seed: int, demos: int) -> None:
    if not (root / "meta" / "info.json").is_file():
        arguments = ["--env.id=trap/insert", f"--env.horizon={_HORIZON}", f"--lead_in={_LEAD_IN}"]
        run_to_end("collect", [*arguments, f"--episodes={demos}", f"--seed={seed}"], root)


def _train(run: Path, demos: Path, seed: int, steps: int) -> None:
    # `backward` reads progress off the present picture against the stored goals alone, so that
    # Phi is a function of the state, whatever the episode's first frame was.
    model = ["--reward_model.type=dopamine", "--reward_model.inference=backward"]
    length = [f"--steps={steps}", f"--val_freq={min(50, steps)}", f"--save_freq={steps}"]
    run_to_end("train-reward", [f"--dataset.root={demos}", *model, *length, f"--seed={seed}"], run)


def _read(run: Path) -> Float64:
    from embodied_reward.cli.cache_config import CacheConfig
    from embodied_reward.cli.trap.lattice import read_potential
    from embodied_reward.rewards import load
    from embodied_reward.scoring.stream import StreamScorer

    model = load(run)
    with CacheConfig().shared_by(model, batch=len(model.card.views)):
        return read_potential(StreamScorer(model, 1))
