"""Command-line configuration in draccus vocabulary: `--group.field=value`, presets, YAML files.

Sources, later ones win: dataclass defaults, `--preset`, the run's own `config.yaml` when
resuming, `--config_path`, the command line. Decoding and encoding are draccus's; this module
adds the merge order and errors that name the nearest accepted key.
"""

import dataclasses
import importlib.resources
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import draccus
import yaml
from draccus.choice_types import ChoiceRegistryBase

from embodied_reward.errors import ConfigError, did_you_mean

_META_KEYS = ("config_path", "preset")
_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)*")


def parse[C](
    cls: type[C],
    argv: Sequence[str],
    *,
    verb: str,
    defaults: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> C:
    """Build `cls` from presets, files and command-line overrides.

    Args:
        cls: a dataclass with complete defaults.
        argv: tokens such as `--env.id=metaworld/drawer-open-v3`.
        verb: names the folder of presets, `configs/<verb>/<preset>.yaml`.
        defaults: gets everything that was given and returns what stands beneath it, for
            settings that follow from others (those of a model that is loaded).

    Raises:
        ConfigError: unknown key (with the nearest known one), missing value, bad value.
    """
    pairs = list(_tokens(argv))
    given = {key: text for key, text in pairs if key in _META_KEYS}
    words = {key: text for key, text in pairs if key not in _META_KEYS}
    overrides: dict[str, Any] = {}
    for key, text in words.items():
        _assign(overrides, key, _scalar(text))
    tree: dict[str, Any] = {}
    if "preset" in given:
        _merge(tree, load_preset(verb, given["preset"]))
    if "config_path" in given:
        _merge(tree, read_yaml(Path(given["config_path"])))
    elif overrides.get("resume") is True and overrides.get("output_dir"):
        _merge(tree, read_yaml(Path(overrides["output_dir"]) / "config.yaml"))
    _merge(tree, overrides)
    if defaults is not None:
        tree = _beneath(defaults(tree), tree)
    _keep_words(cls, tree, words)
    return decode(cls, tree)


def decode[C](cls: type[C], tree: dict[str, Any]) -> C:
    """Turn a nested dict into `cls`, refusing unknown keys. Raises ConfigError."""
    known = dict(_known(cls, tree))
    open_ended = tuple(f"{key}." for key, kind in known.items() if _is_mapping(kind))
    for key in _leaves(tree):
        if key not in known and not key.startswith(open_ended):
            raise ConfigError(f"unknown configuration key '--{key}'; {did_you_mean(key, known)}")
    try:
        return draccus.decode(cls, _coerce(cls, tree))
    except draccus.ParsingError as error:
        raise ConfigError(f"bad configuration value: {_one_line(error)}") from error


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
        raise ConfigError(f"'{path}' is not valid YAML: {_one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"'{path}' must hold a mapping of keys, got {type(tree).__name__}")
    return tree


def load_preset(verb: str, name: str) -> dict[str, Any]:
    """Read `configs/<verb>/<name>.yaml`. Raises ConfigError with the known presets."""
    folder = importlib.resources.files("embodied_reward.configs") / verb.replace("-", "_")
    files = folder.iterdir() if folder.is_dir() else ()
    known = sorted(f.name[:-5] for f in files if f.name.endswith(".yaml"))
    if name not in known:
        raise ConfigError(f"no preset '{name}' for '{verb}'; {did_you_mean(name, known)}")
    return yaml.safe_load((folder / f"{name}.yaml").read_text()) or {}


def known_keys(cls: type, tree: Any = None, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key that `cls` accepts; `tree` tells which choice types are meant."""
    yield from (key for key, _ in _known(cls, tree, prefix))


def _known(cls: type, tree: Any = None, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every dotted key with the type of its field."""
    for field, kind in _fields(cls):
        key, sub = prefix + field.name, (tree or {}).get(field.name)
        sub = sub if isinstance(sub, dict) else None
        nested = _dataclass_of(kind, sub, prefix + field.name, field)
        if nested is None:
            yield key, kind
            continue
        if _strip_optional(kind) is not kind:
            yield key, type(None)  # the whole group may be left out
        if _is_choice(_strip_optional(kind)):
            yield key + ".type", str
        yield from _known(nested, sub, key + ".")


def _fields(cls: type) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(cls)
    return [(f, hints[f.name]) for f in dataclasses.fields(cls) if f.init]


def _is_choice(kind: Any) -> bool:
    """Return whether a field leaves the choice open; one registered choice is a plain dataclass."""
    if not (isinstance(kind, type) and issubclass(kind, ChoiceRegistryBase)):
        return False
    return not issubclass(kind, tuple(kind.get_known_choices().values()))


def _is_mapping(kind: Any) -> bool:
    return (typing.get_origin(kind) or _strip_optional(kind)) in (dict, Mapping, Any)


def _dataclass_of(kind: Any, tree: dict | None, key: str, field: dataclasses.Field) -> type | None:
    kind = _strip_optional(kind)
    if _is_choice(kind):
        known = kind.get_known_choices()
        if tree and "type" in tree:
            if tree["type"] not in known:
                raise ConfigError(
                    f"unknown '--{key}.type={tree['type']}'; "
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


def _coerce(cls: type, tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Split `a,b` for tuple fields, fill in the default choice type, refuse missing values."""
    out = dict(tree)
    for field, kind in _fields(cls):
        if field.name not in out:
            continue
        key, value, plain = prefix + field.name, out[field.name], _strip_optional(kind)
        if isinstance(value, dict) and (sub := _dataclass_of(kind, value, key, field)):
            out[field.name] = _coerce(sub, _with_type(value, plain, sub), key + ".")
        elif typing.get_origin(plain) in (tuple, list):
            out[field.name] = _split(value, optional=plain is not kind)
        elif value is None and plain is kind and kind is not Any:
            raise ConfigError(f"'--{key}' needs a value of type {_name(kind)}, got nothing")
    return out


def _with_type(value: dict[str, Any], kind: Any, sub: Any) -> dict[str, Any]:
    if _is_choice(kind) and "type" not in value:
        return {"type": sub.get_choice_name(sub), **value}
    return value


def _split(value: Any, *, optional: bool) -> Any:
    """Turn `a,b` into ["a", "b"], and nothing into no items (or None where that is allowed)."""
    if value is None:
        return None if optional else []
    return value if isinstance(value, list | tuple) else [v for v in str(value).split(",") if v]


def _name(kind: Any) -> str:
    return getattr(kind, "__name__", str(kind))


def _keep_words(cls: type, tree: dict[str, Any], words: dict[str, str]) -> None:
    """Undo YAML's reading of words typed for text: `--job_name=no` is "no", not False."""
    for key, kind in _known(cls, tree):
        text = words.get(key)
        plain = _strip_optional(kind)
        if text is None or (plain is not kind and _scalar(text) is None):
            continue
        texts = typing.get_origin(plain) in (tuple, list) and typing.get_args(plain)[:1] == (str,)
        if plain is str or (texts and text and not text.startswith("[")):
            _assign(tree, key, text)


def _tokens(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = list(argv)
    while rest:
        token = rest.pop(0)
        key, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--") or not _KEY.fullmatch(key):
            raise ConfigError(f"expected '--key=value', got '{token}'")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"'{token}' has no value; write '{token}=VALUE'")
            value = rest.pop(0)
        yield key, value


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


def _beneath(lower: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    _merge(lower, upper)
    return lower


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
