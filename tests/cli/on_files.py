"""Calls of the command line in a folder with two input files, and what is there afterwards."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

from click.testing import CliRunner

from batch_llm.cli.main import main

ROWS = [{"id": f"r{number}", "prompt": f"Question {number}"} for number in range(20)]


def with_inputs(folder):
    """Write two input files with the same rows into a folder; return it."""
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "rows.csv").write_text("id,prompt\n" + "".join(f"{row['id']},{row['prompt']}\n" for row in ROWS))
    return folder


def ask(*arguments, code=0, stdin=None):
    done = CliRunner().invoke(
        main, ["run", *map(str, arguments), "-m", "openai:gpt-5-mini", "-q"], input=stdin, catch_exceptions=False
    )
    assert done.exit_code == code, (done.output, done.exception)
    return done


def command(*arguments, **options):
    """Begin the command in a process of its own."""
    line = [sys.executable, "-m", "batch_llm", "run", *map(str, arguments), "-m", "openai:gpt-5-mini", "-q"]
    return subprocess.Popen(line, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options})


def rows_of(text):
    return [json.loads(line)["id"] for line in text.splitlines()]


IDS = [row["id"] for row in ROWS]


def names(folder):
    return {path.name for path in folder.iterdir()}


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)
