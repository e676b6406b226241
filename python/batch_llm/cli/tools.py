"""The functions that ``--tools`` names. Used by ``run``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from ..conversations import USUAL_ROUNDS
from ..tools import Tool


def tools_of(names: Sequence[str], rounds: int | None) -> dict[str, Any]:
    """The options of a strategy for these tools, each ``module:function``.

    Raises:
        click.UsageError: If there is no such module or function, or it cannot be a tool; the message says which.
    """
    if not names:
        if rounds is not None:
            raise click.UsageError("--rounds needs --tools: without tools, each row is one request")
        return {}
    return {"tools": [_tool(name) for name in names], "rounds": rounds or USUAL_ROUNDS}


def _tool(name: str) -> Tool:
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise click.UsageError(f"--tools {name}: write module:function, such as lookup:order_status")
    module = _module(place, name)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise click.UsageError(f"--tools {name}: {place} has no {attribute!r}") from None
    try:
        return Tool.of(found)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--tools {name}: {error}") from error


def _module(place: str, name: str) -> ModuleType:
    try:
        if not place.endswith(".py"):
            # As Python does for a script of its own.
            if "" not in sys.path:
                sys.path.insert(0, "")
            return importlib.import_module(place)
        spec = importlib.util.spec_from_file_location(Path(place).stem, place)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise click.UsageError(f"--tools {name}: there is no file {error.filename or place}") from error
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"--tools {name}: {error}; run the command in the folder of the module, or install what is missing"
        ) from error
    except Exception as error:
        raise click.UsageError(f"--tools {name}: importing it failed: {type(error).__name__}: {error}") from error
    return module
