"""Find a scorer by what a user types: a folder, a file, a hub id."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied_reward import config as configs
from embodied_reward.errors import CheckpointError, ConfigError
from embodied_reward.scoring.cosine import cosine_scorer
from embodied_reward.scoring.language.config import FILES, read_item_scorer
from embodied_reward.scoring.recipes import KEYS, read_recipe
from embodied_reward.scoring.registry import load_scorer, scorer_folder
from embodied_reward.scoring.scorer import ItemScorer, Scorer
from embodied_reward.scoring.transformers_trunk import load_trunk

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def open_scorer(source: Path | str, *, device: str = "cpu") -> Scorer | ItemScorer:
    """Read a scorer, ready for `ScoringCore.register`.

    Args:
        source: a run of `er train-scorer`, `er train-judge` or `er guard-scorer`; a YAML or JSON
            file of an engine or a recipe (`scoring.recipes`); a folder of `save_pretrained` or a
            hub id (`owner/name@revision`) of a CLIP-, SigLIP- or DINO-class model, which scores
            by cosine.
        device: torch device.

    Raises:
        CheckpointError, ConfigError: nothing there, or nothing that can score.
    """
    return _open(source, device, ())


def _open(source: Path | str, device: str, within: tuple[Path, ...]) -> Scorer | ItemScorer:
    """Open a scorer; `within` are the recipes that it is a part of."""
    path = Path(source)
    if path.suffix in FILES and path.is_file():
        tree = configs.read_yaml(path)
        return _recipe(tree, path, device, within) or read_item_scorer(path, device)
    if path.is_dir():
        return _open_folder(path, device, within)
    name = str(source)
    if not HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(
            f"no scorer at '{source}': give a folder, a YAML or JSON file of an engine, or a hub "
            "id such as openai/clip-vit-base-patch32@COMMIT"
        )
    repository, _, revision = name.partition("@")
    trunk = load_trunk(repository, revision=revision or None, device=device)
    return cosine_scorer(repository.rpartition("/")[2], trunk, extra={"trunk": name})


def kind_of(path: Path) -> str:
    """Return `type` of a folder's config.json; `transformers` for a plain pretrained model."""
    file = scorer_folder(path) / "config.json"
    try:
        tree = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"'{file}' is not readable JSON: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"'{file}' must hold a mapping of keys")
    return str(tree.get("type") or ("transformers" if "model_type" in tree else ""))


def _recipe(
    tree: Mapping[str, Any], file: Path, device: str, within: tuple[Path, ...]
) -> Scorer | None:
    if tree.get("type") not in KEYS:
        return None
    if file.resolve() in within:
        raise ConfigError(f"'{file}' is a part of itself; name another scorer there")
    chain = (*within, file.resolve())
    return read_recipe(tree, file, lambda part: _open(part, device, chain))


def _open_folder(path: Path, device: str, within: tuple[Path, ...]) -> Scorer | ItemScorer:
    kind = kind_of(path)
    if kind in KEYS:
        file = scorer_folder(path) / "config.json"
        return _recipe(configs.read_yaml(file), file, device, within)  # type: ignore[return-value]
    if kind != "transformers":
        return load_scorer(path, device=device)
    try:
        return cosine_scorer(path.resolve().name, load_trunk(path, device=device))
    except ConfigError as error:
        raise ConfigError(
            f"{error}. A vision-language model scores through a file such as `type: yes_token`, "
            f"`model: {path}`; docs/language_scorers.md says more"
        ) from error
