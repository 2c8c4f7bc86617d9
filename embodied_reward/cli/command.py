"""What every verb shares: parse its config, print its help, call its function."""

import dataclasses
import importlib.resources
import typing
from collections.abc import Callable, Iterator
from typing import Any

from draccus.wrappers.docstring import get_attribute_docstring

from embodied_reward import config as configs


def run_verb[C](
    verb: str,
    cls: type[C],
    run: Callable[[C], int | None],
    argv: list[str],
    about: str | None,
    defaults: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> int:
    """Parse `argv` into `cls` and call `run`; `--help` prints the fields instead."""
    if "-h" in argv or "--help" in argv:
        print(help_text(verb, cls, about or ""))
        return 0
    return run(configs.parse(cls, argv, verb=verb, defaults=defaults)) or 0


def help_text(verb: str, cls: type, about: str) -> str:
    """Return the help page of a verb: one line per field, with its default and comment."""
    presets = ", ".join(_presets(verb)) or "none"
    head = [about.strip(), "", f"usage: er {verb} [--group.field=value ...]", f"presets: {presets}"]
    rows = list(_rows(cls, cls()))
    width = min(max((len(left) for left, _ in rows), default=0), 56)
    return "\n".join([*head, "", *(f"  {left:<{width}}  {doc}".rstrip() for left, doc in rows)])


def _presets(verb: str) -> list[str]:
    folder = importlib.resources.files("embodied_reward.configs") / verb.replace("-", "_")
    if not folder.is_dir():
        return []
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".yaml"))


def _rows(cls: type, default: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        value = getattr(default, field.name)
        key = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            if hasattr(hints[field.name], "get_known_choices"):
                known = hints[field.name].get_known_choices()
                yield f"--{key}.type", "one of " + ", ".join(known)
            yield from _rows(type(value), value, key + ".")
            continue
        yield f"--{key}={_show(value)}", _comment(cls, field.name)


def _show(value: Any) -> str:
    if value is None:
        return ""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _comment(cls: type, name: str) -> str:
    doc = get_attribute_docstring(cls, name)
    return " ".join((doc.docstring_below or doc.comment_inline or doc.comment_above).split())
