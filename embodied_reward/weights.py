"""`config.json` + `model.safetensors`, tied together by a digest."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from embodied_reward.errors import CheckpointError
from embodied_reward.files import replacing, sha256


def save(model: nn.Module, tree: dict[str, Any], folder: Path) -> None:
    """Write weights, then the config that names their sha256; both atomically."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with replacing(folder / "model.safetensors") as temporary:
        save_file(state, temporary)
    tree = {**tree, "weights_sha256": sha256(folder / "model.safetensors")}
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(tree, indent=2))


def load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Return config tree, tensors and digest.

    Raises:
        CheckpointError: a file is missing, damaged, or does not match the config's digest.
    """
    tree = json.loads((folder / "config.json").read_text())
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"'{file}' is missing; copy the whole folder of the checkpoint")
    digest = sha256(file)
    if digest != tree.get("weights_sha256"):
        raise CheckpointError(
            f"'{file}' has sha256 {digest[:12]}..., its config.json expects "
            f"{str(tree.get('weights_sha256'))[:12]}...: the weights were altered or belong to "
            "another model; restore the file or train again"
        )
    try:
        return tree, load_file(file), digest
    except SafetensorError as error:
        raise CheckpointError(f"'{file}' is not a readable safetensors file: {error}") from error


def find(path: Path, what: str, writer: str) -> Path:
    """Find the `pretrained_model` folder: best checkpoint of a run, else its last, else `path`.

    Args:
        path: a run, a checkpoint, or the folder itself.
        what: names what is looked for.
        writer: command that makes it.

    Raises:
        CheckpointError: there is none.
    """
    candidates = [
        path / "checkpoints" / "best" / "pretrained_model",
        path / "checkpoints" / "last" / "pretrained_model",
        path / "pretrained_model",
        path,
    ]
    for candidate in candidates:
        if (candidate / "config.json").is_file():
            return candidate
    raise CheckpointError(
        f"no {what} at '{path}': expected config.json and model.safetensors there or in "
        f"checkpoints/best/pretrained_model below it; `{writer}` writes such a folder"
    )
