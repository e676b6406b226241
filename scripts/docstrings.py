"""Docstrings as the site shows them: what Sphinx's roles say becomes links of Markdown. A griffe extension."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(func|class|meth|mod|attr|exc|data):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites the docstrings of a package when it has been read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            text = ROLE.sub(_link, obj.docstring.value)
            # "Text: ::" and "text::" announce a block of code; Markdown sees it by its indentation.
            obj.docstring.value = re.sub(r"(?m)^(.*?)(\s?::|:)$", _announcement, text)


def _link(match: re.Match[str]) -> str:
    role, short, path = match.groups()
    name = path.rsplit(".", 1)[-1] if short else path
    # Modules have no entry of their own.
    return f"[`{name}`][{path}]" if path.startswith("batch_llm.") and role != "mod" else f"`{name}`"


def _announcement(match: re.Match[str]) -> str:
    text, mark = match.groups()
    if mark == ":":
        return match.group(0)
    return text if mark.startswith(" ") or not text else f"{text}:"
