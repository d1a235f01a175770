"""The page, put together from the files in `assets`. It loads nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

SCRIPTS = ("elements", "source", "chart", "overview", "tokens", "audit", "episode", "listing", "main")
"""In the order they are run; the last starts the page."""
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'"
"""What every page forbids, in the words of Content-Security-Policy."""


def script() -> str:
    """All scripts as one, whose names do not leave it."""
    return "(() => {\n" + "\n".join(_asset(f"{name}.js") for name in SCRIPTS) + "})();\n"


def style() -> str:
    """The style sheet."""
    return _asset("style.css")


def served_page() -> str:
    """The page that a server gives, with script and style beside it."""
    return _filled(
        style='<link rel="stylesheet" href="view.css">\n<link rel="icon" href="data:,">',
        script='<script src="view.js"></script>',
    )


def page_with(data: Any) -> str:
    """The page as one file with its data in it.

    A policy in it lets only its own script run, and nothing be fetched.

    Args:
        data: plain JSON, see `steppo_gym.view.export`.
    """
    code, looks = script(), style()
    policy = f"{POLICY}; img-src data:; script-src '{_hash(code)}'; style-src '{_hash(looks)}'"
    # As text of an element, "<" could end it.
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return _filled(
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        style=f'<style>{looks}</style>\n<link rel="icon" href="data:,">',
        data=f'<script type="application/json" id="embedded">{text}</script>',
        script=f"<script>{code}</script>",
    )


def _filled(*, style: str, script: str, policy: str = "", data: str = "") -> str:
    page = _asset("page.html")
    for name, text in (("policy", policy), ("style", style), ("data", data), ("script", script)):
        head, mark, tail = page.partition(f"<!-- {name} -->")
        assert mark, name
        page = head + text + tail
    return page


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _asset(name: str) -> str:
    return files("steppo_gym.view").joinpath("assets", name).read_text(encoding="utf-8")
