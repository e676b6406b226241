"""Names of the new columns of a frame: which are taken, and which an earlier call has left."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from .._secrets import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .columns import Answers
    from .prompts import Prompts


def error_column(output: str | None) -> str:
    """The name of the column of errors."""
    return "error" if output is None else f"{output}_error"


def earlier_columns(names: Sequence[str], output: str | None) -> list[str]:
    """The columns of answers of an earlier call: what stands before its column of errors, as it was written."""
    error = error_column(output)
    if output is None or error not in names:
        return []
    end = list(names).index(error)
    if end > 0 and names[end - 1] == output:
        return [output]
    begin = end
    while begin > 0 and names[begin - 1].startswith(f"{output}."):
        begin -= 1
    return list(names[begin:end])


def check_names(names: Sequence[str], output: str | None, answers: Answers, prompts: Prompts) -> bool:
    """Look whether the names of the new columns are free.

    Args:
        names: The columns of the frame.
        output: The name of the column of answers.
        answers: Knows the columns of answers, if they are known.
        prompts: Knows which columns are read.

    Returns:
        Whether the frame has the answers of an earlier call, whose columns are replaced: it has a column of errors and
        one of answers, by these names.

    Raises:
        TypeError: If ``output`` is no name.
        ValueError: If a column would be lost; the message names it and the remedy.
    """
    if output is not None and not isinstance(output, str):
        raise TypeError(f"output must be the name of a column, or None, not {quoted(output)}")
    error, known = error_column(output), answers.names(output)
    if known is not None and error in known:
        raise ValueError(
            f"the answers have a field {error!r}, which is the name of the error column; give output='answer'"
        )
    ours = {error, *(known or (output or "output",))}
    if output is not None:
        earlier = earlier_columns(names, output)
        if known is not None and known != [output]:
            # Beside columns of fields others of such a name would be taken for an earlier call's, the next time.
            ours.update(name for name in names if name.startswith(f"{output}."))
        if earlier:
            ours.update(earlier)
            read = [name for name in prompts.reads if name in ours]
            twice = [name for name in names if name in ours and names.count(name) > 1]
            if read:
                raise ValueError(
                    f"the template reads {read[0]!r}, a column of answers that this call would replace; "
                    f"give output={_other(output, names)!r}, for example"
                )
            if twice:
                raise ValueError(f"there is more than one column {twice[0]!r}; rename one")
            return True
    lost = [name for name in names if name in ours]
    if lost:
        raise ValueError(
            f"there is already a column {lost[0]!r}, and a new column would have this name; "
            f"give output={_other(output, names)!r}, for example, or drop it"
        )
    return False


def _other(output: str | None, names: Sequence[str]) -> str:
    """A name that is free."""
    for name in itertools.chain(("answer", "output"), (f"{output or 'output'}_{number}" for number in range(2, 10**6))):
        if not any(one in (name, error_column(name)) or one.startswith(f"{name}.") for one in names):
            return name
    return "another"
