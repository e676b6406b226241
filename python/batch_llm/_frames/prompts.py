"""The prompts of a frame's rows, and why a row has none."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from .._secrets import quoted
from .._values import is_missing, shown
from .templates import Template

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..core.config import ProcessorConfig
    from .backends import Frame


class Prompts:
    """Prompts of rows.

    Args:
        template: A template over columns, or a function of a row.
        frame: The frame, or one of its kind.
        strategy: Says which prompts it takes.
        config: Says how long they may be.
        lenient: Whether an exception of a template function is the error of its row; otherwise it ends the run.

    Raises:
        TypeError: If the template is neither.
        ValueError: If it names no column, or one that is not there.
    """

    def __init__(
        self, template: Any, frame: Frame, strategy: Any, config: ProcessorConfig | None, *, lenient: bool = False
    ) -> None:
        names = frame.names
        self._is_lenient = lenient
        self._template: Any = template
        self._check = getattr(strategy, "check_prompt", None)
        self._longest = getattr(config, "max_prompt_length", None)
        if isinstance(template, str):
            self._template = Template(template, names)
            self.reads = self._keys = self._template.columns
            if not self.reads:
                raise ValueError(
                    f"the template names no column: {quoted(template)}. Write a column in braces, "
                    f"such as {{{next(iter(names), 'text')}}}"
                )
        elif inspect.iscoroutinefunction(template):
            raise TypeError("template must be a plain function of a row, not an async one")
        elif callable(template):
            self.reads, self._keys = [], frame.keys
        else:
            raise TypeError(
                f"template must be a string with columns in braces, or a function of a row, not {template!r}"
            )
        for name in self.reads or names:
            if names.count(name) > 1:
                raise ValueError(f"there is more than one column {name!r}; rename one")
        self.calls_back = not isinstance(self._template, Template)
        """Whether prompts are made by a function of the user's."""
        self.places = [names.index(name) for name in self.reads] if self.reads else list(range(len(names)))
        """Which columns a prompt is made of."""

    def of(self, values: Sequence[Any]) -> tuple[Any, str | None]:
        """The prompt of a row, given the values of the columns at ``places``; or why there is none."""
        row = dict(zip(self._keys, values, strict=True))
        if not isinstance(self._template, Template):
            try:
                prompt = self._template(row)
            except Exception as error:
                if not self._is_lenient:
                    raise
                return None, f"the template raised {type(error).__name__}: {error}"
            return prompt, self._problem(prompt)
        for name, value in row.items():
            if is_missing(value):
                return None, f"{name!r} is null"
            if isinstance(value, bytes):
                try:
                    row[name] = value.decode()
                except UnicodeDecodeError:
                    return None, f"{name!r} has bytes that are not UTF-8"
        if all(isinstance(value, str) and not value.strip() for value in row.values()):
            return None, f"{next(iter(row))!r} is empty"
        try:
            prompt = self._template.fill(row)
        except Exception as error:  # a value that cannot be shown
            return None, f"it cannot be converted to text ({type(error).__name__}: {error})"
        return prompt, self._problem(prompt)

    def _problem(self, prompt: Any) -> str | None:
        """Return why a prompt cannot be sent."""
        if isinstance(prompt, str):
            if not prompt.strip():
                return "the prompt is empty"
            if self._longest is not None and len(prompt) > self._longest:
                return f"the prompt has {len(prompt):,} characters, max_prompt_length is {self._longest:,}"
            return None
        if is_missing(prompt):
            return "the template returned no prompt"
        try:
            if self._check is None:
                raise TypeError(f"a prompt must be a string, not {type(prompt).__name__} ({shown(prompt):.80})")
            self._check(prompt)
        except (TypeError, ValueError) as error:
            return str(error)
        return None
