"""Language scorers on disk: a folder with `config.json`, or one YAML or JSON file for an engine."""

from pathlib import Path
from typing import Any

from embodied_reward import config as configs
from embodied_reward.errors import CheckpointError, ConfigError, did_you_mean
from embodied_reward.scoring.language.base import LanguageConfig, LanguageScorer
from embodied_reward.scoring.language.likelihood import LikelihoodConfig, LikelihoodScorer
from embodied_reward.scoring.language.openai_engine import OpenAIConfig, OpenAIScorer
from embodied_reward.scoring.language.reader import load_reader
from embodied_reward.scoring.language.yes_token import YesTokenConfig, YesTokenScorer
from embodied_reward.scoring.scorer import ItemScorer

# type -> (config, scorer) of models that run in this process.
NATIVE: dict[str, tuple[type[LanguageConfig], type[LanguageScorer]]] = {
    "yes_token": (YesTokenConfig, YesTokenScorer),
    "likelihood": (LikelihoodConfig, LikelihoodScorer),
}
LANGUAGE_TYPES = (*NATIVE, "openai")
FILES = (".json", ".yaml", ".yml")


def read_item_scorer(path: Path | str, device: str = "cpu") -> ItemScorer:
    """Read a language scorer.

    Args:
        path: a folder with `config.json`, or a YAML or JSON file with the same keys.
        device: torch device of models that run in this process.

    Raises:
        ConfigError: no such file, unknown keys, values that cannot be used, a missing model.
        CheckpointError: the model has other weights than it was saved with.
    """
    path = Path(path)
    file = path if path.suffix in FILES else path / "config.json"
    name = file.parent.resolve().name if file.name == "config.json" else file.stem
    return from_config({"name": name, **configs.read_yaml(file)}, file.parent, device)


def from_config(tree: dict[str, Any], folder: Path, device: str = "cpu") -> ItemScorer:
    """Make a scorer of plain values.

    Args:
        tree: `type`, and the fields of its config.
        folder: what a relative `model` is relative to.
        device: torch device.
    """
    tree = dict(tree)
    kind, digest = tree.pop("type", None), tree.pop("model_sha256", "")
    if kind == "openai":
        return OpenAIScorer(configs.decode(OpenAIConfig, tree))
    if kind not in NATIVE:
        raise ConfigError(
            f"`type: {kind}` is no language scorer; {did_you_mean(str(kind), LANGUAGE_TYPES)}"
        )
    config_class, scorer_class = NATIVE[kind]
    config = configs.decode(config_class, tree)
    inside = folder / config.model
    model = inside if inside.is_dir() else config.model
    reader = load_reader(model, revision=config.revision, device=device)
    scorer = scorer_class(reader, config)
    if digest and digest != scorer.card.trunk_sha256:
        raise CheckpointError(
            f"the model in '{model}' has other weights, words or pixels than the scorer was saved "
            "with; save the scorer again, or remove `model_sha256` to accept that"
        )
    return scorer
