"""Checks of ``batch-llm run`` before anything is sent: that its options and files go together."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import click

from .._shown import line
from . import files, reading
from .asking import Wanted
from .option_values import files_read


def check_in_place(file: str, kind: str, output: str, options: dict[str, Any]) -> None:
    """Check that answers can be added to a file itself."""
    if file == "-" or kind == "lines" or (os.path.exists(file) and not os.path.isfile(file)):
        raise click.UsageError("--in-place needs a file with columns; give -o FILE")
    if not os.path.exists(file):
        raise click.FileError(file, "there is no such file")
    for name, given in (
        ("--output", output != "-"),
        ("--output-format", options["output_format"]),
        ("--limit", options["limit"]),
        ("--unordered", options["unordered"]),
        ("--column-prefix", options["column_prefix"]),
    ):
        if given:
            raise click.UsageError(f"--in-place and {name} cannot be combined")


def check_files(file: str, output: str, store: str | None, options: dict[str, Any]) -> None:
    """Check before anything is sent that files can be written, and none is overwritten by mistake."""
    if options["report"] == files.STDOUT:
        raise click.UsageError("--report needs a file, such as --report run.html")
    read = None if file == files.STDOUT or options["in_place"] else file
    store = None if store is None or has_segments(store) else store
    others = {"--store": store, "--cache": options["cache"], "--report": options["report"]}
    for name, path in {files.INPUT: read, **files_read(click.get_current_context())}.items():
        files.check_apart({name: path, files.OUTPUT: output, **others})
    if output != files.STDOUT:
        files.check(output, output)
    for name, path in others.items():
        if path is not None:
            files.check(f"{name} {path}", path, is_kept=name != "--report")


def has_segments(store: str) -> bool:
    """Whether a store is a folder or a URL, which checks itself when it is opened."""
    return "://" in store or store.endswith(("/", os.sep)) or os.path.isdir(store)


def surveyed(source: reading.Source, wanted: Wanted, *, in_place: bool) -> tuple[reading.Survey, Iterator[reading.Row]]:
    """Survey a file, before anything is sent. Return the survey and the rows."""
    survey, rows = (source.survey(), source.rows()) if source.is_file else source.started()
    if wanted.template is not None:
        survey.is_of_requests = False
    _check(survey, source, wanted, in_place=in_place)
    return survey, rows


def _check(survey: reading.Survey, source: reading.Source, wanted: Wanted, *, in_place: bool) -> None:
    """Check a file as a whole, before anything is sent."""
    if not survey.rows:
        wanted.prepare(None)
        click.echo(f"{line(source.name)} has no rows", err=True)
        return
    if wanted.strategy is None and not survey.is_of_requests:
        raise click.UsageError("--model is missing; give one, such as --model openai:gpt-5-mini")
    wanted.of_requests = survey.is_of_requests
    wanted.prepare(None if survey.is_of_requests else survey.columns)
    if in_place and survey.too_long is not None:
        raise click.ClickException(f"{survey.too_long}: --in-place cannot add columns to it")
    if in_place and not _represents_everything(source.encoding):
        raise click.UsageError(
            f"--in-place keeps the encoding of {source.name}, but {source.encoding} cannot represent every answer; "
            "give -o FILE"
        )


def _represents_everything(encoding: str) -> bool:
    try:
        "\U0001f600\u6f22\u00e9".encode(encoding)
    except UnicodeError:
        return False
    return True
