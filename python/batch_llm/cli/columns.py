"""The new columns beside those of the input: their names and values.

A column of the input is never overwritten: if it has the name of a new one, the new one gets a number, ``output_2``.
Columns that an earlier run has added in place are recorded: for Parquet in the file, otherwise beside the store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from .._files import replaced
from .._frames import error_column
from .._results import WorkItemResult
from . import requests, texts
from .reading import Row, Survey

OUTPUT, ERROR, ID = "output", "error", "id"
_OTHERS = (ERROR, "error_category", "input_tokens", "output_tokens", "model", "finish_reason")
INVALID = "invalid_input"
"""The category of invalid rows."""

Result = WorkItemResult[Any, Any]
Texts = dict[str, str]
"""Columns as JSON texts."""


@dataclass
class Columns:
    """The new columns, and those of the input.

    Args:
        in_place: Whether answers are added to the file itself: then there are only the answer and the error.
        output: Name of the answer column; in tables, answers that are objects have a column per field:
            ``output.name``. None: ``output``.
        prefix: Prefix of the names of the others.
        is_table: Whether all rows have the same columns.
        is_flat: Whether fields of answers have columns.
        before: Names of columns of answers that earlier runs have added in place.
    """

    in_place: bool
    output: str | None = None
    prefix: str | None = None
    is_table: bool = False
    is_flat: bool = False
    before: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.of_requests = False
        """Whether what comes out is what the Batch API gives."""
        self.adds_id = not self.in_place
        """Whether rows that have no id get one."""
        self._names = self.beside(())
        self.known: list[str] | None = None
        """The columns of the input, where they are known before the first row is written."""
        self.notify: Callable[[str], None] = lambda notice: None
        """Notifies the user."""
        self._file = ""
        self._first: tuple[str, ...] = ()
        self._notified: set[str] = set()

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a result."""
        return (OUTPUT, ERROR) if self.in_place else (OUTPUT, *_OTHERS)

    def choose_names(self, survey: Survey, file: str) -> list[str]:
        """Choose the names, once the columns of the input are known. Return notices for the user.

        Raises:
            click.UsageError: If a requested name is taken.
        """
        taken = {**(survey.columns or survey.first)}
        self.known = None if survey.columns is None else list(taken)
        self._file, self._first = file, tuple(taken)
        self.of_requests = survey.is_of_requests and not self.in_place
        self.adds_id = not self.in_place and not (self.is_table and ID in taken)
        if self.adds_id:
            taken[ID] = None
        self._names = self.beside(taken)
        if self.of_requests:
            return []
        new_values = (OUTPUT,) if self.in_place else self.fields
        renamed = [(name, self._wished(name)) for name in new_values if self._names[name] != self._wished(name)]
        for name, wished in renamed:
            option = "--output-column" if name == OUTPUT else "--column-prefix"
            if name != OUTPUT and wished == self.output:
                raise click.UsageError(
                    f"two new columns would be called {wished!r}; choose another name with --output-column"
                )
            if (self.output if name == OUTPUT else self.prefix) is not None:
                there = _in_the_way(wished, taken)
                raise click.UsageError(f"{file} already has a column {there!r}; choose another name with {option}")
        return [_stays(file, wished, taken, self._names[name]) for name, wished in renamed]

    def _wished(self, name: str) -> str:
        output = self.output or OUTPUT
        if name == OUTPUT:
            return output
        return error_column(output) if self.in_place else f"{self.prefix or ''}{name}"

    def beside(self, taken: Collection[str]) -> dict[str, str]:
        """Return names of the new columns that differ from these, by field."""
        chosen: dict[str, str] = {}
        for number in range(1, len(taken) + 2):
            end = "" if number == 1 else f"_{number}"
            name = self._wished(OUTPUT) + end
            group = (name, error_column(name)) if self.in_place else (name,)
            is_free = not any(one in taken for one in group) and not (
                self.is_flat and any(one.startswith(f"{name}.") for one in taken)
            )
            if is_free or (self.in_place and name in self.before):
                chosen[OUTPUT] = name
                break
        if self.in_place:
            return {**chosen, ERROR: error_column(chosen[OUTPUT])}
        for field_ in _OTHERS:
            name, number = self._wished(field_), 2
            while name in taken or name in chosen.values():
                name, number = f"{self._wished(field_)}_{number}", number + 1
            chosen[field_] = name
        return chosen

    @property
    def names(self) -> dict[str, str]:
        """The names of the new columns, by field."""
        return self._names

    def names_among(self, columns: Collection[str], row: int | None = None) -> dict[str, str]:
        """Return the names beside columns that were unknown before. Notify the user if names change.

        Args:
            columns: The columns.
            row: The row that has them, where others have been written; None: those of all rows.
        """
        if self.known is not None or self.of_requests:
            return self._names
        if not self.is_flat and not any(name in columns for name in self._names.values()):
            return self._names
        taken = {*columns, *self._first, *((ID,) if self.adds_id else ())}
        chosen = self.beside(taken)
        for field_, name in self._names.items():
            if chosen[field_] != name and name not in self._notified:
                self._notified.add(name)
                self.notify(_stays(self._file, name, columns, chosen[field_], row))
        return chosen

    def is_ours(self, column: str) -> bool:
        """Whether a column of the input is one of an earlier run, which this run replaces."""
        output = self._names[OUTPUT]
        return self.in_place and output in self.before and (
            column in (output, self._names[ERROR]) or column.startswith(f"{output}.")
        )  # fmt: skip

    def record(self, row: Row, result: Result | None) -> tuple[Texts, Texts]:
        """Return the columns of a row, and the new ones by field; both as JSON texts.

        Args:
            row: The row.
            result: Its result; None: the row is invalid.
        """
        if self.of_requests:
            line = requests.refusal(row) if result is None else requests.reply(result)
            return {name: texts.of(value) for name, value in line.items()}, {}
        columns = row.texts()
        if self.in_place:
            columns = {name: text for name, text in columns.items() if not self.is_ours(name)}
        elif self.adds_id and ID not in columns:
            columns = {ID: texts.of(row.item_id), **columns}
        return columns, self.new_values(row, result)

    def new_values(self, row: Row, result: Result | None) -> Texts:
        """Return the new values of a row, as JSON texts."""
        if result is None:
            new_values: dict[str, Any] = {ERROR: row.problem, "error_category": INVALID}
        else:
            usage: Any = result.token_usage or {}
            metadata = result.metadata or {}
            new_values = {
                OUTPUT: result.output,
                ERROR: result.error,
                "error_category": result.error_category,
                "input_tokens": usage.get("input_tokens"),
                "output_tokens": usage.get("output_tokens"),
                "model": metadata.get("model"),
                "finish_reason": metadata.get("finish_reason"),
            }
        return {name: texts.of(new_values.get(name)) for name in self.fields}


def _stays(file: str, wished: str, taken: Collection[str], ours: str, row: int | None = None) -> str:
    where = file if row is None else f"{file}, row {row}"
    there = "" if row is None else " there and in similar rows"
    return (
        f"{where} already has a column {_in_the_way(wished, taken)!r}; the new column is {ours!r}{there} "
        "(set names with --output-column and --column-prefix)"
    )


def _in_the_way(wished: str, taken: Collection[str]) -> str:
    """Return the column that has the name of a new one, or a name derived from it."""
    near = (one for one in taken if one == error_column(wished) or one.startswith(f"{wished}."))
    return wished if wished in taken else next(near, wished)


def noted(note: Path | None) -> list[str]:
    """Return the names of answer columns that earlier runs have added in place, as recorded beside the store."""
    if note is None:
        return []
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(found, list):
            return [name for name in found if isinstance(name, str)]
    return []


def note_down(note: Path, columns: Columns) -> None:
    """Record the names of the answer columns."""
    output = columns.names[OUTPUT]
    if output not in columns.before:
        with replaced(note, 0o600) as file:
            file.write(json.dumps([*columns.before, output]))
