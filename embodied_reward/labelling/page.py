"""The page's own files: everything it shows or runs comes from here."""

import importlib.resources

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
FILES = ("page.html", "page.css", "main.js", "player.js", "clips.js", "layout.js")

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Content security policy: nothing from elsewhere, nothing inline, no frames around the page."""


def page_file(name: str) -> tuple[str, bytes] | None:
    """Return content type and bytes of one of `FILES`, or None for any other name."""
    if name not in FILES:
        return None
    folder = importlib.resources.files("embodied_reward.labelling") / "template"
    return TYPES[name.rsplit(".", 1)[1]], (folder / name).read_bytes()
