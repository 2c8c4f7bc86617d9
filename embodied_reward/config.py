"""Command-line configuration in draccus vocabulary: `--group.field=value`, presets, YAML files.

Sources, later ones win: dataclass defaults, `--preset`, the run's own `config.yaml` when
resuming, `--config_path`, the command line. Decoding and encoding are draccus's; this module
adds the merge order and errors that name the nearest accepted key.
"""

import dataclasses
import importlib.resources
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.choice_types import ChoiceRegistryBase

from embodied_reward.errors import ConfigError, did_you_mean

_META_KEYS = ("config_path", "preset")


def parse[C](cls: type[C], argv: Sequence[str], *, verb: str) -> C:
    """Build `cls` from presets, files and command-line overrides.

    Args:
        cls: a dataclass with complete defaults.
        argv: tokens such as `--env.id=metaworld/drawer-open-v3`.
        verb: names the folder of presets, `configs/<verb>/<preset>.yaml`.

    Raises:
        ConfigError: unknown key (with the nearest known one), missing value, bad value.
    """
    pairs = list(_tokens(argv))
    given = {key: value for key, value in pairs if key in _META_KEYS}
    overrides: dict[str, Any] = {}
    for key, value in pairs:
        if key not in _META_KEYS:
            _assign(overrides, key, value)
    tree: dict[str, Any] = {}
    if "preset" in given:
        _merge(tree, load_preset(verb, given["preset"]))
    if "config_path" in given:
        _merge(tree, read_yaml(Path(given["config_path"])))
    elif overrides.get("resume") is True and overrides.get("output_dir"):
        _merge(tree, read_yaml(Path(overrides["output_dir"]) / "config.yaml"))
    _merge(tree, overrides)
    return decode(cls, tree)


def decode[C](cls: type[C], tree: dict[str, Any]) -> C:
    """Turn a nested dict into `cls`, refusing unknown keys. Raises ConfigError."""
    known = set(known_keys(cls, tree))
    for key in _leaves(tree):
        if not any(key == k or key.startswith(k + ".") for k in known):
            raise ConfigError(f"unknown configuration key '--{key}'; {did_you_mean(key, known)}")
    try:
        return draccus.decode(cls, _coerce(cls, tree))
    except draccus.ParsingError as error:
        raise ConfigError(f"bad configuration value: {_first_line(error)}") from error


def encode(config: Any) -> dict[str, Any]:
    """Turn a config dataclass into plain dicts, lists and scalars."""
    return draccus.encode(config)


def write_yaml(config: Any, path: Path) -> None:
    """Write the resolved config beside its run."""
    path.write_text(yaml.safe_dump(encode(config), sort_keys=False))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON mapping. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"no configuration file at '{path}'")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"'{path}' is not valid YAML: {_first_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"'{path}' must hold a mapping of keys, got {type(tree).__name__}")
    return tree


def load_preset(verb: str, name: str) -> dict[str, Any]:
    """Read `configs/<verb>/<name>.yaml`. Raises ConfigError with the known presets."""
    folder = importlib.resources.files("embodied_reward.configs") / verb.replace("-", "_")
    known = sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"no preset '{name}' for '{verb}'; {did_you_mean(name, known)}")
    return yaml.safe_load((folder / f"{name}.yaml").read_text()) or {}


def known_keys(cls: type, tree: Any = None, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key that `cls` accepts; `tree` tells which choice types are meant."""
    for field, kind in _fields(cls):
        key, sub = prefix + field.name, (tree or {}).get(field.name)
        nested = _dataclass_of(kind, sub if isinstance(sub, dict) else None, field)
        if nested is None:
            yield key
            continue
        if _is_choice(kind):
            yield key + ".type"
        yield from known_keys(nested, sub if isinstance(sub, dict) else None, key + ".")


def _fields(cls: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(cls)
    return [(f, hints[f.name]) for f in dataclasses.fields(cls) if f.init]


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, ChoiceRegistryBase)


def _dataclass_of(kind: Any, tree: dict | None, field: dataclasses.Field) -> type | None:
    kind = _strip_optional(kind)
    if _is_choice(kind):
        known = kind.get_known_choices()
        if tree and "type" in tree:
            if tree["type"] not in known:
                raise ConfigError(
                    f"unknown '--{field.name}.type={tree['type']}'; "
                    f"{did_you_mean(str(tree['type']), known)}"
                )
            return kind.get_choice_class(tree["type"])
        return type(field.default_factory()) if callable(field.default_factory) else kind
    return kind if dataclasses.is_dataclass(kind) else None  # type: ignore[return-value]


def _strip_optional(kind: Any) -> Any:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        rest = [a for a in typing.get_args(kind) if a is not type(None)]
        return rest[0] if len(rest) == 1 else kind
    return kind


def _coerce(cls: type, tree: dict[str, Any]) -> dict[str, Any]:
    """Split `a,b` for tuple fields and fill in the default choice type."""
    out = dict(tree)
    for field, kind in _fields(cls):
        if field.name not in out:
            continue
        value, plain = out[field.name], _strip_optional(kind)
        if isinstance(value, dict) and (sub := _dataclass_of(kind, value, field)):
            value = _coerce(sub, value)
            if _is_choice(plain) and "type" not in value:
                value = {"type": sub.get_choice_name(sub), **value}  # type: ignore[attr-defined]
            out[field.name] = value
        elif typing.get_origin(plain) in (tuple, list) and not isinstance(value, list | tuple):
            out[field.name] = [v for v in str(value).split(",") if v] if value is not None else None
    return out


def _tokens(argv: Sequence[str]) -> Iterator[tuple[str, Any]]:
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        if not token.startswith("--"):
            raise ConfigError(f"expected '--key=value', got '{token}'")
        key, equals, value = token[2:].partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"'{token}' has no value; write '{token}=VALUE'")
            value = rest.pop(0)
        yield key, value if key in _META_KEYS else _scalar(value)


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text) if text else None
    except yaml.YAMLError:
        return text


def _assign(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, leaf = dotted.split(".")
    for part in parents:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"'--{dotted}' sets a field of '{part}', which was given a value")
    tree[leaf] = value


def _merge(into: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            # Another choice type brings its own fields; those of the old type do not apply.
            if "type" in value and value["type"] != into[key].get("type", value["type"]):
                into[key] = {}
            _merge(into[key], value)
        else:
            into[key] = value


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
