"""Put a document into the page: one HTML file that needs nothing else.

Nothing in the page can load anything or run anything but the script that ships with this
package: the content security policy allows that script by its hash, and pictures as data URIs
only. Texts from datasets reach the page as JSON and enter it as text nodes.
"""

import base64
import hashlib
import importlib.resources
import json
import math
from collections.abc import Mapping
from typing import Any

SCRIPTS = ("dom.js", "charts.js", "episodes.js", "sections.js", "main.js")


def render(document: Mapping[str, Any]) -> str:
    """Return the HTML page of a document of plain JSON types; NaN becomes null."""
    style = _template("page.css")
    script = "(() => {\n'use strict';\n" + "\n".join(map(_template, SCRIPTS)) + "\n})();"
    parts = {
        "policy": _policy(style, script),
        "style": style,
        "script": script,
        "document": _json(document),
    }
    page = _template("page.html")
    # Split first: the document may contain anything, a placeholder included.
    pieces = [page]
    for name in parts:
        pieces = [q for p in pieces for q in _around(p, "{{" + name + "}}")]
    return "".join(parts[p[2:-2]] if p.startswith("{{") else p for p in pieces)


def finite(tree: Any) -> Any:
    """Replace NaN and infinities by None, which JSON can say."""
    if isinstance(tree, Mapping):
        return {str(key): finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _around(text: str, mark: str) -> list[str]:
    if text == mark or mark not in text:
        return [text]
    before, after = text.split(mark)
    return [before, mark, after]


def _json(document: Mapping[str, Any]) -> str:
    text = json.dumps(finite(document), allow_nan=False, separators=(",", ":"))
    # `<` could end the script element, the two separators are line ends in JavaScript.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _policy(style: str, script: str) -> str:
    rules = [
        "default-src 'none'",
        "img-src data:",
        f"style-src {_hash(style)}",
        f"script-src {_hash(script)}",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules)


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _template(name: str) -> str:
    folder = importlib.resources.files("embodied_reward.report") / "template"
    return (folder / name).read_text(encoding="utf-8").strip()
