"""What the command line shows of a run: the total, a bar at any width, grouped help, nothing that a terminal obeys."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading

import click
import pytest
from click.testing import CliRunner
from tqdm import tqdm

from batch_llm._progress.display import BAR_COLUMNS, RichBar, bar_format
from batch_llm.cli.main import main
from batch_llm.cli.run import run
from batch_llm.testing import SimulatedProvider

from ..progress.test_progress import snapshot

BLOCK = "[█▏▎▍▌▋▊▉ #0-9]"


def line(columns, **fields):
    one = snapshot(**fields)
    total = None if one.is_growing else one.total
    return tqdm.format_meter(one.done, total, 5.0, ncols=columns, bar_format=bar_format(one, columns))


AWAY = {"standstill": ("cooldown", 43.0), "outage": 100.0}


@pytest.mark.parametrize("columns", [40, 60, 80, 132])
@pytest.mark.parametrize("fields", [{}, AWAY, {"done": 123_456, "total": 2_000_000}, {"rate": 0.0, "cost": 1e5}])
def test_a_bar_is_a_bar_at_any_width(columns, fields):
    text = line(columns, **fields)
    assert len(text) <= columns
    bar = re.fullmatch(r" *\d+%\|([^|]+)\| [\d,]+/[\d,]+( \[.+\])?", text)[1]
    assert len(bar) >= BAR_COLUMNS


@pytest.mark.parametrize("columns", [40, 60, 100])
@pytest.mark.parametrize("fields", [{}, AWAY, {"done": 123_456, "total": 2_000_000}])
def test_a_bar_of_richs_is_one_too(columns, fields, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    bar = RichBar()
    bar.show(snapshot(**fields))
    capsys.readouterr()
    bar.close(snapshot(**fields))
    text = capsys.readouterr().err.rstrip("\n")
    assert "\n" not in text
    assert len(text) <= columns
    assert re.search(rf"^ *[\d]+/[\d]+ [━╺╸ ]{{{BAR_COLUMNS},}} ", text), text


def test_what_matters_most_is_told_first():
    assert line(60).endswith("50/200 [00:05<00:15, 10/s, 3 failed]")
    assert "the provider has been down" in line(70, outage=100.0)
    assert "waiting until" in line(70, standstill=("cooldown", 43.0))
    assert line(200).endswith("3 failed, 2 retrying, 20 in flight, 12.3k tokens, cost 0.12]")
    assert line(None) == line(None).rstrip()
    assert "50/200" in line(20)


@pytest.mark.parametrize("fields", [{"is_growing": True}, {"total": 0, "done": 0}])
@pytest.mark.parametrize("columns", [40, 80, None])
def test_without_a_total_there_is_no_percentage(columns, fields):
    text = line(columns, **fields)
    assert "%" not in text
    assert "done" in text


def seen(arguments, columns, stdin=None):
    """What somebody sees at a terminal of so many columns, line by line."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    text = []

    def read():
        try:
            while part := os.read(ours, 65536):
                text.append(part)
        except OSError:  # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    command = [sys.executable, "-m", "batch_llm", "run", *arguments, "-m", "openai:gpt-5-mini"]
    done = subprocess.run(command, stderr=theirs, stdout=subprocess.DEVNULL, input=stdin, text=True, timeout=60)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    assert done.returncode == 0
    return [part for part in re.split(r"[\r\n]+", b"".join(text).decode()) if part.strip()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal of POSIX")
@pytest.mark.parametrize("columns", [40, 60])
def test_at_a_terminal_the_total_is_that_of_the_file(tmp_path, monkeypatch, columns):
    path = tmp_path / "in.csv"
    path.write_text("prompt\n" + "".join(f'"Question\n{number}"\n' for number in range(1500)))
    with SimulatedProvider(latency=0.1) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        shown = seen([str(path), "-o", str(tmp_path / "out.csv"), "-c", "100"], columns)
        bars = [one for one in shown if "%" in one]
        assert len(bars) > 3
        for bar in bars:
            assert len(bar) <= columns
            assert re.search(rf"^ *\d+%\|{BLOCK}{{10,}}\| [\d,]+/1,500", bar), bar
        shown = seen(["-", "--limit", "300"], columns, json.dumps({"prompt": "a"}) + "\n" + '{"prompt": "b"}\n' * 400)
        during = [one for one in shown if "done" in one]
        assert during
        assert not [one for one in during if "%" in one]


def test_help_is_in_groups_and_complete():
    text = CliRunner().invoke(main, ["run", "--help"], terminal_width=100).output
    headings = re.findall(r"^(\w[\w ]*):$", text, re.MULTILINE)
    assert headings == [
        "Input",
        "Output",
        "Output columns",
        "Model",
        "Lane",
        "Limits",
        "Storing and resuming",
        "Control",
        "Other",
    ]
    for parameter in run.params:
        if isinstance(parameter, click.Option):
            assert len(re.findall(rf"^  (-\w, )?{parameter.opts[-1]}(?=\s)", text, re.MULTILINE)) == 1, parameter
    assert text.index("Model:") < text.index("--model ") < text.index("Limits:") < text.index("--budget ")
    assert "--help" in text.split("Other:")[1]


def test_help_of_the_simulated_provider_describes_every_option():
    text = CliRunner().invoke(main, ["simulate", "--help"], prog_name="batch-llm", env={"COLUMNS": "200"}).output
    assert text.startswith("usage: batch-llm simulate ")
    # Help is beside its option, or below it if the option is long.
    options = re.findall(r"^  (-\S.*(?:\n {4,}.*)*)", text.partition("options:\n")[2], re.MULTILINE)
    assert len(options) > 10
    assert [option for option in options if not re.search(r"\S\s{2,}\w", option)] == []
