"""``batch-llm mcp``: the tools of ``agents`` over stdin and stdout, by the Model Context Protocol."""

from __future__ import annotations

import asyncio
import functools
import importlib
from collections.abc import Callable
from typing import Any

import click

from ..artifacts import package_version
from . import agents

INSTRUCTIONS = """\
Answers many prompts with a language model, from a file into a file, with nothing lost or paid for twice.
First `estimate`, and ask before spending money; then `run`, which returns at once; then `wait` or `status`.
If items have failed, `failures` says why. After a fix, `requeue` them, or start the same `run` again."""


@click.command("mcp")
def mcp() -> None:
    """Serve tools for agents over stdin and stdout (Model Context Protocol).

    Needs pip install 'batch-llm[mcp]'. The tools start runs, watch them and change them, as the user who starts this.
    """
    try:
        server = _server()
    except ImportError as error:
        raise click.ClickException(f"install the MCP package first: pip install 'batch-llm[mcp]' ({error})") from error
    server.run("stdio")


def _server() -> Any:
    """Return the server.

    Raises:
        ImportError: If the package is missing, or too old.
    """
    # Not a module of this package, despite its name.
    names = ("server", "types", "server.mcpserver.exceptions")  # of version 2 and newer
    mcp_server, mcp_types, mcp_errors = (importlib.import_module(f"mcp.{name}") for name in names)
    server = mcp_server.MCPServer(
        "batch-llm", version=package_version(), instructions=INSTRUCTIONS, log_level="WARNING"
    )
    for tool in agents.TOOLS:
        hints = mcp_types.ToolAnnotations(read_only_hint=tool.__name__ in agents.READS)
        server.tool(description=tool.__doc__, annotations=hints)(_in_thread(tool, mcp_errors.ToolError))
    return server


def _in_thread(tool: Callable[..., dict[str, Any]], failure: type[Exception]) -> Callable[..., Any]:
    """Return a tool that leaves the loop of the server to others meanwhile, and raises ``failure`` if it fails."""

    @functools.wraps(tool)
    async def call(*arguments: Any, **named: Any) -> dict[str, Any]:
        try:
            return await asyncio.to_thread(tool, *arguments, **named)
        except agents.ToolError as error:
            raise failure(str(error)) from error

    return call
