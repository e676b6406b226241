"""Help in groups: options under headings, in place of one long list."""

from __future__ import annotations

from typing import Any

import click

OTHER = "Other"
"""The heading of options that have no group."""
ARGUMENTS = f"{__name__}.arguments"
"""Where a context keeps the arguments as they were given."""


class GroupedCommand(click.Command):
    """A command whose options are listed under headings.

    Args:
        groups: Names of parameters by heading, in the order in which they are shown.
    """

    def __init__(self, *args: Any, groups: dict[str, tuple[str, ...]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._groups = groups

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments, and keep them as they were given."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options."""
        left = {parameter.name: parameter for parameter in self.get_params(ctx) if isinstance(parameter, click.Option)}
        listed = {heading: [left.pop(name) for name in names] for heading, names in self._groups.items()}
        listed.setdefault(OTHER, []).extend(left.values())
        for heading, parameters in listed.items():
            lines = [record for one in parameters if (record := one.get_help_record(ctx)) is not None]
            if lines:
                with formatter.section(heading):
                    formatter.write_dl(lines)
