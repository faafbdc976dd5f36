"""The HTML page: the files of ``page/`` and the data of one report, in one file.

Everything that comes from results is data, in elements that no browser runs, and reaches the page
as text. A content security policy allows the one script by its hash, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from itertools import islice
from typing import Any

STYLE = "page.css"
SCRIPTS = ("data.js", "heat.js", "card.js", "gallery.js", "filters.js", "detail.js", "page.js")
"""In the order in which they stand in the page."""

PICTURES_PER_PIECE = 64
"""Pictures in one element: what the page decodes when the first of them is wanted."""

POLICY = (
    "default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:;"
    " base-uri 'none'; form-action 'none'; require-trusted-types-for 'script';"
    " trusted-types 'none'"
)


def page(
    title: str,
    facts: Mapping[str, Any],
    arrays: bytes,
    maps: bytes,
    pictures: Iterable[bytes],
) -> Iterator[bytes]:
    """Yield an HTML page, piece by piece.

    Args:
        title: of the page.
        facts: JSON-ready.
        arrays: see `block.Block`.
        maps: likewise.
        pictures: a JPEG of each image; no bytes where there is none.
    """
    style, script = _file(STYLE), "\n".join(map(_file, SCRIPTS))
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "title": lambda: iter([html.escape(title)]),
        "policy": lambda: iter([html.escape(policy)]),
        "style": lambda: iter([style]),
        "script": lambda: iter([script]),
        "facts": lambda: iter([_json(facts)]),
        "arrays": lambda: iter([_base64(arrays)]),
        "maps": lambda: iter([_base64(maps)]),
        "pictures": lambda: _pictures(pictures),
    }
    for place, text in enumerate(re.split(r"\{\{(\w+)\}\}", _file("page.html"))):
        for piece in parts[text]() if place % 2 else [text]:
            yield piece.encode("utf-8", "replace")


def _file(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + _base64(hashlib.sha256(text.encode()).digest())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _json(facts: Mapping[str, Any]) -> str:
    """Return JSON in which nothing can end the element that it is in."""
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _pictures(pictures: Iterable[bytes]) -> Iterator[str]:
    """Yield elements of pictures, one a line."""
    feed, number = iter(pictures), 0
    while piece := list(islice(feed, PICTURES_PER_PIECE)):
        lines = "\n".join(map(_base64, piece))
        yield f'<script type="text/plain" id="pictures-{number}">{lines}</script>\n'
        number += 1
