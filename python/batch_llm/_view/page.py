"""The page: one HTML text that needs no other file and sends no request, except to the command that serves it.

The scripts and styles are files of this package, in ``page/``; browsers run only them, by their digests. All that comes
from prompts, answers and errors is data of the script, which puts it into the page as text. Used by ``server`` and
``BatchResult``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
import json
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from .._files import replaced
from .index import SHOWN, Index
from .items import FAILED, details, state_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from .items import Items

MOST_ITEMS = 200_000
"""Items of a page that is a file."""
MOST_CHARACTERS = 64_000_000
"""Characters of the items of such a page; browsers take seconds to open more."""
LONGEST_TEXT = 20_000
"""Characters of each text in such a page."""

_LIBRARIES = ("preact-htm.js", "uplot.js")
_SCRIPTS = ("base.js", "list.js", "item.js", "charts.js", "panels.js", "compare.js", "main.js")
_STYLES = ("uplot.css", "style.css")
_SELF, _NONE = "'self'", "'none'"
_FEATURES = ("waited", "input", "kind", "run")
"""What is needed of each item to filter and sort, besides what is shown."""


def _file(name: str) -> str:
    return resources.files("batch_llm._view").joinpath("page").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _scripts() -> tuple[str, ...]:
    own = "\n".join(_file(name) for name in _SCRIPTS)
    return (*(_file(name).strip() for name in _LIBRARIES), f'(() => {{\n"use strict"\n{own}\n}})()')


@functools.cache
def _style() -> str:
    return "\n".join(_file(name) for name in _STYLES)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


@functools.cache
def policy(*, is_served: bool) -> str:
    """Return the page's Content-Security-Policy: our scripts and styles, and nothing else."""
    return (
        f"default-src 'none'; script-src {' '.join(map(_digest, _scripts()))}; style-src {_digest(_style())}; "
        f"img-src data:; connect-src {_SELF if is_served else _NONE}; "
        "base-uri 'none'; form-action 'none'"
    )


def page(title: str, *, data: str | None = None, fallback: str = "") -> Iterator[str]:
    """Iterate over the parts of the page.

    Args:
        title: Its title.
        data: What it shows, as JSON; None: it asks its server.
        fallback: HTML for readers without scripts.
    """
    yield (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy(is_served=data is None)}">'
        f'<title>{escape(title)}</title><link rel="icon" href="data:,"><style>{_style()}</style></head><body>'
        f'<div id="app"><noscript><h1>{escape(title)}</h1><p>To search and sort, allow scripts.</p>{fallback}'
        "</noscript></div>"
    )
    if data is not None:
        yield '<script type="application/json" id="data">'
        yield data
        yield "</script>"
    for script in _scripts():
        yield f"<script>{script}</script>"
    yield "</body></html>"


def write(items: Items, path: str | os.PathLike[str], mode: int | None = None) -> None:
    """Write a page with the items in it.

    Args:
        items: The items.
        path: Where it is written, atomically.
        mode: Permissions of a new file; None: what the umask leaves.

    Raises:
        ArtifactError: If the items are in a store that cannot be read.
        OSError: If the file cannot be written.
    """
    index = Index(items)
    try:
        index.read()
        about = items.about()
        data = _embedded(index)
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in about.get("summary", ())
        )
        with replaced(path, mode) as file:
            for part in page(about["name"], data=data, fallback=f"<table>{rows}</table>"):
                file.write(part)
    finally:
        index.close()


def _embedded(index: Index) -> str:
    """What is in a page that is a file, as JSON: failed items first, as far as there is room."""
    overview = index.overview()
    chosen: list[int] = []
    shown: list[str] = []
    for place, text in itertools.islice(_texts(index, has_failed=overview["figures"]["failed"] > 0), MOST_ITEMS):
        chosen.append(place)
        shown.append(text)
    rows = index.features(sorted(chosen), (*SHOWN, *_FEATURES))
    overview["about"] = {**overview["about"], "left_out": index.count - len(chosen)}
    parts = (_text_of(overview), _text_of({"columns": (*SHOWN, *_FEATURES), "total": len(rows), "rows": rows}))
    return f'{{"overview":{parts[0]},"rows":{parts[1]},"items":[{",".join(shown)}]}}'


def _texts(index: Index, *, has_failed: bool) -> Iterator[tuple[int, str]]:
    """Iterate over places and JSON of items, failed ones first, until there are enough characters."""
    left = MOST_CHARACTERS
    for wanted in (True, False) if has_failed else (False,):
        for item in itertools.chain.from_iterable(index.items.pages(None)):
            if (state_of(item.result) == FAILED) is wanted:
                text = _text_of(details(item, index.pricing, LONGEST_TEXT))
                left -= len(text)
                if left < 0:
                    return
                yield item.place, text


def _text_of(value: Any) -> str:
    """JSON that can stand in a page: nothing in it ends or begins a tag or a comment."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


__all__ = ["page", "policy", "write"]
