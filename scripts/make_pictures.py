"""Draw the pictures of the documentation: ``python scripts/make_pictures.py [FOLDER]``, ``docs/images`` by default.

Everything in them is real: a job runs against the simulated provider, and what the progress display and the summary
show of it is drawn as a terminal. Figures differ a little from run to run. Needs rich.
"""

from __future__ import annotations

import os
import re
import sys
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table
from rich.terminal_theme import MONOKAI
from rich.text import Text

from batch_llm import BatchResult, llm, run
from batch_llm._progress import display
from batch_llm.testing import Fault, SimulatedProvider

COLUMNS = 110
NAME_COLUMNS = 12
"""Lines of a summary begin with a name of so many characters."""
ITEMS = 5000
IMAGES = Path(__file__).parent.parent / "docs" / "images"


class RecordedBar(display.RichBar):
    """The bar of a run, of which each state is kept."""

    states: list[tuple[float, Any]]

    def __init__(self) -> None:
        super().__init__()
        type(self).states = []

    def show(self, snapshot: display.Snapshot) -> None:
        """Draw, and keep what was drawn."""
        super().show(snapshot)
        self.states.append((snapshot.done / ITEMS, self._progress.get_renderable()))


def run_job() -> BatchResult[str]:
    """Run a job that meets server errors and rate limits."""
    prompts = [f"Describe the number {number} in one sentence." for number in range(ITEMS)]
    faults = [Fault(500, every=100), Fault(429, on=[3000], retry_after=0.3)]
    with (
        SimulatedProvider(latency=0.15, faults=faults) as provider,
        patch.dict(os.environ, {"COLUMNS": str(COLUMNS)}),
        patch.object(display, "RichBar", RecordedBar),
    ):
        return run(llm("openai:gpt-5-mini", base_url=provider.base_url), prompts, progress="rich")


def draw(batch: BatchResult[str]) -> str:
    """Return the picture of a run: its bar halfway and at the end, and its summary."""
    # Colours do not depend on the terminal in which this runs.
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    halfway = next(state for part, state in RecordedBar.states if part >= 0.5)
    console.print(Text("$ python describe_numbers.py", style="bold"))
    console.print(halfway)
    console.print(Text("... the same line, at the end:", style="dim"))
    console.print(RecordedBar.states[-1][1])
    console.print()
    console.print(_hanging(batch.summary()))
    svg = console.export_svg(title="batch-llm", theme=MONOKAI, unique_id="batch-llm")
    # Fonts from elsewhere: a picture asks no server for anything.
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


def _hanging(summary: str) -> Table:
    """A summary, whose long lines go on below their text and not below its name."""
    table = Table.grid()
    for line in summary.splitlines():
        table.add_row(Text(line[:NAME_COLUMNS]), Text(line[NAME_COLUMNS:]))
    return table


def main() -> None:
    """Run the job and write the picture."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    batch = run_job()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.svg"
    path.write_text(draw(batch), encoding="utf-8")
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
