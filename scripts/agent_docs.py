"""Write what agents read: ``docs/llms.txt`` and ``docs/skills/batch-llm/SKILL.md``. ``make format`` calls it.

The sources are those that people have: the navigation and the first lines of the pages, the help of the commands, and
the docstrings of the tools. ``python scripts/agent_docs.py --check`` only says whether the files are up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from batch_llm.cli import agents
from batch_llm.cli.main import main
from batch_llm.cli.mcp import INSTRUCTIONS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MORE = "More"
"""The heading of pages that have none."""
CODES = re.compile(r"^\| exit code.*?(?:\n\n|\Z)", re.MULTILINE | re.DOTALL)


def pages() -> Iterator[tuple[str, str, str]]:
    """The pages of the navigation: heading, title, file."""
    heading = MORE
    for line in (ROOT / "zensical.toml").read_text(encoding="utf-8").splitlines():
        if (section := re.fullmatch(r'    \{ "(.+)" = \[', line)) is not None:
            heading = section[1]
        elif (page := re.fullmatch(r'\s+\{ "(.+)" = "(.+\.md)" \},', line)) is not None:
            yield heading if line.startswith("        ") else MORE, page[1], page[2]


def first_sentence(file: str) -> str:
    """What a page begins with."""
    if file.startswith("reference/") or file == "index.md" or not (DOCS / file).exists():
        return ""
    text = re.sub(r"```.*?```", "", (DOCS / file).read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = [part.replace("\n", " ").strip() for part in text.split("\n\n")]
    plain = [part for part in paragraphs if part and part[0].isalnum()]
    sentence = re.split(r"(?<=[.:])\s", plain[0])[0] if plain else ""
    return re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", sentence).rstrip(":")


def llms() -> str:
    """The index of the documents, as https://llmstxt.org has it."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    slogan = re.search(r"\*\*(.+?)\*\*", readme)
    lines = ["# batch-llm", "", f"> {slogan[1] if slogan else ''}", ""]
    lines += ["Agents: read the skill first, skills/batch-llm/SKILL.md, or use `batch-llm mcp`.", ""]
    before = ""
    for heading, title, file in sorted(pages(), key=lambda page: page[0] == MORE):
        if heading != before:
            lines += [f"## {heading}", ""] if not before else ["", f"## {heading}", ""]
            before = heading
        about = first_sentence(file)
        lines.append(f"- [{title}]({file}){f': {about}' if about else ''}")
    return "\n".join(lines) + "\n"


def commands() -> Iterator[str]:
    """A line for each command: how it is called, and the first sentence of its help."""
    context = click.Context(main, info_name="batch-llm")
    for name in main.list_commands(context):
        command: Any = main.get_command(context, name)
        own = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(own)[1:])
        yield f"| `batch-llm {name} {usage}`".rstrip("` ") + f"` | {command.get_short_help_str(200)} |"


def tools() -> Iterator[str]:
    """A line for each tool."""
    for tool in agents.TOOLS:
        arguments = ", ".join(inspect.signature(tool).parameters)
        text = " ".join(inspect.cleandoc(tool.__doc__ or "").split("\n\n")[0].split())
        yield f"| `{tool.__name__}({arguments})` | {text} |"


def skill() -> str:
    """The skill: when to use the package, the commands, the tools, the exit codes."""
    codes = [CODES.search((DOCS / page).read_text(encoding="utf-8")) for page in ("cli.md", "control.md")]
    run_codes, control_codes = ("" if found is None else found[0].strip() for found in codes)
    plain = re.compile(r"\[([^]]+)\]\([^)]+\)")
    return "\n".join([
        "---",
        "name: batch-llm",
        "description: Answer many prompts with a language model, from a file into a file; watch, steer, resume and "
        "debug such runs. Use for batch jobs over rows, documents or prompts, and for runs that are slow, failing or "
        "too expensive.",
        "---",
        "",
        "# batch-llm",
        "",
        *INSTRUCTIONS.splitlines(),
        "",
        "With MCP: `batch-llm mcp` (pip install 'batch-llm[mcp]'). Without, call the commands with `--json`. Each",
        'prints `{"version": 1, "command": ..., "run": ..., "data": {...}}`, or with an error, in place of data,',
        '`"error": {"code": ..., "message": ...}`. `batch-llm COMMAND --schema` prints the schema of a command that',
        "watches or changes runs, `--help` its options. `batch-llm run --dry-run --json` estimates;",
        "`batch-llm run --detach --json` returns at once.",
        "",
        "## Commands",
        "",
        "| command | |",
        "| --- | --- |",
        *commands(),
        "",
        "## Tools",
        "",
        "| tool | |",
        "| --- | --- |",
        *tools(),
        "",
        "## Exit codes of `run`",
        "",
        plain.sub(r"\1", run_codes),
        "",
        "## Exit codes of commands that watch or change runs",
        "",
        plain.sub(r"\1", control_codes),
        "",
    ])  # fmt: skip


FILES = {DOCS / "llms.txt": llms, DOCS / "skills" / "batch-llm" / "SKILL.md": skill}


def outdated() -> list[Path]:
    """The files that are not as they would be written."""
    return [path for path, make in FILES.items() if not path.exists() or path.read_text(encoding="utf-8") != make()]


if __name__ == "__main__":
    if "--check" in sys.argv:
        wrong = outdated()
        print("\n".join(f"{path}: run scripts/agent_docs.py" for path in wrong))
        sys.exit(bool(wrong))
    for path, make in FILES.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")
